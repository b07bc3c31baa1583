"""Texts in the tokens of two tokenizers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkd
from jaxkd.data import sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.source import make_source
from jaxkd.data.text import alignment
from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError
from jaxkd.models import placed
from jaxkd.types import Net

SPECIAL = ('<pad>', '<unk>', '<s>', '</s>')
TEXTS = ['abba', 'bab', 'aabba', 'abb', 'ba', 'bbaab'] * 6
VOCABULARIES = {
  'letters': (*SPECIAL, 'a', 'b'),
  'pairs': (*SPECIAL, 'a', 'b', 'aa', 'ab', 'ba', 'bb'),
}


def written(*, tokens='letters', length=8, prompt=0, packed=False):
  """Texts of a and b, in letters or in pairs of letters, one in a row."""
  pieces, rows = VOCABULARIES[tokens], []
  size = len(pieces[-1])
  for text in TEXTS:
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    own = [BOS, *map(pieces.index, parts), EOS]
    sizes = [*map(len, parts), 0]
    fill = length - len(sizes)
    starts = np.cumsum(sizes) - sizes
    rows.append((
      own[:-1] + [PAD] * fill,
      own[1:] + [PAD] * fill,
      [bool(s >= prompt) for s in starts] + [False] * fill,
      sizes + [0] * fill,
    ))  # fmt: skip
  inputs, labels, valid, sizes = (np.array(x) for x in zip(*rows, strict=True))
  fields = dict(
    inputs=inputs.astype(np.int32),
    labels=labels.astype(np.int32),
    valid=valid,
    bytes=sizes.astype(np.int32),
  )
  if packed:
    fields['inputs'] = {'tokens': fields['inputs']}
  made = make_source(
    'written',
    {'all': ArrayExamples(**fields)},
    None,
    classes=pieces,
    fields={'bytes': 'fixed'} | ({'inputs': 'fixed'} if packed else {}),
  )
  return made._replace(vocabulary=len(pieces))


OF = f'{__name__}:written'


def both(**given):
  given = {'of': OF, 'teacher_kw': dict(tokens='pairs'), **given}
  return sources.load('two_tokenizers', **given)


def fetched(source):
  whole = [x.fetch(np.arange(len(x))) for x in source.splits.values()]
  return jax.tree.map(lambda *x: np.concatenate(x), *whole)


def text_before(tokens, position, pieces):
  return ''.join(pieces[t] for t in tokens[1 : position + 1])


def test_pairs_are_where_both_have_read_the_same_text():
  batch = fetched(both())
  teacher = batch['inputs']['teacher']
  for row, paired in enumerate(batch['paired']):
    seen = 0
    for position in np.flatnonzero(batch['valid'][row]):
      mine = text_before(
        batch['inputs']['student'][row], position, VOCABULARIES['letters']
      )
      at = teacher['place'][row, position]
      other = text_before(teacher['tokens'][row], at, VOCABULARIES['pairs'])
      seen += mine == other
      assert paired[position] == (
        len(mine) % 2 == 0 or batch['labels'][row, position] == EOS
      )
      assert not paired[position] or mine == other
    assert seen >= paired.sum() >= 2
  assert not (batch['paired'] & ~batch['valid']).any()


def test_pairs_by_length_are_the_first_labels_that_count():
  batch = fetched(both(align='length', kw=dict(prompt=2)))
  teacher = fetched(sources.load(OF, tokens='pairs', prompt=2))
  for row, paired in enumerate(batch['paired']):
    places = batch['inputs']['teacher']['place'][row][paired]
    there = np.flatnonzero(teacher['valid'][row])
    counts = batch['valid'][row].sum()
    np.testing.assert_array_equal(places, there[:counts])
    assert paired.sum() == min(counts, len(there))


def test_labels_without_bytes_meet_in_their_order():
  side = dict(valid=np.ones((1, 4), bool), bytes=np.array([[2, 0, 0, 1]]))
  other = dict(valid=np.ones((1, 3), bool), bytes=np.array([[2, 0, 1]]))
  place, paired = alignment.places(side, other, 'bytes')
  np.testing.assert_array_equal(paired, [[True, True, True, False]])
  np.testing.assert_array_equal(place[paired], [0, 1, 2])


def test_the_notes_count_pairs():
  source = both()
  note = next(n for n in source.notes if 'labels of test' in n)
  count, of = (int(n) for n in re.findall(r'\d+', note)[:2])
  test = source.splits['test'].fetch(np.arange(len(source.splits['test'])))
  assert (count, of) == (test['paired'].sum(), test['valid'].sum())
  assert source.num_classes == 6
  assert source.vocabulary == 10


def test_outputs_are_looked_up():
  def apply(variables, inputs, *, key=None, train=False):
    x = jnp.stack([inputs, 10 * inputs], -1)
    return {'logits': x, 'length': x.sum((1, 2))}, {}

  net = placed.looked_up(Net(lambda key: {}, apply))
  tokens, place = np.array([[5, 6, 7]]), np.array([[2, 0, 0, 1]])
  outputs, _ = net.apply({}, {'tokens': tokens, 'place': place})
  np.testing.assert_array_equal(outputs['logits'][0, :, 1], [70, 50, 50, 60])
  assert outputs['length'].shape == (1,)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(align='words'), r"^data\.kw\.align: 'words' should be one of bytes"),
    (dict(teacher_kw={}), r'^data\.kw\.teacher_kw: it is empty'),
    (dict(kw=dict(packed=True)), r'^data\.source: .* rows of one text each'),
  ],
)
def test_what_does_not_fit_is_refused(given, message):
  with pytest.raises(UserError, match=message):
    both(**given)


def test_other_texts_are_refused():
  train = sources.load(OF).splits['train']
  with pytest.raises(UserError, match=r'^data\.source: train has \d+ rows'):
    alignment.joined('train', train, sources.load(OF).splits['test'], 'bytes')
  other = fetched(sources.load(OF))
  whole = ArrayExamples(**other)
  changed = ArrayExamples(**{**other, 'bytes': 2 * other['bytes']})
  with pytest.raises(UserError, match=r'row 0 of x has \d+ bytes .* and \d+'):
    alignment.joined('x', whole, changed, 'bytes')


NET = dict(model='lstm_language', kw=dict(width=4))
TRAIN = dict(steps=2, batch_size=4, seeds=1, members='vmap')


def config(teacher, **soft):
  shown = lambda part: dict(train=f'part("{part}")', eval=f'part("{part}")')  # noqa: E731
  return dict(
    task='language',
    data=dict(
      source='two_tokenizers', kw=dict(of=OF, teacher_kw=dict(tokens='pairs'))
    ),
    teachers=dict(
      main={**NET, 'views': shown('teacher'), 'classes': 10, **teacher}
    ),
    students=dict(student={**NET, 'views': shown('student')}),
    distill=dict(
      labels=dict(loss='cross_entropy', mask='valid'),
      soft=dict(teacher='main', mask='paired', **soft),
    ),
    train=TRAIN,
    report=dict(metric='nll', compare=dict(better='student', than='student')),
  )


def test_a_student_learns_from_a_teacher_of_other_tokens(tmp_path):
  alone = dict(
    task='language',
    data=dict(source=OF, kw=dict(tokens='pairs')),
    students=dict(student=NET),
    distill=dict(labels=dict(loss='cross_entropy', mask='valid')),
    train=TRAIN,
    report=dict(metric='nll', compare=dict(better='student', than='student')),
  )
  jaxkd.run(alone, tmp_path / 'teacher')
  (net,) = (tmp_path / 'teacher').glob('nets/students/*/student')
  restored = dict(restore=str(net))
  row = jaxkd.run(
    config(restored, loss='universal_logit_distance'), tmp_path / 'student'
  )
  assert np.isfinite(row['metrics']['student']['bits_per_byte']).all()
  assert any('have a position of the teacher' in note for note in row['notes'])
  with pytest.raises(
    UserError, match=r'choose universal_logit_distance or let'
  ):
    jaxkd.run(config(restored, loss='kl'), tmp_path / 'kl')
  plain = config(restored, loss='universal_logit_distance')
  plain['data'] = alone['data'] | dict(kw=dict(tokens='letters'))
  plain['students']['student'] = NET
  plain['teachers']['main']['views'] = {}
  plain['distill']['soft']['mask'] = 'valid'
  with pytest.raises(UserError, match=r'^teachers\.main\.classes: it knows 10'):
    jaxkd.run(plain, tmp_path / 'plain')
