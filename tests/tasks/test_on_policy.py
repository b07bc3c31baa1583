"""On-policy distillation: rows that a student writes, and what they teach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxkd import distill
from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError
from jaxkd.models import decoder
from jaxkd.tasks.on_policy import on_policy

V, L, B = 10, 8, 4
LAST = 9  # after which the counting student has nothing to say but `EOS`


def counting(inputs, pad=PAD):
  """A student that is sure of the next number, and of the end after `LAST`."""
  if 'token' not in inputs:
    source = inputs['source']
    there = source != pad
    last = jnp.where(there, jnp.arange(source.shape[1])[None], 0).max(1)
    own = jnp.take_along_axis(source, last[:, None], axis=1)[:, 0]
    return {'state/own': own}
  now = inputs['state']['own']
  after = jnp.where(now == LAST, EOS, now + 1)
  return {'logits': 100 * jax.nn.one_hot(after, V), 'state/own': after}


def batch_of(tokens, valid, **others):
  """Rows [B, L + 1] as inputs and labels."""
  tokens = np.array(tokens, np.int32)
  return {
    'inputs': tokens[:, :-1],
    'labels': tokens[:, 1:],
    'valid': np.array(valid, bool),
    'id': np.arange(len(tokens), dtype=np.int32),
    'epoch': np.zeros(len(tokens), np.int32),
    'bytes': np.ones((len(tokens), tokens.shape[1] - 1), np.int32),
    **others,
  }


ROWS = batch_of(
  [
    [BOS, 6, 5, 5, 5, EOS, PAD, PAD, PAD],
    [BOS, 4, 4, 7, 7, 7, 7, 7, EOS],
    [BOS, 5, 8, EOS, PAD, PAD, PAD, PAD, PAD],
    [BOS, 4, 4, 4, 4, 4, 4, 4, EOS],
  ],
  [
    [0, 1, 1, 1, 1, 0, 0, 0],
    [0, 0, 0, 0, 1, 1, 1, 1],
    [0, 0, 1, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
  ],
)
# What the counting student makes of them, with five tokens at most.
WRITTEN = [
  [BOS, 6, 7, 8, 9, EOS, PAD, PAD, PAD],
  [BOS, 4, 4, 7, 7, 8, 9, EOS, PAD],
  [BOS, 5, 8, 9, EOS, PAD, PAD, PAD, PAD],
  [BOS, 4, 4, 4, 4, 4, 4, 4, EOS],  # nothing counts there
]
COUNTS = [
  [0, 1, 1, 1, 1, 0, 0, 0],
  [0, 0, 0, 0, 1, 1, 1, 0],
  [0, 0, 1, 1, 0, 0, 0, 0],
  [0, 0, 0, 0, 0, 0, 0, 0],
]


def rolled(batch=ROWS, student=counting, seed=0, **options):
  options = {'length': 5, **options}
  return on_policy(student, batch, jax.random.key(seed), **options)


def test_a_row_goes_on_where_its_prompt_ends():
  found = rolled()
  want = batch_of(WRITTEN, COUNTS)
  for name in ('inputs', 'labels', 'valid'):
    np.testing.assert_array_equal(found[name], want[name], err_msg=name)
  np.testing.assert_array_equal(found['written'], want['valid'])
  assert not found['given'][:3].any()
  logs = np.asarray(found['sampled_log_probs'])
  np.testing.assert_array_equal(np.isnan(logs), ~want['valid'])
  np.testing.assert_allclose(logs[want['valid']], 0, atol=1e-6)
  np.testing.assert_array_equal(found['measured']['written'], [1, 1, 1, 0])
  np.testing.assert_array_equal(found['measured']['tokens'], [4, 3, 2, 0])
  assert not found['measured']['unfinished'].any()
  assert 'bytes' not in found


def test_what_does_not_end_or_has_no_room_is_counted():
  found = rolled(length=3)
  np.testing.assert_array_equal(found['measured']['unfinished'], [1, 0, 0, 0])
  np.testing.assert_array_equal(
    found['labels'][0], [6, 7, 8, 9, PAD, PAD, PAD, PAD]
  )
  narrow = jax.tree.map(lambda x: x[:, :6] if x.ndim == 2 else x, ROWS)
  found = rolled(narrow)
  np.testing.assert_array_equal(found['measured']['unfinished'], [0, 1, 0, 0])
  np.testing.assert_array_equal(found['labels'][1], [4, 4, 7, 7, 8, 9])


def test_no_prompt_ends_with_what_fills_it_up():
  batch = batch_of([[4, EOS, 5, 5, 5, 5, 5, 5, 5]], [[0, 1, 1, 1, 1, 1, 1, 1]])
  found = rolled(
    batch, prompt=2, pad=EOS, student=functools.partial(counting, pad=EOS)
  )
  np.testing.assert_array_equal(
    found['labels'], [[EOS, 5, 6, 7, 8, 9, EOS, EOS]]
  )
  np.testing.assert_array_equal(found['valid'], [[0, 0, 1, 1, 1, 1, 1, 0]])


@pytest.mark.parametrize('told', [dict(prompt=3), dict(prompt_length=[3] * 4)])
def test_a_prompt_may_be_longer_than_what_does_not_count(told):
  batch = dict(ROWS)
  if 'prompt_length' in told:
    told['prompt_length'] = np.array(told['prompt_length'], np.int32)
    batch |= told | {'prompt': ROWS['inputs'][:, :5]}
    told = {}
  found = rolled(batch, **told)
  np.testing.assert_array_equal(
    found['labels'][0], [6, 5, 6, 7, 8, 9, EOS, PAD]
  )
  np.testing.assert_array_equal(found['written'][0], [0, 0, 1, 1, 1, 1, 1, 0])
  np.testing.assert_array_equal(found['labels'][1:], np.array(WRITTEN)[1:, 1:])


def test_packed_rows_and_hints_keep_what_comes_before():
  """A hint of segment 0, and a document before that of the prompt."""
  rows = [[7, 7, 6, 6, 7, 5, EOS, PAD, PAD], [5, 5, EOS, BOS, 8, 4, EOS, 4, 4]]
  batch = batch_of(rows, [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 0, 1]])
  segments = np.array([[0, 0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2, 2, 3]])
  positions = np.array([[0, 0, 0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 2, 3, 0]])
  batch['inputs'] = {
    'tokens': batch['inputs'],
    'segments': segments.astype(np.int32),
    'positions': positions.astype(np.int32),
  }
  asked = []

  def student(inputs):
    asked.append(inputs.get('source'))
    return counting(inputs)

  found = rolled(batch, student, length=2)
  source = np.asarray(asked[0])
  np.testing.assert_array_equal(source[0], [6, 6, 7, *[PAD] * 5])
  np.testing.assert_array_equal(source[1], [BOS, 8, *[PAD] * 6])
  np.testing.assert_array_equal(
    found['inputs']['tokens'],
    [[7, 7, 6, 6, 7, 8, 9, PAD], [5, 5, EOS, BOS, 8, 9, EOS, PAD]],
  )
  np.testing.assert_array_equal(
    found['inputs']['segments'],
    [[0, 0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2, 2, 0]],
  )
  np.testing.assert_array_equal(
    found['inputs']['positions'],
    [[0, 0, 0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 2, 3, 0]],
  )


def even(inputs):
  """A student to whom all tokens are alike."""
  found = counting(inputs)
  if 'logits' in found:
    found['logits'] = jnp.zeros_like(found['logits'])
  return found


def test_a_row_is_drawn_by_its_example_and_not_by_its_place():
  tokens = np.tile(ROWS['inputs'][1:2, :1], (32, L + 1))
  batch = batch_of(tokens, np.ones((32, L)))
  whole = rolled(batch, even, share=0.5)
  order = np.random.default_rng(0).permutation(32)[:20]
  part = rolled(jax.tree.map(lambda x: x[order], batch), even, share=0.5)
  for name in ('labels', 'written', 'sampled_log_probs'):
    np.testing.assert_array_equal(whole[name][order], part[name])
  chosen = np.asarray(whole['written']).any(1)
  assert 8 < chosen.sum() < 24
  np.testing.assert_array_equal(whole['given'], np.tile(~chosen, (L, 1)).T)
  np.testing.assert_array_equal(
    whole['labels'][~chosen], batch['labels'][~chosen]
  )
  assert len(np.unique(whole['labels'][chosen], axis=0)) == chosen.sum()
  other = rolled(batch, even, seed=1)
  assert (other['labels'] != rolled(batch, even)['labels']).any()


def test_a_batch_is_written_or_is_not():
  once = jax.jit(
    lambda key: on_policy(
      counting, ROWS, key, share=0.5, drawn='batch', length=5
    )['written'].any(1)
  )
  found = np.stack([once(jax.random.key(i)) for i in range(12)])
  assert {tuple(row) for row in found.tolist()} == {
    (False,) * 4,
    (True, True, True, False),
  }
  assert not rolled(share=0.0)['written'].any()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(share=1.5), r'^share: 1.5 should be from 0 to 1'),
    (dict(length=9), r'^length: 9 tokens after a prompt of 1 .* room for 8'),
    (dict(prompt=0), r'^prompt: 0 should be 1 token or more'),
    (dict(stop=70), r'^stop: 70 is no token of a vocabulary of 10'),
    (dict(top_k=11), r'^top_k: 11 should be from 1 to 10'),
    (dict(by='x'), r"^by: there is no student 'x'"),
    (dict(student={'a': counting}), r'^by: several nets train \(a\)'),
    (dict(batch={'inputs': ROWS['inputs']}), "no field of the batch 'labels'"),
    (
      dict(batch=ROWS | {'inputs': np.zeros((4, 8, 8, 1))}),
      r'inputs \[4, 8, 8, 1\].* should be rows of tokens',
    ),
    (
      dict(batch=ROWS | {'inputs': {'source': 0, 'prefix': 0}}),
      'inputs of source, prefix are no rows',
    ),
  ],
)
def test_what_cannot_be_is_refused(options, message):
  with pytest.raises(UserError, match=message):
    rolled(**options)


def test_logits_that_are_no_numbers_are_not_taken_for_text():
  def broken(inputs):
    found = counting(inputs)
    if 'logits' in found:
      found['logits'] = found['logits'].at[1].set(jnp.nan)
    return found

  tokens = rolled(student=broken)['measured']['tokens']
  np.testing.assert_array_equal(np.isnan(tokens), [False, True, False, False])


# With decoders, in a step.


def net(rngs):
  shape = jax.ShapeDtypeStruct((L,), jnp.int32)
  sizes = dict(width=8, depth=1, heads=2, mlp_width=8, init=0.5)
  return decoder.Model(num_classes=V, input_shape=shape, rngs=rngs, **sizes)


TEXT = batch_of(
  np.random.default_rng(0).integers(4, V, size=(B, L + 1)), np.ones((B, L))
)
del TEXT['bytes']
TERMS = {
  'jsd': distill.term('jensen_shannon', teacher='main', mask='valid', beta=0.1),
  'sampled': distill.term(
    'sampled_reverse_kl', teacher='main', mask='written', weight=0.5
  ),
  'labels': distill.term('cross_entropy', mask='given'),
}


def trained(terms=TERMS, **options):
  step = distill.step(
    distill.net(net, TEXT['inputs']),
    {'main': distill.net(net(nnx.Rngs(7)), TEXT['inputs'])},
    terms,
    optax.sgd(0.5),
    rollout=functools.partial(on_policy, length=4, share=0.7),
    example=TEXT,
    **options,
  )
  state = step.init()
  state, first = step(state, TEXT)
  state, second = step(state, TEXT)
  return state, dict(first), dict(second)


def close(found, want):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    *(jax.tree.map(np.asarray, tree['train']) for tree in (found, want)),
  )


@pytest.fixture(scope='module')
def alone():
  return trained()


def test_a_step_says_what_was_written(alone):
  _, found, _ = alone
  assert 0 < found['rollout/written'] <= 1
  assert 0 <= found['rollout/unfinished'] <= found['rollout/written']
  assert 0 < found['rollout/tokens'] <= 4
  assert all(np.isfinite(x) for x in found.values())
  assert found['loss/sampled'] and found['loss/labels'] and found['loss/jsd']


def test_a_term_less_moves_no_draw(alone):
  """Arms that differ in their terms begin with the same texts."""
  _, first, _ = trained({'jsd': TERMS['jsd']})
  for name in ('written', 'tokens', 'unfinished'):
    assert first[f'rollout/{name}'] == alone[1][f'rollout/{name}']
  assert first['loss/jsd'] == pytest.approx(alone[1]['loss/jsd'], rel=1e-5)


def test_parts_of_a_batch_make_the_same_step(alone):
  state, _, found = trained(accumulate=2)
  close(state, alone[0])
  for name, value in alone[2].items():
    assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.all_devices
def test_two_devices_make_the_same_step(alone):
  close(trained(mesh=distill.mesh(1, B, member=1, data=2))[0], alone[0])


def test_members_write_as_each_alone(alone):
  state, found, _ = trained(members=2)
  close(jax.tree.map(lambda x: x[:1], state), alone[0])
  apart, *_ = trained(members=2, mode='sequence')
  close(state, jax.tree.map(lambda *x: jnp.stack(x), *apart))
  assert found['loss'][0] != found['loss'][1]
