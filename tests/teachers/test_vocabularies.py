"""Teachers whose tokens are others than those of the data are refused."""

import json

import pytest

from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.teachers import vocabularies

SOURCE = sources.load('markov', size=50, words=6)
PIECES = SOURCE.classes
ROWS = 16


def entry(**given):
  views = {'train': '', 'eval': ''}
  made = {'model': 'lstm_language', 'classes': 0, 'reads': (), 'kw': {}}
  return {**made, 'views': views, **given}


def checked(pieces, source=SOURCE, **given):
  return vocabularies.check_restored('main', entry(**given), pieces, source)


def test_a_teacher_of_the_same_tokens_is_taken():
  assert checked(PIECES) == []
  assert checked(list(PIECES), kw=dict(vocabulary=ROWS)) == []
  assert checked(('x',), sources.load('digits')) == []


def test_a_token_that_means_something_else_is_refused_with_the_choices():
  other = (*PIECES[:5], 'other', *PIECES[6:])
  with pytest.raises(UserError) as error:
    checked(other)
  said = str(error.value)
  assert said.startswith("teachers.main.restore: token 5 is 'other' there and")
  for choice in ('sequence-level', 'universal_logit_distance', 'classes='):
    assert choice in said
  assert checked(other, classes=len(PIECES)) == []  # as the config says


def test_more_tokens_than_the_data_has_are_cut_where_the_config_says_so():
  more = (*PIECES, 'more', 'tokens')
  want = rf'teachers\.main\.kw\.vocabulary={len(more)} to leave out'
  with pytest.raises(UserError, match=want):
    checked(more)
  (note,) = checked(more, kw=dict(vocabulary=len(more)))
  assert f'know {len(more)} tokens, of which markov has the first' in note
  with pytest.raises(UserError, match=r'^teachers\.main\.restore: it knows 9 '):
    checked(PIECES[:-1], kw=dict(vocabulary=ROWS))


def test_tokens_that_nothing_tells_are_told():
  unnamed = tuple(map(str, range(len(PIECES))))
  for pieces in ((), unnamed):
    (note,) = checked(pieces)
    assert note.startswith('nothing tells which tokens the restored teachers')


def test_padded_rows_are_told():
  (note,) = vocabularies.padding(
    'teachers.main', entry(kw=dict(vocabulary=ROWS)), SOURCE
  )
  assert f'has {ROWS} rows, and markov {len(PIECES)} tokens' in note
  assert 'over what is left' in note
  for kw in ({}, dict(vocabulary=0), dict(vocabulary=len(PIECES))):
    assert vocabularies.padding('teachers.main', entry(kw=kw), SOURCE) == []


def test_a_teacher_of_other_tokens_needs_a_part_of_the_inputs():
  with pytest.raises(UserError, match=r'^teachers\.main\.classes: .*two_token'):
    vocabularies.check_own_tokens('teachers.main', entry(classes=99), SOURCE)
  shown = dict.fromkeys(('train', 'eval'), 'part("student")')
  with pytest.raises(UserError, match=r'^teachers\.main\.classes: .*two_token'):
    vocabularies.check_own_tokens(
      'teachers.main', entry(classes=99, views=shown), SOURCE
    )
  shown = dict.fromkeys(('train', 'eval'), 'part("teacher")')
  for fine in (
    entry(classes=99, views=shown),
    entry(classes=len(PIECES)),
    entry(),
  ):
    vocabularies.check_own_tokens('teachers.main', fine, SOURCE)


@pytest.mark.parametrize(
  'vocabulary', [{'b': 1, 'a': 0}, [['a', 0], ['b', -1]]]
)
def test_reads_the_pieces_of_a_tokenizer(tmp_path, vocabulary):
  assert vocabularies.of_folder(tmp_path) == ()
  file = tmp_path / 'tokenizer.json'
  added = [{'id': 3, 'content': '<end>', 'special': True}]
  file.write_text(
    json.dumps({'model': {'vocab': vocabulary}, 'added_tokens': added})
  )
  assert vocabularies.of_folder(tmp_path) == ('a', 'b', '', '<end>')
  assert vocabularies.pieces_of(f'hf:{tmp_path}', tmp_path)[3] == '<end>'
  for broken in ('{}', 'no', '{"model": {"vocab": {}}}'):
    file.write_text(broken)
    with pytest.raises(UserError, match='is no tokenizer'):
      vocabularies.of_folder(tmp_path)
