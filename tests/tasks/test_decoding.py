"""Searches for translations, and how good these are."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu
from scipy import special

from jaxkd import models
from jaxkd.data.tokens import BOS, EOS, PAD, UNK, shifted
from jaxkd.errors import UserError
from jaxkd.tasks import decoding

LENGTH = 3
SHAPE = {
  'source': jax.ShapeDtypeStruct((3,), jnp.int32),
  'prefix': jax.ShapeDtypeStruct((LENGTH,), jnp.int32),
}
SOURCE = np.array([[4, 5, 4], [5, 3, 0]], np.int32)
SMALL = {
  'seq2seq': {'width': 4, 'init': 1.5},
  'transformer_seq2seq': {'width': 4, 'depth': 1, 'heads': 1},
}
FAMILIES = pytest.mark.parametrize('family', SMALL)

# A chain of tokens: logits of the next for each step and last token.
random = np.random.default_rng(1)
STEPS, KINDS = 6, 7
CHAIN = 2 * random.normal(size=(STEPS, KINDS, KINDS)).astype(np.float32)
STARTS = np.arange(8, dtype=np.int32)[:, None]


def chain(inputs, table=CHAIN):
  """A net of which the source shifts what comes."""
  if 'source' in inputs:
    source = inputs['source'][:, 0]
    return {'state/source': source, 'state/step': jnp.zeros_like(source)}
  state = inputs['state']
  logits = jnp.asarray(table)[state['step'], inputs['token']]
  logits = jax.vmap(jnp.roll)(logits, state['source'])
  return {'logits': logits, 'state/step': state['step'] + 1}


def searched(source, width, penalty):
  """A beam search of the chain, in Python."""

  def rank(found):
    return found[1] / max(len(found[0]), 1) ** penalty

  beams = [((), 0.0)]
  for step in range(STEPS):
    candidates = []
    for tokens, total in beams:
      if tokens[-1:] == (EOS,):
        candidates.append((tokens, total))
        continue
      logits = CHAIN[step, tokens[-1] if tokens else BOS].astype(np.float64)
      log_p = special.log_softmax(np.roll(logits, source))
      candidates += [
        ((*tokens, token), total + log_p[token])
        for token in range(KINDS)
        if token not in (PAD, BOS)
      ]
    beams = sorted(candidates, key=rank, reverse=True)[:width]
  return [(tokens, rank((tokens, total))) for tokens, total in beams]


def filled(tokens, length):
  return [*tokens, *[PAD] * (length - len(tokens))]


@pytest.fixture(scope='module')
def bound():
  """A net of each family with its variables."""
  found = {}
  for family, options in SMALL.items():
    net = models.build(family, num_classes=6, input_shape=SHAPE, **options)
    variables = jax.jit(net.init)(jax.random.key(3))
    if family != 'seq2seq':  # likelier words than those of a first draw
      variables = jax.tree.map(lambda x: 2 * x, variables)
    found[family] = lambda x, net=net, v=variables: net.apply(v, x)[0]
  return found


@FAMILIES
@pytest.mark.parametrize('penalty', [0.0, 0.8])
def test_a_wide_beam_finds_all_translations(bound, family, penalty):
  apply = bound[family]
  words = (UNK, 4, 5)
  every = [
    filled((*said, *end), LENGTH)
    for number in range(LENGTH)
    for said in itertools.product(words, repeat=number)
    for end in ((EOS,), *([(w,) for w in words] if number == 2 else []))
  ]
  assert len(every) == len(set(map(tuple, every))) == 40
  every = np.array(every, np.int32)

  @jax.jit
  def teacher_forced(source):
    source = jnp.broadcast_to(source[None], (40, 3))
    outputs = apply({'source': source, 'prefix': shifted(jnp.asarray(every))})
    given = decoding.log_likelihood(apply, source, jnp.asarray(every))
    return outputs['logits'], given

  search = jax.jit(
    functools.partial(
      decoding.beam, apply, length=LENGTH, width=43, penalty=penalty
    )
  )
  tokens, scores = search(SOURCE)
  assert tokens.dtype == jnp.int32 and scores.dtype == jnp.float32
  for i, source in enumerate(SOURCE):
    logits, given = teacher_forced(source)
    log_p = special.log_softmax(np.float64(logits), axis=-1)
    log_p = np.take_along_axis(log_p, every[..., None], -1)[..., 0]
    total = np.where(every == PAD, 0, log_p).sum(-1)
    np.testing.assert_allclose(given, total, rtol=1e-4)
    want = total / (every != PAD).sum(-1) ** penalty
    order = np.argsort(-want)
    np.testing.assert_allclose(scores[i, :40], want[order], rtol=1e-4)
    assert np.isneginf(scores[i, 40:]).all()
    by_tokens = dict(zip(map(tuple, every.tolist()), want, strict=True))
    found = [by_tokens[tuple(row)] for row in tokens[i, :40].tolist()]
    np.testing.assert_allclose(found, want[order], rtol=1e-4)
    assert len({tuple(row) for row in tokens[i, :40].tolist()}) == 40


@pytest.mark.parametrize('penalty', [0.0, 0.7])
@pytest.mark.parametrize('width', [1, 2, 4])
def test_a_narrow_beam_keeps_the_best(width, penalty):
  tokens, scores = jax.jit(
    functools.partial(
      decoding.beam, chain, length=STEPS, width=width, penalty=penalty
    )
  )(STARTS)
  for i in range(len(STARTS)):
    want = searched(i, width, penalty)
    assert tokens[i].tolist() == [filled(t, STEPS) for t, _ in want]
    np.testing.assert_allclose(scores[i], [s for _, s in want], rtol=1e-4)


def test_a_beam_finds_what_is_not_first_at_once():
  one, _ = jax.jit(functools.partial(decoding.greedy, chain, length=STEPS))(
    STARTS
  )
  narrow = [searched(i, 1, 0.0)[0] for i in range(8)]
  wide = [searched(i, 4, 0.0)[0] for i in range(8)]
  assert one.tolist() == [filled(t, STEPS) for t, _ in narrow]
  assert any(a[1] < b[1] for a, b in zip(narrow, wide, strict=True))


@FAMILIES
def test_greedy_takes_the_likeliest_token_after_its_own(bound, family):
  apply = bound[family]
  tokens, scores = jax.jit(
    functools.partial(decoding.greedy, apply, length=LENGTH)
  )(SOURCE)
  assert tokens.shape == (2, LENGTH)
  forward = jax.jit(lambda x: apply(x)['logits'])
  said = np.full((2, LENGTH), PAD, np.int32)
  ended = np.zeros(2, bool)
  for i in range(LENGTH):
    logits = np.array(forward({'source': SOURCE, 'prefix': shifted(said)}))
    logits[..., [PAD, BOS]] = -np.inf
    said[:, i] = np.where(ended, PAD, logits[:, i].argmax(-1))
    ended |= said[:, i] == EOS
  np.testing.assert_array_equal(tokens, said)
  likelihood = jax.jit(functools.partial(decoding.log_likelihood, apply))
  np.testing.assert_allclose(scores, likelihood(SOURCE, said), rtol=1e-4)


def test_members_search_side_by_side():
  tables = jnp.stack([CHAIN, CHAIN[::-1]])

  def search(table):
    apply = functools.partial(chain, table=table)
    return decoding.beam(apply, STARTS, STEPS, 2)

  found = jax.jit(jax.vmap(search))(tables)
  for i in range(2):
    want = jax.jit(search)(tables[i])
    np.testing.assert_array_equal(found[0][i], want[0])
    np.testing.assert_allclose(found[1][i], want[1], rtol=1e-5)


def test_a_search_ends_with_its_last_translation():
  calls = []
  table = np.full_like(CHAIN, -100.0)
  table[..., 4] = 0
  table[2:, :, EOS] = 100  # the third token is the last

  def counted(inputs):
    if 'token' in inputs:
      jax.debug.callback(lambda: calls.append(1))
    return chain(inputs, table)

  found, _ = decoding.greedy(counted, STARTS[:1] * 0, 50)
  jax.effects_barrier()
  assert found[0, :4].tolist() == [4, 4, EOS, PAD]
  assert len(calls) == 3


@FAMILIES
def test_half_precision_goes_through_the_loop(family):
  net = models.build(
    family, num_classes=6, input_shape=SHAPE, dtype='bfloat16', **SMALL[family]
  )

  def search(variables):
    apply = lambda inputs: net.apply(variables, inputs)[0]  # noqa: E731
    return decoding.beam(apply, SOURCE, LENGTH, 2)

  variables = jax.eval_shape(net.init, jax.random.key(0))
  tokens, scores = jax.eval_shape(search, variables)
  assert (tokens.shape, scores.shape) == ((2, 2, 3), (2, 2))


def test_sizes_of_a_search():
  with pytest.raises(UserError, match='length=0 should be 1 or more'):
    decoding.greedy(chain, STARTS, 0)
  with pytest.raises(UserError, match='width=0 should be 1 or more'):
    decoding.beam(chain, STARTS, 3, 0)


def test_bleu_is_that_of_sacrebleu():
  pairs = []
  for _ in range(60):
    sides = []
    for most in (9, 11):
      words = random.integers(4, 8, random.integers(0, most - 1)).tolist()
      sides.append(words)
    if random.random() < 0.5:  # parts of the reference
      sides[0] = sides[1][: random.integers(0, 8)]
    pairs.append(sides)
  pairs[0][0] = pairs[0][1] = [4, 5, 4, 5, 4]  # the same
  said, wanted = (
    jnp.array([filled((*pair[i], EOS), most) for pair in pairs])
    for i, most in enumerate((10, 12))
  )
  found = jax.jit(decoding.sentence_bleu)(
    said.reshape(3, 20, -1), wanted.reshape(3, 20, -1)
  )
  assert found.shape == (3, 20)
  want = [
    sacrebleu.sentence_bleu(
      ' '.join(map(str, hypothesis)),
      [' '.join(map(str, reference))],
      smooth_method='add-k',
      smooth_value=1,
      tokenize='none',
    ).score
    for hypothesis, reference in pairs
  ]
  assert 10 < np.median(want) < 90
  np.testing.assert_allclose(100 * found.ravel(), want, rtol=1e-4, atol=1e-4)
  assert found[0, 0] == pytest.approx(1)


def test_bleu_of_other_numbers_of_sentences_is_refused():
  with pytest.raises(ValueError, match='reference must be'):
    decoding.sentence_bleu(jnp.ones((4, 3), int), jnp.ones((5, 3), int))
