"""What a contrastive term remembers, against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.distill import memory
from jaxkd.distill.location import sides
from jaxkd.distill.transfer import conditional
from jaxkd.errors import UserError
from jaxkd.run import config, terms
from jaxkd.types import Term

SIZE, NEGATIVES, MOMENTUM, TEMPERATURE = 12, 3, 0.25, 0.5
IDS = np.array([3, 0, 7, 5, 1, 9], np.int32)
EMBED = dict(
  adapter='embed', teacher_adapter='embed', teacher_adapter_kw=dict(width=4)
)


@pytest.fixture
def one(context):
  """Logits of the student [6, 3] and maps of one teacher."""
  main = jax.tree.map(lambda x: x[:1], context.teachers['main'])
  return context._replace(
    teachers={'main': main}, batch={**context.batch, 'rank': IDS}
  )


def contrast(location=('logits', 'map'), teachers=('main',), **changes):
  given = dict(
    negatives=NEGATIVES,
    momentum=MOMENTUM,
    num_data=SIZE,
    temperature=TEMPERATURE,
    entry='distill.c',
  )
  both = sides(location, teachers, **EMBED, entry='distill.c')
  return memory.memory(sides=both, **given | changes)


def start(term, context):
  shapes = jax.eval_shape(lambda: context)
  return term.init(jax.random.key(0), shapes)


def embeddings(params, context, np=np):
  """Of the student and the teacher, each of length 1."""
  layers = {
    'adapter': context.student['logits'],
    'teacher_adapter': context.teachers['main']['map'][0],
  }
  found = []
  for name, x in layers.items():
    part = {key: np.asarray(value) for key, value in params[name].items()}
    y = np.asarray(x).reshape(6, -1) @ part['kernel'] + part['bias'][None]
    found.append(y / np.linalg.norm(y, axis=1, keepdims=True))
  return found


def cosines(anchor, positive, negatives, np=np):
  others = np.concatenate([positive[:, None], negatives], axis=1)
  others /= np.linalg.norm(others, axis=-1, keepdims=True)
  return (anchor[:, None] * others).sum(-1)


def normalizer(*three):
  return SIZE * np.exp(cosines(*three) / TEMPERATURE).mean()


def direction(*three, z, np=np):
  """The loss as its paper writes it."""
  h = np.exp(cosines(*three, np=np) / TEMPERATURE) / z
  c = NEGATIVES / SIZE
  right = -np.log(h[:, 0] / (h[:, 0] + c))
  return right - np.log(c / (h[:, 1:] + c)).sum(1)


def drawn(context, rows=SIZE):
  """The examples that the key draws from all, or from those given."""
  rows = np.arange(rows) if isinstance(rows, int) else np.sort(rows)
  shape = (6, NEGATIVES)
  return rows[jax.random.randint(context.key, shape, 0, len(rows))]


def test_a_memory_starts_between_known_bounds_on_each_side(one):
  params, state = start(contrast(), one)
  assert params['adapter']['kernel'].shape == (3, 4)
  assert params['teacher_adapter']['kernel'].shape == (80, 4)
  kept = state['memory']
  for side in ('student', 'teacher'):
    assert kept[side].shape == (SIZE, 4)
    assert 0.5 < np.abs(kept[side]).max() <= np.sqrt(3 / 4)
    assert float(state['normalizer'][side]) == 0
  assert np.abs(kept['student'] - kept['teacher']).min() > 0


def test_the_value_is_the_contrast_in_both_directions(one):
  term = contrast()
  params, state = start(term, one)
  got, after = jax.jit(term.loss)(params, state, one)
  student, teacher = embeddings(params, one)
  rows = jax.tree.map(lambda x: np.asarray(x)[drawn(one)], state['memory'])
  three = {
    'student': (student, teacher, rows['teacher']),
    'teacher': (teacher, student, rows['student']),
  }
  want = 0
  for side, values in three.items():
    z = normalizer(*values)
    np.testing.assert_allclose(after['normalizer'][side], z, rtol=1e-5)
    want = want + direction(*values, z=z)
  np.testing.assert_allclose(got, want, rtol=1e-4)
  theirs = sum(
    losses.contrastive(
      *values, normalizer=normalizer(*values), num_data=SIZE,
      temperature=TEMPERATURE,
    )
    for values in three.values()
  )  # fmt: skip
  np.testing.assert_allclose(got, theirs, rtol=1e-4)


def test_the_first_batch_alone_sets_the_normaliser(one):
  term = contrast()
  params, state = start(term, one)
  _, first = term.loss(params, state, one)
  later = one._replace(key=jax.random.key(77), student=jax.tree.map(
    lambda x: x[::-1], one.student))  # fmt: skip
  got, second = term.loss(params, first, later)
  assert second['normalizer'] == first['normalizer']
  _, other = term.loss(params, state, later)
  assert other['normalizer'] != first['normalizer']
  # By now the first batch's are known, and the others nothing but noise.
  known = drawn(later, IDS)
  rows = jax.tree.map(lambda x: np.asarray(x)[known], first['memory'])
  student, teacher = embeddings(params, later)
  z = first['normalizer']
  want = direction(student, teacher, rows['teacher'], z=z['student'])
  want += direction(teacher, student, rows['student'], z=z['teacher'])
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_negatives_are_examples_that_were_seen(one):
  """Of the others the memory may hold anything."""
  term = contrast(negatives=40)
  params, state = start(term, one)
  _, first = term.loss(params, state, one)
  np.testing.assert_array_equal(np.flatnonzero(first['seen']), np.sort(IDS))
  others = np.setdiff1d(np.arange(SIZE), IDS)

  def value(rows):
    memory = {k: x.at[rows].set(-x[rows]) for k, x in first['memory'].items()}
    given = {**first, 'memory': memory}
    return term.loss(params, given, one)[0]

  known = term.loss(params, first, one)[0]
  np.testing.assert_array_equal(value(others), known)
  for id in IDS:
    assert np.abs(value(np.array([id])) - known).max() > 1e-3
  half = one._replace(batch={**one.batch, 'rank': (IDS + 1) % SIZE})
  _, second = term.loss(params, first, half)
  assert set(np.flatnonzero(second['seen'])) == {*IDS, *(IDS + 1) % SIZE}


def test_only_the_batchs_rows_move_and_keep_length_one(one):
  term = contrast()
  params, state = start(term, one)
  _, after = term.loss(params, state, one)
  now = dict(zip(('student', 'teacher'), embeddings(params, one), strict=True))
  for side, kept in after['memory'].items():
    before = np.asarray(state['memory'][side])
    others = np.setdiff1d(np.arange(SIZE), IDS)
    np.testing.assert_array_equal(kept[others], before[others])
    mixed = MOMENTUM * before[IDS] + (1 - MOMENTUM) * now[side]
    want = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    np.testing.assert_allclose(kept[IDS], want, rtol=1e-4, atol=1e-6)


def test_of_an_example_that_comes_twice_the_last_is_kept(one):
  term = contrast()
  twice = np.array([3, 0, 3, 5, 0, 3], np.int32)
  one = one._replace(batch={**one.batch, 'rank': twice})
  params, state = start(term, one)
  _, after = jax.jit(term.loss)(params, state, one)
  now = dict(zip(('student', 'teacher'), embeddings(params, one), strict=True))
  for side, kept in after['memory'].items():
    want = np.array(state['memory'][side])
    for row, new in zip(twice, now[side], strict=True):
      mixed = MOMENTUM * np.asarray(state['memory'][side])[row]
      mixed = mixed + (1 - MOMENTUM) * new
      want[row] = mixed / np.linalg.norm(mixed)
    np.testing.assert_allclose(kept, want, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(np.flatnonzero(after['seen']), [0, 3, 5])


def test_the_same_key_draws_the_same_negatives(one):
  term = contrast()
  params, state = start(term, one)
  run = jax.jit(term.loss)
  first, kept = run(params, state, one)
  again, same = run(params, state, one)
  np.testing.assert_array_equal(first, again)
  jax.tree.map(np.testing.assert_array_equal, kept, same)
  other, _ = run(params, state, one._replace(key=jax.random.key(5)))
  assert np.abs(first - other).min() > 0


def test_the_gradient_reaches_both_embedders_and_stops_at_the_rest(one):
  """Z and the memory are constants: the gradient is that by hand."""
  term = contrast()
  params, state = start(term, one)
  rows = jax.tree.map(lambda x: x[drawn(one)], state['memory'])

  def by_hand(params, student, teacher):
    changed = one._replace(
      student={'logits': student}, teachers={'main': {'map': teacher}}
    )
    own, other = embeddings(params, changed, jnp)
    z = {
      'student': normalizer(*map(np.asarray, (*fixed, rows['teacher']))),
      'teacher': normalizer(*map(np.asarray, (*fixed[::-1], rows['student']))),
    }
    return (
      direction(own, other, rows['teacher'], z=z['student'], np=jnp)
      + direction(other, own, rows['student'], z=z['teacher'], np=jnp)
    ).mean()

  fixed = embeddings(params, one)
  layers = (one.student['logits'], one.teachers['main']['map'])
  want = jax.grad(by_hand, (0, 1))(params, *layers)

  def ours(params, student):
    changed = one._replace(student={**one.student, 'logits': student})
    return term.loss(params, state, changed)[0].mean()

  got = jax.grad(ours, (0, 1))(params, layers[0])
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6),
    got,
    want,
  )
  for leaf in jax.tree.leaves(got):
    assert np.abs(leaf).max() > 1e-4


@pytest.mark.parametrize(
  'changes',
  [dict(negatives=0), dict(momentum=1.0), dict(momentum=-0.1)],
)
def test_a_memory_that_makes_no_sense(changes):
  with pytest.raises(UserError, match=r'distill\.c\.kw: negatives should'):
    contrast(**changes)


def test_what_is_no_pair_of_embeddings_is_refused(context, one):
  """Without adapters, or with several teachers."""
  plain = memory.memory(
    sides=sides(('logits', 'map'), ('main',)),
    negatives=2,
    num_data=SIZE,
    entry='distill.c',
  )
  several = context._replace(batch=one.batch)
  two = one._replace(teachers=one.teachers | {'b': one.teachers['main']})
  for term, given in (
    (plain, one),
    (contrast(), several),
    (contrast(teachers=('main', 'b')), two),
  ):
    with pytest.raises(UserError, match='one embedding') as error:
      start(term, given)
    assert "distill.c.teacher_adapter='embed'" in str(error.value)
  with pytest.raises(UserError, match=r'kw: .*temperatur.*'):
    contrast(temperatur=1.0)


@pytest.mark.parametrize(
  ('entry', 'value'),
  [
    ('fuse_weights', 'confidence'),
    ('mask', 'tokens'),
    ('inputs', dict(anchor='batch.labels')),
  ],
)
def test_transfers_that_a_memory_has_no_place_for(entry, value):
  made = config.complete(
    dict(
      teachers=dict(main={}),
      students=dict(student={}),
      distill=dict(
        labels=dict(loss='cross_entropy'),
        c=dict(term='memory', teacher='main', **EMBED) | {entry: value},
      ),
    )
  )
  distill = config.plain(made)['distill']
  with pytest.raises(UserError, match=rf'^distill\.c\.{entry}: .*term memory'):
    terms.build(distill, ['student'], SIZE)


def test_a_condition_chooses_whose_contrast_counts(one):
  """The memory takes in every example all the same."""
  alone = contrast()
  zero = Term(
    lambda key, context: ({}, {}),
    lambda params, state, context: (jnp.zeros(6), state),
  )
  chosen = conditional(lambda context: context.batch['rank'] > 4, alone, zero)
  params, state = start(chosen, one)
  got, after = chosen.loss(params, state, one)
  want, kept = alone.loss(params['then'], state['then'], one)
  np.testing.assert_allclose(got, np.where(IDS > 4, want, 0), rtol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, after['then'], kept)
  assert after['then']['seen'].sum() == 6
