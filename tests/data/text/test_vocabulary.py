"""Vocabularies: tokens, their bytes, special tokens, files that are none."""

import json
import shutil

import numpy as np
import pytest

from jaxkd.data.text import (
  pretrained,
  tokenizer,
  vocabularies,
  vocabulary,
  words,
)
from jaxkd.data.text.tokens import Special
from jaxkd.errors import UserError

TEXTS = [
  'abc the\n\n  größe 漢字 😀\n\tx',
  ' </s> ▁ <|im_end|>y\n',
  'e\u0301 unhappy',  # two characters that some compose
  'a',
]


@pytest.fixture(scope='module')
def pieces():
  return vocabularies.of('pieces', 290, ['abc the  größe', 'the 漢字 x'] * 5)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A file of SentencePiece that puts spaces first and has no bytes."""
  made = tokenizer.learn(['abc the größe', 'unhappy x'] * 5, 40)
  file = tmp_path_factory.mktemp('model') / 'a.model'
  file.write_bytes(made.model)
  return file


def named(name, request):
  """A vocabulary of each kind."""
  if name in ('byte_level', 'metaspace'):
    return pretrained.tokenizer(str(request.getfixturevalue(name)))
  if name == 'sentencepiece':
    return pretrained.sentencepiece(str(request.getfixturevalue('model')))
  return request.getfixturevalue(name) if name == 'pieces' else (
    vocabularies.of(name, None)
  )  # fmt: skip


LOSSLESS = ['bytes', 'pieces', 'byte_level']
ALL = [*LOSSLESS, 'metaspace', 'sentencepiece']


@pytest.mark.parametrize('name', ALL)
class TestTokens:
  def test_their_bytes_are_those_of_the_text(self, name, request):
    own = named(name, request)
    made = own.encode(TEXTS)
    ends = np.cumsum(made.counts)[:-1]
    sums = [part.sum() for part in np.split(made.sizes, ends)]
    assert sums == [len(text.encode()) for text in TEXTS]
    goes_on = own.encode(TEXTS, continues=True)
    assert goes_on.sizes.sum() == sum(sums)

  def test_the_text_is_theirs(self, name, request):
    own = named(name, request)
    made = own.encode(TEXTS)
    found = map(own.decode, np.split(made.tokens, np.cumsum(made.counts)[:-1]))
    if name in LOSSLESS:
      assert [*found] == [text.replace('▁', ' ') if name == 'pieces' else text
                          for text in TEXTS]  # fmt: skip
      assert not own.notes or name == 'byte_level'
    else:
      assert any('changes characters' in note for note in own.notes)

  def test_portions_are_the_whole(self, name, request, monkeypatch):
    own, text = named(name, request), 'abc the\nx the abc\n\nthe\n x' * 20
    whole = own.encode([text, 'a'])
    monkeypatch.setattr(vocabulary, 'PORTION', 30)
    monkeypatch.setattr(vocabulary, 'GROUP', 50)
    made = own.encode([text, 'a'])
    assert made.counts.tolist() == whole.counts.tolist()
    assert made.tokens.tolist() == whole.tokens.tolist()
    assert made.sizes.sum() == whole.sizes.sum()
    assert name not in LOSSLESS or (made.sizes == whole.sizes).all()


def test_a_character_may_be_several_tokens(byte_level, pieces):
  for own in (vocabularies.of('bytes', None), pieces, named_by(byte_level)):
    made = own.encode(['😀'])
    assert made.sizes.tolist()[-4:] == [1] * 4
    assert '\ufffd' in own.decode(made.tokens[:-1])


def test_unknown_tokens_have_their_bytes(metaspace, model):
  for own in (named_by(metaspace), pretrained.sentencepiece(str(model))):
    made = own.encode(['x 漢 x'])
    unknown = made.tokens == own.special.unk
    assert made.sizes[unknown].sum() in (3, 4)  # with the space or without
    assert made.sizes.sum() == 7


def test_what_is_composed_has_its_bytes(metaspace):
  own = named_by(metaspace)
  made = own.encode(['e\u0301e\u0301x'])
  said = [own.pieces[i] for i in made.tokens]
  assert said == ['▁', 'é', 'é', 'x'] and made.sizes.sum() == 7


def test_special_tokens_in_a_text_are_text_but_in_a_template(byte_level):
  own = named_by(byte_level)
  plain, marked = (
    own.encode(['a<|im_end|>'], markup=markup) for markup in (False, True)
  )
  assert own.special.eos not in plain.tokens and plain.sizes.sum() == 11
  assert marked.tokens.tolist() == [plain.tokens[0], own.special.eos]
  assert marked.sizes.tolist() == [1, 0]


def test_words_stand_for_what_is_between_them():
  own = vocabularies.of('words', 6, ['the cat', 'the cat'])
  made = own.encode(['The cat!\n\n the größe', 'dog'])
  said = [own.pieces[i] for i in made.tokens]
  assert said == ['the', 'cat', '</s>', 'the', '<unk>', '<unk>']
  assert made.sizes.tolist() == [3, 4, 1, 3, 8, 3]
  assert made.counts.tolist() == [5, 1]


def test_marks_belong_to_their_letters():
  split = words.SPLIT['words']
  assert split('हिन्दी में, लिखी!') == ['हिन्दी', 'में', 'लिखी']
  assert split('مُحَمَّد') == ['مُحَمَّد']
  assert split('Cafe\u0301s, CAFÉS') == ['cafés', 'cafés']
  assert split('❤\ufe0f heart') == ['heart']
  assert split("Don't x-y_z o’b 3.5") == ["don't", 'x-y', 'z', 'o’b', '3', '5']


def test_special_tokens_come_from_the_files(byte_level, metaspace, model):
  own = named_by(byte_level)
  names = [own.pieces[i] for i in own.special[:3]]
  assert names == ['<|endoftext|>', '<|endoftext|>', '<|im_end|>']
  assert own.special.unk is None and not own.begins
  assert own.notes == (
    f'tokenizer:{byte_level} has no token of its own that begins a document; '
    '<|endoftext|> stands in',
  )
  own = named_by(metaspace)
  assert own.special == Special(pad=0, bos=1, eos=2, unk=0) and own.begins
  assert 'that fills up; <unk> stands in' in own.notes[0]
  assert pretrained.sentencepiece(str(model)).special == Special()


def test_equal_pieces_have_one_checksum(byte_level, tmp_path):
  first = named_by(byte_level)
  shutil.copy(byte_level / 'tokenizer.json', tmp_path / 'tokenizer.json')
  other = pretrained.tokenizer(str(tmp_path / 'tokenizer.json'), eos='the')
  assert other.checksum == first.checksum == vocabulary.checksum(first.pieces)
  assert first.checksum != vocabularies.of('bytes', None).checksum


def test_what_follows_a_prompt_has_no_space_before_it(metaspace, model):
  for own in (named_by(metaspace), pretrained.sentencepiece(str(model))):
    first, after = (own.encode(['x'], flag).tokens for flag in (False, True))
    assert own.pieces[first[0]][0] == '▁'
    assert [own.pieces[i] for i in after] == ['x']


def named_by(folder):
  return pretrained.tokenizer(str(folder))


@pytest.mark.parametrize(
  ('tokens', 'options', 'said'),
  [
    ('word', {}, r"kw\.tokens: 'word' should be 'words', 'spaces'"),
    ('tokenizer', {}, r"kw\.tokens: 'tokenizer' should be"),
    ('bytes', {'size': 300}, r"kw\.vocabulary: 'bytes' says itself .* remove"),
    ('tokenizer:X', {'size': 300}, r'kw\.vocabulary: .* says itself'),
    ('pieces', {'size': 20}, r'kw\.vocabulary: 20 pieces .*; use \d+ or more$'),
    ('bytes', {'eos': 'a'}, r"kw\.eos: .* ends texts with '</s>'; remove"),
    ('tokenizer:/none', {}, r'kw\.tokens: cannot read /none: No such file'),
    ('sentencepiece:/none', {}, r'kw\.tokens: cannot read /none: No such'),
  ],
)
def test_vocabularies_that_cannot_be(tokens, options, said):
  size = options.get('size')
  with pytest.raises(UserError, match=rf'^data\.{said}'):
    vocabularies.of(tokens, size, ['the cat', 'sat'], options.get('eos', ''))


class TestBrokenFiles:
  @pytest.mark.parametrize(
    ('content', 'said'),
    [
      ('{"model"', 'is not JSON: .*; repair it, or name another file$'),
      ('[]', 'holds no object of JSON'),
      ('{"version": "1.0"}', 'is no tokenizer that the package tokenizers'),
      ('{"model": {"type": "Cube"}}', 'is no tokenizer that the package'),
      ('\xff', 'is not JSON'),
    ],
  )
  def test_of_tokenizers(self, tmp_path, content, said):
    pytest.importorskip('tokenizers')
    (tmp_path / 'tokenizer.json').write_text(content, encoding='latin-1')
    with pytest.raises(UserError, match=rf'^data\.kw\.tokens: .*{said}'):
      pretrained.tokenizer(str(tmp_path))

  @pytest.mark.parametrize(
    ('content', 'said'),
    [(b'', 'is empty'), (b'{"a": 1}', 'is no model of SentencePiece; name')],
  )
  def test_of_sentencepiece(self, tmp_path, content, said):
    (tmp_path / 'a.model').write_bytes(content)
    with pytest.raises(UserError, match=rf'^data\.kw\.tokens: .*{said}'):
      pretrained.sentencepiece(str(tmp_path / 'a.model'))

  def test_a_folder_of_sentencepiece(self, tmp_path):
    (tmp_path / 'tokenizer.model').write_bytes(b'')
    with pytest.raises(UserError, match=r'write sentencepiece:\S+er\.model$'):
      pretrained.tokenizer(str(tmp_path))

  def test_numbers_that_are_too_large(self, byte_level, tmp_path):
    made = json.loads((byte_level / 'tokenizer.json').read_text())
    made['model']['vocab']['zz'] = 2**32 - 1
    (tmp_path / 'tokenizer.json').write_text(json.dumps(made))
    with pytest.raises(UserError, match=r'largest token in .* 4,294,967,295'):
      pretrained.tokenizer(str(tmp_path))

  def test_nothing_ends_a_text(self, byte_level, tmp_path):
    shutil.copy(byte_level / 'tokenizer.json', tmp_path)
    with pytest.raises(UserError, match=r'^data\.kw\.eos: .*; write the token'):
      pretrained.tokenizer(str(tmp_path))
    with pytest.raises(UserError, match=r"^data\.kw\.eos: .* no token.*'zz'"):
      pretrained.tokenizer(str(tmp_path), eos='zz')
    (tmp_path / 'tokenizer_config.json').write_text('{"chat_template": 3}')
    (tmp_path / 'config.json').write_text('{"eos_token_id": 2}')
    with pytest.raises(UserError, match=r'tokens: chat_template in .* no text'):
      pretrained.tokenizer(str(tmp_path))
    (tmp_path / 'tokenizer_config.json').unlink()
    (tmp_path / 'config.json').write_text('{"eos_token_id": -1}')
    with pytest.raises(UserError, match=r'^data\.kw\.eos: .*; write the token'):
      pretrained.tokenizer(str(tmp_path))
    (tmp_path / 'tokenizer_config.json').write_text('{"eos_token": "<end>"}')
    with pytest.raises(UserError, match=r"special token '<end>', which .* not"):
      pretrained.tokenizer(str(tmp_path))


def test_without_the_package(byte_level, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'tokenizers', None)
  with pytest.raises(UserError, match=r"pip install 'jaxkd\[text\]'$"):
    pretrained.tokenizer(str(byte_level))
