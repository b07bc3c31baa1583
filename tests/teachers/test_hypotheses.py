"""Weights of hypotheses by their errors, and what they do to a loss."""

import sys

import jax
import jax.numpy as jnp
import jiwer
import numpy as np
import pytest

from jaxkd import distill, losses
from jaxkd.data.text.tokenizer import text
from jaxkd.data.text.tokens import EOS, PAD
from jaxkd.errors import UserError
from jaxkd.teachers import hypotheses
from jaxkd.types import Context

PIECES = ('<pad>', '<unk>', '<s>', '</s>', '▁', *'abcd')
random = np.random.default_rng(0)


def drawn(*shape, length=9):
  """Sentences of letters and spaces, which begin with a letter."""
  tokens = random.integers(4, len(PIECES), (*shape, length))
  tokens[..., 0] = 5
  ends = random.integers(2, length, shape)[..., None]
  place = np.arange(length)
  tokens = np.where(place == ends, EOS, tokens)
  return np.where(place > ends, PAD, tokens).astype(np.int32)


SAID, WRITTEN = drawn(8), drawn(8, 2)
LABELS = np.concatenate([SAID[:, None]] * 2 + [WRITTEN], axis=1)


@pytest.mark.parametrize(
  ('unit', 'rate'), [('word', jiwer.wer), ('character', jiwer.cer)]
)
def test_errors_are_those_of_jiwer(unit, rate):
  found = hypotheses.error_rates(SAID, WRITTEN, PIECES, unit)
  for i in range(8):
    for k in range(2):
      want = rate(text(SAID[i], PIECES), text(WRITTEN[i, k], PIECES))
      assert found[i, k] == pytest.approx(want)
  assert found.max() > 0 and not np.array_equal(found, found[::-1])


def test_what_is_right_counts_1_and_nothing_counts_more():
  right = np.concatenate([SAID[:, None]] * 2, axis=1)
  assert (hypotheses.weights(right, PIECES, gamma=5.0) == 1).all()
  found = hypotheses.weights(LABELS, PIECES, gamma=2.0, normalize=False)
  errors = hypotheses.error_rates(SAID, WRITTEN, PIECES)
  order = errors.reshape(-1).argsort()
  assert (np.diff(found[:, 2:].reshape(-1)[order]) <= 0).all()
  assert found.min() >= np.exp(-2.0) - 1e-6  # an error rate is 1 at most


def test_all_ways_to_weigh_have_the_same_total():
  for kw in (dict(gamma=2.0), dict(gamma=5.0, shuffle=True), dict(gamma=0.0)):
    found = hypotheses.weights(LABELS, PIECES, **kw)
    assert found[:, 2:].sum() == pytest.approx(16)
    assert (found[:, :2] == 1).all()


def test_without_gamma_it_is_sequence_level_to_the_last_bit():
  weight = hypotheses.weights(LABELS, PIECES, gamma=0.0)
  labels = LABELS.reshape(-1, LABELS.shape[-1])
  frames = jnp.asarray(random.normal(size=(len(labels), 20, 9)), jnp.float32)
  logits = jnp.asarray(
    random.normal(size=(*labels.shape, len(PIECES))), jnp.float32
  )
  batch = {
    'labels': labels,
    'valid': labels != PAD,
    'weight': weight.reshape(-1),
    'source_valid': jnp.ones((len(labels), 20), bool),
  }

  def value_and_slope(batch, loss, mask, **options):
    term = distill.term(loss, mask=mask, **options)

    def total(outputs):
      context = Context(batch, outputs, {}, jnp.int32(0), jax.random.key(0))
      params, state = term.init(jax.random.key(0), context)
      return term.loss(params, state, context)[0].mean()

    return jax.value_and_grad(total)({'logits': logits, 'ctc_logits': frames})

  ctc = dict(at='ctc_logits')
  for loss, mask, options in (
    (losses.cross_entropy, 'valid', {}),
    (losses.ctc, 'source_valid', ctc),
  ):
    plain = value_and_slope(batch, loss, mask, **options)
    weighed = dict(example_weight='batch.weight', **options)
    found = value_and_slope(batch, loss, mask, **weighed)
    jax.tree.map(np.testing.assert_array_equal, found, plain)
    uneven = {**batch, 'weight': jnp.arange(len(labels), dtype=jnp.float32)}
    other = value_and_slope(uneven, loss, mask, **weighed)
    assert other[0] != plain[0]


def test_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'rapidfuzz', None)
  with pytest.raises(UserError, match=r"pip install 'jaxkd\[speech\]'"):
    hypotheses.weights(LABELS, PIECES)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'gamma': 'a'}, r"kw\.gamma: 'a' should be 0 or more"),
    ({'gamma': -1.0}, r'kw\.gamma: -1\.0 should be 0 or more'),
    ({'unit': 'words'}, r"kw\.unit: .*'words'; did you mean 'word'"),
  ],
)
def test_options_that_cannot_be(options, message):
  with pytest.raises(UserError, match=message):
    hypotheses.weights(LABELS, PIECES, **options)
