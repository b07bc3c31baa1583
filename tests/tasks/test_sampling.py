"""Sampling, by a model small enough to know what it should draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError
from jaxkd.keys import fold
from jaxkd.tasks import sampling

V, LENGTH = 9, 6
random = np.random.default_rng(0)
NEXT = jnp.asarray(random.normal(size=(V, V)), jnp.float32)
EVER = jnp.asarray(random.normal(size=(V, V)), jnp.float32)
PROMPTS = jnp.array(
  [[BOS, 4, 5, 6], [BOS, 7, PAD, PAD], [BOS, 8, 8, PAD], [5, PAD, PAD, PAD]],
  jnp.int32,
)


def logits_after(last, bag):
  """Of the token that follows: by the last, and by the bag of those before."""
  return NEXT[last] + bag / jnp.maximum(jnp.abs(bag).sum(-1, keepdims=True), 1)


def writer(inputs):
  """A model whose cache is the bag of the tokens before the last."""
  if 'token' not in inputs:
    source = inputs['source']
    there = source != PAD
    last = jnp.maximum(there.sum(1) - 1, 0)
    before = jnp.arange(source.shape[1])[None] < last[:, None]
    bag = jnp.where(before[..., None], EVER[source], 0).sum(1)
    own = jnp.take_along_axis(source, last[:, None], axis=1)[:, 0]
    fresh = there.any(1)
    return {'state/bag': bag, 'state/own': own, 'state/fresh': fresh}
  state = inputs['state']
  token = jnp.where(state['fresh'], state['own'], inputs['token'])
  return {
    'logits': logits_after(token, state['bag']),
    'state/bag': state['bag'] + EVER[token],
    'state/fresh': jnp.zeros_like(state['fresh']),
  }


def keys_of(ids, seed=0):
  return jax.vmap(lambda i: fold(jax.random.key(seed), i))(jnp.asarray(ids))


def without_cache(prompt, key, choose, **options):
  """Plain sampling of one sequence: all that came before, at each step."""
  tokens = [int(t) for t in prompt if t != PAD]
  drawn, logs = [], []
  for step in range(LENGTH):
    bag = EVER[jnp.array(tokens[:-1], int)].sum(0)
    logits = np.array(logits_after(jnp.array(tokens[-1]), bag), float)
    p = choose(logits, **options)
    with np.errstate(divide='ignore'):
      given = jnp.asarray(np.log(p), jnp.float32)
    token = int(jax.random.categorical(jax.random.fold_in(key, step), given))
    tokens.append(token)
    drawn.append(token)
    logs.append(np.log(p[token]))
    if token == EOS:
      break
  return drawn, logs


def chosen(logits, temperature=1.0, top_k=V, top_p=1.0):
  """The probabilities of the tokens that may be drawn, one by one."""
  logits[[PAD, BOS]] = -np.inf
  if temperature == 0:
    return np.eye(V)[logits.argmax()]
  order = np.argsort(-logits)[:top_k]
  p = np.exp(logits[order] / temperature)
  p /= p.sum()
  kept = order[: int((np.cumsum(p) - p < top_p).sum())]
  found = np.zeros(V)
  found[kept] = np.exp(logits[kept] / temperature)
  return found / found.sum()


@functools.partial(jax.jit, static_argnames=('temperature', 'top_k', 'top_p'))
def drawn(prompts, keys, **options):
  return sampling.sample(writer, prompts, keys, LENGTH, **options)


@pytest.mark.parametrize(
  'options',
  [
    {},
    dict(temperature=0.5),
    dict(temperature=0.0),
    dict(top_k=3),
    dict(top_p=0.7),
    dict(top_k=4, top_p=0.6, temperature=1.5),
  ],
)
def test_a_cache_draws_what_plain_sampling_draws(options):
  keys = keys_of(range(4))
  found = drawn(PROMPTS, keys, **options)
  for row in range(4):
    tokens, logs = without_cache(PROMPTS[row], keys[row], chosen, **options)
    n = len(tokens)
    np.testing.assert_array_equal(
      found.tokens[row], tokens + [PAD] * (LENGTH - n)
    )
    np.testing.assert_array_equal(found.valid[row], np.arange(LENGTH) < n)
    np.testing.assert_allclose(found.log_probs[row, :n], logs, atol=1e-5)
    assert not found.log_probs[row, n:].any()
    assert found.stopped[row] == (tokens[-1] == EOS)


def test_a_draw_depends_on_its_own_key_and_prompt_alone():
  ids = jnp.array([3, 1, 0, 2])
  whole = drawn(PROMPTS, keys_of(range(4)))
  other = drawn(PROMPTS[ids], keys_of(ids))
  wide = jnp.pad(PROMPTS[:1], ((0, 0), (0, 2)))
  alone = drawn(wide, keys_of([0]))
  for name in sampling.Sampled._fields:
    a, b, c = (getattr(x, name) for x in (whole, other, alone))
    np.testing.assert_allclose(a[ids], b, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(a[:1], c, rtol=1e-6, atol=1e-7)


def test_members_draw_as_each_alone():
  seeds = jnp.arange(3, dtype=jnp.uint32)
  both = jax.vmap(lambda s: drawn(PROMPTS, keys_of(range(4), s)).tokens)(seeds)
  for i in range(3):
    np.testing.assert_array_equal(
      both[i], drawn(PROMPTS, keys_of(range(4), i)).tokens
    )
  assert (both[0] != both[1]).any()


def test_tokens_come_as_often_as_they_are_probable():
  """Chi-square of all pairs of two tokens after a prompt, with a fixed seed."""
  count = 4000
  prompts = jnp.tile(PROMPTS[:1], (count, 1))
  found = jax.jit(
    lambda keys: sampling.sample(writer, prompts, keys, 2, stop=())
  )(keys_of(range(count)))
  after = lambda last, bag: np.exp(  # noqa: E731
    sampling.log_distribution(logits_after(last, bag), never=(PAD, BOS))
  )
  bag = EVER[PROMPTS[0, :3]].sum(0)
  first = after(PROMPTS[0, 3], bag)
  own = bag + EVER[PROMPTS[0, 3]]
  p = np.stack([first[t] * after(jnp.array(t), own) for t in range(V)])
  pairs = np.zeros((V, V))
  np.add.at(pairs, tuple(np.asarray(found.tokens).T), 1)
  assert not pairs[p == 0].any()
  some = p > 0
  chi2 = ((pairs - count * p)[some] ** 2 / (count * p[some])).sum()
  degrees = some.sum() - 1
  assert abs(chi2 - degrees) < 4 * np.sqrt(2 * degrees)
  assert not found.stopped.any()


def test_several_tokens_stop_and_padding_may_be_one_of_them():
  options = dict(stop=(EOS, 4, PAD), never=(PAD, BOS))
  prompts = jnp.tile(PROMPTS, (16, 1))
  found = sampling.sample(writer, prompts, keys_of(range(64)), 3, **options)
  ends = np.isin(found.tokens, (EOS, 4, PAD)) & np.asarray(found.valid)
  np.testing.assert_array_equal(ends.any(1), found.stopped)
  last = np.asarray(found.valid).sum(1) - 1
  assert (ends.argmax(1) == last)[np.asarray(found.stopped)].all()
  assert (found.tokens == PAD)[np.asarray(found.valid)].any()
  assert found.stopped.any() and not found.stopped.all()


@pytest.mark.parametrize(
  'options', [{}, dict(temperature=0.0), dict(top_k=2), dict(top_p=0.9)]
)
def test_what_is_not_a_number_stays_none(options):
  logits = jnp.array([[0.0, jnp.nan, 1.0], [0.0, 2.0, 1.0]])
  found = sampling.log_distribution(logits, **options)
  assert np.isnan(found[0]).any()
  np.testing.assert_allclose(np.exp(found[1]).sum(), 1, rtol=1e-6)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(temperature=-1.0), r'^temperature: -1.0 should be above 0'),
    (dict(temperature=float('nan')), r'^temperature: nan should be above 0'),
    (dict(top_p=0.0), r'^top_p: 0.0 should be a share'),
    (dict(top_k=10), r'^top_k: 10 should be from 1 to 9'),
    (dict(stop=(EOS, 9)), r'^stop: 9 is no token of a vocabulary of 9'),
    (dict(pad=-1), r'^pad: -1 is no token'),
    (dict(length=0), r'^length: 0 should be 1 token or more'),
  ],
)
def test_options_that_are_out_of_range_are_refused(options, message):
  options = {'length': LENGTH, **options}
  with pytest.raises(UserError, match=message):
    sampling.sample(writer, PROMPTS, keys_of(range(4)), **options)


def test_a_model_that_cannot_write_is_refused():
  for net in (lambda inputs: {}, lambda inputs: inputs + 1):
    with pytest.raises(UserError, match='cannot go on from a text'):
      sampling.sample(net, PROMPTS, keys_of(range(4)), LENGTH)
