"""Language models are measured by words, and by the bytes of the text."""

import numpy as np
import pytest

from jaxkd import tasks
from jaxkd.data import sources
from jaxkd.data.text.tokens import UNK
from jaxkd.errors import UserError
from jaxkd.tasks import language

random = np.random.default_rng(0)
LOGITS = random.normal(size=(2, 3, 6)).astype(np.float32)
BATCH = {
  'labels': np.array([[4, UNK, 5], [3, 4, 0]], np.int32),
  'valid': np.array([[True, True, True], [True, False, False]]),
  'bytes': np.array([[3, 7, 5], [1, 9, 9]], np.int32),
  'unknown_bytes': np.array([[0, 7, 0], [0, 0, 9]], np.int32),
}


def surprise(logits=LOGITS):
  """Of the labels that count, in nats."""
  x = logits.astype(np.float64)
  log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
  picked = np.take_along_axis(log_p, BATCH['labels'][..., None], -1)[..., 0]
  return -picked[BATCH['valid']]


def reached(name, outputs, teachers=None):
  metrics = {**language.metrics(()), **language.fidelity('main')}
  metric = metrics[name]
  parts = [
    metric.measure(
      {k: x[i : i + 1] for k, x in outputs.items()},
      {k: x[i : i + 1] for k, x in BATCH.items()},
      {'main': {'logits': teachers[:, i : i + 1]}}
      if teachers is not None
      else {},
    )
    for i in range(2)
  ]
  return metric.value(*(np.sum(x, 0) for x in zip(*parts, strict=True)))


def test_perplexity_is_over_all_tokens_of_a_split():
  mean = surprise().mean()
  assert reached('nll', {'logits': LOGITS}) == pytest.approx(mean, rel=1e-5)
  found = reached('perplexity', {'logits': LOGITS})
  assert found == pytest.approx(np.exp(mean), rel=1e-5)


def test_bits_of_a_byte_spell_unknown_words():
  bits = surprise().sum() / np.log(2) + 8 * 7
  found = reached('bits_per_byte', {'logits': LOGITS})
  assert found == pytest.approx(bits / (3 + 7 + 5 + 1), rel=1e-5)


def test_a_uniform_code_of_bytes_has_eight_bits():
  """However rare what is unknown is: a vocabulary gains nothing by it."""
  logits = np.where(np.arange(6) == UNK, 0.0, -np.inf).astype(np.float32)
  batch = {
    **BATCH,
    'labels': np.full((2, 3), UNK, np.int32),
    'unknown_bytes': BATCH['bytes'],
  }
  metric = language.metrics(())['bits_per_byte']
  outputs = {'logits': np.broadcast_to(logits, (2, 3, 6))}
  assert metric.value(*metric.measure(outputs, batch, {})) == 8


def test_a_vocabulary_without_unknown_words_spells_none():
  """Its token of that number is any other."""
  batch = {k: x for k, x in BATCH.items() if k != 'unknown_bytes'}
  metric = language.metrics(())['bits_per_byte']
  found = metric.value(*metric.measure({'logits': LOGITS}, batch, {}))
  bits = surprise().sum() / np.log(2)
  assert found == pytest.approx(bits / (3 + 7 + 5 + 1), rel=1e-5)


def test_metrics_do_not_depend_on_packing():
  """The same tokens in one row, with padding between them."""
  row = lambda x: np.concatenate([x[0], x[1, :1], x[1]])[None]  # noqa: E731
  batch = {k: row(x) for k, x in BATCH.items()}
  batch['valid'][0, 3] = False
  teacher = np.stack([-LOGITS, LOGITS**2])
  metrics = {**language.metrics(()), **language.fidelity('main')}
  for name, metric in metrics.items():
    taught = {'main': {'logits': np.stack([row(x) for x in teacher])}}
    pair = metric.measure({'logits': row(LOGITS)}, batch, taught)
    want = reached(name, {'logits': LOGITS}, teacher)
    assert metric.value(*pair) == pytest.approx(want, rel=1e-5), name


def test_drafts_are_accepted_where_probabilities_overlap():
  two = np.stack([LOGITS, -LOGITS])
  p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in two)
  mean = (p + q) / 2
  want = np.minimum(p, mean).sum(-1)[BATCH['valid']].mean()
  found = reached('acceptance', {'logits': LOGITS}, two)
  assert found == pytest.approx(want, rel=1e-5)


def test_a_net_that_diverged_has_no_perplexity():
  logits = LOGITS.copy()
  logits[0, 1, 2] = np.nan
  for name in language.metrics(()):
    assert np.isnan(reached(name, {'logits': logits}))
  worst = np.where(np.arange(6) == 0, 1e9, 0.0).astype(np.float32)
  worst = np.broadcast_to(worst, LOGITS.shape)
  assert reached('perplexity', {'logits': worst}) == np.inf


def test_what_is_as_the_teacher_agrees_with_it():
  two = np.stack([LOGITS, LOGITS])
  assert reached('agreement', {'logits': LOGITS}, two) == 1
  other = reached('agreement', {'logits': -LOGITS}, two)
  assert other == 0
  assert reached('teacher_kl', {'logits': LOGITS}, two) == pytest.approx(
    0, abs=1e-6
  )
  assert reached('teacher_kl', {'logits': -LOGITS}, two) > 0.1


def test_data_that_are_no_text_are_refused():
  tasks.check('language', sources.load('markov', size=50))
  with pytest.raises(UserError, match=r'^task: language needs labels by token'):
    tasks.check('language', sources.load('digits'))
  pairs = sources.load('phrases', size=60, vocabulary=120, length=60)
  with pytest.raises(UserError, match=r"^data\.source: .* no field 'bytes'"):
    tasks.check('language', pairs)
