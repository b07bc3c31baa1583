"""Losses between sequences of different lengths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import losses

random = np.random.default_rng(0)
LOGITS = random.normal(size=(3, 5, 6)).astype(np.float32)
# Ended by 3 and filled up with 0.
LABELS = np.array([[4, 4, 3, 0], [5, 3, 0, 0], [4, 5, 1, 3]], np.int32)
LENGTHS = [2, 1, 3]
FRAMES = np.array([4, 5, 3])
VALID = np.arange(5)[None] < FRAMES[:, None]
LOG_P = jax.nn.log_softmax(LOGITS)


def of_all_paths(log_p, labels):
  """The sum over all paths, one by one."""
  total = -np.inf
  for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
    merged = [x for x, _ in itertools.groupby(path)]
    if [x for x in merged if x != 0] == list(labels):
      total = np.logaddexp(total, sum(log_p[range(len(path)), path]))
  return -total


def test_ctc_sums_over_all_paths():
  found = losses.ctc(LOGITS, LABELS, valid=jnp.asarray(VALID))
  for i in range(3):
    log_p = np.asarray(LOG_P[i, : FRAMES[i]], np.float64)
    want = of_all_paths(log_p, LABELS[i, : LENGTHS[i]])
    assert found[i] == pytest.approx(want, rel=1e-5)


def test_ctc_is_that_of_optax_and_padding_has_no_part():
  labels = np.where(np.arange(4) < np.array(LENGTHS)[:, None], LABELS, 0)
  want = optax.losses.ctc_loss(
    LOGITS, 1.0 - VALID, labels, (labels == 0).astype(np.float32)
  )
  odd = np.where(VALID[..., None], LOGITS, np.nan)
  longer = np.pad(LABELS, ((0, 0), (0, 2)))
  for logits, tokens in ((LOGITS, LABELS), (odd, LABELS), (odd, longer)):
    found, slope = jax.value_and_grad(
      lambda x, t=tokens: losses.ctc(x, t, valid=VALID).sum()
    )(logits)
    assert float(found) == pytest.approx(float(want.sum()), rel=1e-6)
    assert np.isfinite(slope).all() and (slope[~VALID] == 0).all()


def test_ctc_of_too_few_frames():
  # Two equal labels need three frames, and there are two.
  few = VALID & (np.arange(5) < np.array([[2], [5], [5]]))
  found = losses.ctc(LOGITS, LABELS, valid=few)
  assert np.isinf(found[0]) and np.isfinite(found[1:]).all()
  value, slope = jax.value_and_grad(
    lambda x: losses.ctc(x, LABELS, valid=few, zero_infinity=True).sum()
  )(LOGITS)
  assert float(value) == pytest.approx(float(found[1:].sum()))
  assert (slope[0] == 0).all() and np.isfinite(slope).all()
