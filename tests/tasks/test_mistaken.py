"""Outputs that are no logits are told from logits."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.tasks import mistaken

random = np.random.default_rng(0)
N = 40
LOGITS = random.normal(size=(N, 3)).astype(np.float32)
ODDS = np.exp(LOGITS)
SHARES = ODDS / ODDS.sum(-1, keepdims=True)
PARTS = ODDS / (1 + ODDS)
LABELS = random.normal(size=(N, 3)).astype(np.float32)
MEANS, SCALES = (0.3, -5.0, 1e3), (1.1, 0.5, 40.0)
NEAR = (LABELS + 0.5 * LOGITS).astype(np.float32)
MEASURED = (NEAR * SCALES + MEANS).astype(np.float32)


def holds(kind, logits, labels=LABELS, where=None):
  """By NumPy, and as a metric, which agree."""
  where = np.ones(N, bool) if where is None else where
  found = mistaken.sign(kind, (MEANS, SCALES))
  own = found.holds(found.sums(logits[where], labels[where]), where.sum())
  batch = {'labels': labels, 'where': jnp.asarray(where)}
  metric = mistaken.metric(found)
  total, count = metric.measure({'logits': jnp.asarray(logits)}, batch, {})
  members = np.stack([total] * 2), np.stack([count] * 2)
  assert metric.value(*members).tolist() == [bool(own)] * 2
  return bool(own)


@pytest.mark.parametrize(
  ('kind', 'logits', 'wanted'),
  [
    ('softmax', SHARES, True),
    ('softmax', SHARES[:, None], True),
    ('softmax', 100 * SHARES, True),
    ('softmax', 10 * SHARES, False),
    ('softmax', LOGITS, False),
    ('softmax', np.log(SHARES), False),
    ('softmax', PARTS, False),
    ('softmax', np.concatenate([SHARES[:-1], LOGITS[:1]]), False),
    ('softmax', np.where(np.arange(3) == 1, -np.inf, SHARES), False),
    ('sigmoids', PARTS, True),
    ('sigmoids', LOGITS, False),
    ('sigmoids', np.zeros_like(LOGITS), False),  # of a head of zeros
    ('values', MEASURED, True),
    ('values', NEAR, False),
    ('values', 3 * LOGITS, False),  # of a net that has learnt nothing
    ('values', 3 * LOGITS * SCALES + MEANS, False),  # nor in their unit
    ('values', np.full_like(LOGITS, np.nan), False),
  ],
)  # fmt: skip
def test_outputs_are_told_from_logits(kind, logits, wanted):
  assert holds(kind, np.float32(logits)) == wanted


def test_examples_that_fill_up_count_for_nothing():
  padded = np.concatenate([SHARES[:-2], LOGITS[:2]])
  assert holds('softmax', padded, where=np.arange(N) < N - 2)
  assert not holds('softmax', padded, where=np.arange(N) < N - 1)


def test_values_without_a_unit_have_no_sign():
  assert mistaken.sign('values') is None


def test_what_to_give_is_said():
  assert '1000 and 40' in mistaken.sign('values', (MEANS, SCALES)).said
