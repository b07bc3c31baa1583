"""Decoding, by a model small enough to look at all translations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from jaxkd.data.text.tokens import BOS, EOS, PAD, shifted
from jaxkd.errors import UserError
from jaxkd.tasks import decoding

KINDS, LENGTH = 7, 3
random = np.random.default_rng(0)
TABLE = jnp.asarray(2 * random.normal(size=(5, KINDS, KINDS)), jnp.float32)
SOURCE = jnp.array([[4, 5], [6, 1], [5, 5]], jnp.int32)


def bigrams(inputs):
  """What may follow a token depends on it, the source, and the time."""
  if 'token' in inputs:
    state = inputs['state']
    rows = TABLE[state['time'] % 5, inputs['token']]
    logits = rows + TABLE[0][state['source'].sum(-1) % KINDS]
    return {'logits': logits, 'state/time': state['time'] + 1}
  source = inputs['source']
  if 'prefix' not in inputs:
    time = jnp.zeros(len(source), jnp.int32)
    return {'state/source': source, 'state/time': time}
  time = jnp.arange(inputs['prefix'].shape[1]) % 5
  logits = TABLE[time[None], inputs['prefix']]
  return {'logits': logits + TABLE[0][source.sum(-1) % KINDS][:, None]}


def translations():
  """All that can be said in three tokens."""
  found, words = set(), [1, *range(4, KINDS)]
  for said in itertools.product([*words, EOS], repeat=LENGTH):
    end = said.index(EOS) + 1 if EOS in said else LENGTH
    found.add((*said[:end], *[PAD] * (LENGTH - end)))
  return jnp.array(sorted(found), jnp.int32)


def likelihoods(source):
  said = translations()
  sources = jnp.tile(source[None], (len(said), 1))
  return said, decoding.log_likelihood(bigrams, sources, said)


def test_a_wide_beam_finds_the_best_of_all():
  tokens, scores = jax.jit(
    lambda s: decoding.beam(bigrams, s, LENGTH, width=90)
  )(SOURCE)
  for row, source in enumerate(SOURCE):
    said, logs = likelihoods(source)
    order = np.argsort(-np.asarray(logs))[:10]
    np.testing.assert_array_equal(tokens[row, :10], said[order])
    np.testing.assert_allclose(scores[row, :10], logs[order], rtol=1e-5)


@pytest.mark.parametrize('width', [1, 3])
def test_scores_are_likelihoods_and_ends_are_ends(width):
  tokens, scores = decoding.beam(bigrams, SOURCE, LENGTH, width)
  assert tokens.shape == (3, width, LENGTH)
  assert (np.diff(scores, axis=1) <= 0).all()
  for i in range(width):
    want = decoding.log_likelihood(bigrams, SOURCE, tokens[:, i])
    np.testing.assert_allclose(scores[:, i], want, rtol=1e-5)
  assert not np.isin(tokens, [BOS]).any()
  ended = np.cumsum(np.asarray(tokens) == EOS, -1) > 0
  behind = np.roll(ended, 1, -1)
  behind[..., 0] = False
  np.testing.assert_array_equal(np.asarray(tokens) == PAD, behind)


@pytest.mark.parametrize('width', [0, -1])
def test_of_none_none_is_the_best(width):
  with pytest.raises(UserError, match=rf'^width: {width} hypotheses cannot be'):
    decoding.beam(lambda inputs: {}, jnp.zeros((1, 2)), 3, width)


def test_greedy_takes_the_likeliest_token_again_and_again():
  found, scores = decoding.greedy(bigrams, SOURCE, LENGTH)
  tokens = jnp.zeros((3, LENGTH), jnp.int32)
  for step in range(LENGTH):
    inputs = {'source': SOURCE, 'prefix': shifted(tokens)}
    logits = np.array(bigrams(inputs)['logits'][:, step])
    logits[:, [PAD, BOS]] = -np.inf
    over = (tokens == EOS).any(1)
    tokens = tokens.at[:, step].set(jnp.where(over, PAD, logits.argmax(1)))
  np.testing.assert_array_equal(found, tokens)
  want = decoding.log_likelihood(bigrams, SOURCE, tokens)
  np.testing.assert_allclose(scores, want, rtol=1e-5)


def test_members_decode_as_each_alone():
  def run(shift):
    def apply(inputs):
      outputs = bigrams(inputs)
      if 'logits' in outputs:
        more = shift * jnp.arange(KINDS, dtype=jnp.float32)
        outputs['logits'] += jnp.broadcast_to(more, outputs['logits'].shape)
      return outputs

    return decoding.beam(apply, SOURCE, LENGTH, 2)

  shifts = jnp.array([0.0, -0.7, 0.9])
  tokens, scores = jax.vmap(run)(shifts)
  for i, shift in enumerate(shifts):
    want = run(shift)
    np.testing.assert_array_equal(tokens[i], want[0])
    np.testing.assert_allclose(scores[i], want[1], rtol=1e-5)


def test_a_penalty_is_for_length_alone():
  plain, logs = decoding.beam(bigrams, SOURCE, LENGTH, 90)
  tokens, scores = decoding.beam(bigrams, SOURCE, LENGTH, 90, penalty=1.0)
  for row in range(3):
    mean = logs[row] / (plain[row] != PAD).sum(-1)
    order = np.argsort(-np.asarray(mean), kind='stable')
    np.testing.assert_array_equal(tokens[row, 0], plain[row, order[0]])
    np.testing.assert_allclose(scores[row], mean[order], rtol=1e-5)


@pytest.mark.parametrize('lengths', [(9, 7), (5, 9), (8, 8), (3, 6), (1, 4)])
def test_bleu_of_sentences_is_sacrebleus(lengths):
  sentences = [random.integers(4, 8, size=n) for n in lengths]
  words = [' '.join(f'w{x}' for x in one) for one in sentences]
  want = sacrebleu.sentence_bleu(
    words[0],
    words[1:],
    smooth_method='add-k',
    smooth_value=1,
    tokenize='none',
  ).score
  ends = [np.r_[one, EOS, PAD] for one in sentences]
  found = decoding.sentence_bleu(*map(jnp.array, ends))
  np.testing.assert_allclose(found, want / 100, rtol=1e-5)


def test_the_best_bleu_is_that_of_the_sentence_itself():
  one = jnp.array([[4, 5, 6, 5, 4, EOS, PAD], [4, 4, 4, 4, 4, 4, EOS]])
  found = decoding.sentence_bleu(one, one[:1])
  assert found.shape == (2,) and found[0] == 1 and found[1] < 0.5
