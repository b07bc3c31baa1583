"""Transcripts are scored as text, by word and character error rates."""

import sys

import jiwer
import numpy as np
import pytest

from jaxkd.data.text.tokens import EOS, PAD
from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.tasks import sequences, transcription

LETTERS = 'abcdehost'
CLASSES = ('<pad>', '<unk>', '<s>', '</s>', '▁', *LETTERS)
SAID = ('the cat sat', 'a dot', 'cash')
WRITTEN = ('the bat sat', 'a dot a', '')


def lines(texts, length=14):
  made = np.full((len(texts), length), PAD, np.int32)
  for row, text in zip(made, texts, strict=True):
    own = [CLASSES.index(x.replace(' ', '▁')) for x in text] + [EOS]
    row[: len(own)] = own
  return made


LABELS = lines(SAID)
LOGITS = np.random.default_rng(0).normal(size=(3, 14, len(CLASSES)))
BATCH = {'labels': LABELS, 'valid': LABELS != PAD}


def reached(name, outputs, kept=3):
  """A metric of two members whose outputs are the same."""
  metric = transcription.metrics(CLASSES)[name]
  fields = metric.measure({'logits': LOGITS, **outputs}, BATCH, {})
  fields = metric.whole(*(np.asarray(x)[:kept] for x in fields))
  value = metric.value(*(np.stack([x] * 2) for x in fields))
  assert value.shape == (2,)
  return value[0]


@pytest.mark.parametrize(
  ('output', 'suffix'), [('greedy', ''), ('beam', '_beam')]
)
def test_error_rates(output, suffix):
  outputs = {output: lines(WRITTEN)}
  # One of three words is another, one is too many, one of one is missing.
  assert reached(f'wer{suffix}', outputs) == pytest.approx(3 / 6)
  assert reached(f'cer{suffix}', outputs) == pytest.approx((1 + 2 + 4) / 20)
  assert reached(f'wer{suffix}', outputs) == jiwer.wer([*SAID], [*WRITTEN])
  assert reached(f'cer{suffix}', outputs) == jiwer.cer([*SAID], [*WRITTEN])
  assert reached(f'wer{suffix}', outputs, kept=2) == pytest.approx(2 / 5)
  for rate in transcription.RATES:
    assert reached(f'{rate}{suffix}', {output: LABELS}) == 0
  long = lines(['a a', 'a a', 'a a a a'])  # more errors than words
  assert reached(f'wer{suffix}', {output: long}) == pytest.approx(8 / 6)


def test_of_a_net_that_diverged():
  lost = LOGITS.copy()
  lost[1, 2, 3] = np.nan
  outputs = {'greedy': LABELS, 'logits': lost}
  assert np.isnan(reached('wer', outputs)) and np.isnan(reached('cer', outputs))
  lost = np.where(BATCH['valid'][..., None], LOGITS, np.nan)  # padding alone
  assert reached('wer', {'greedy': LABELS, 'logits': lost}) == 0


def test_what_is_measured_once():
  found = transcription.metrics(CLASSES)
  assert {found[r].measure for r in ('wer', 'cer')} == {sequences.greedy}
  assert not any(metric.higher_is_better for metric in found.values())
  late = {name for name, metric in found.items() if metric.finished}
  assert late == {'wer_beam', 'cer_beam'}


def test_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'jiwer', None)
  with pytest.raises(
    UserError, match=r"^task: .*pip install 'jaxkd\[speech\]'"
  ):
    transcription.metrics(CLASSES)


def test_is_a_task():
  given = dict(task='transcription', teachers=dict(main={}))
  labels = configs.complete(given)['teachers']['main']['distill']['labels']
  assert (labels['loss'], labels['mask']) == ('cross_entropy', 'valid')


def test_shows_transcripts(tmp_path):
  def apply(inputs):
    if 'token' not in inputs:
      return {'state/step': np.zeros(3, np.int32)}
    step = inputs['state']['step']
    logits = np.eye(len(CLASSES), dtype=np.float32)[LABELS]
    found = logits[np.arange(3), 0] * 9
    return {'logits': found, 'state/step': step + 1}

  inputs = {'source': np.zeros((3, 2)), 'prefix': np.zeros((3, 4), np.int32)}
  transcription.show(
    tmp_path, {**BATCH, 'inputs': inputs}, {'main': apply}, CLASSES
  )
  text = (tmp_path / 'transcripts.txt').read_text()
  assert text.startswith('target  the cat sat\nmain    tttt\n\n')
