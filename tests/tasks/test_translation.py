"""Translations are scored as text, and asked for as metrics want them."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.tasks import decoding, translation

CLASSES = ('<pad>', '<unk>', '<s>', '</s>', '▁the', '▁cat', '▁sat', 's', '▁on')
WIDTH = len(CLASSES)
random = np.random.default_rng(0)


def lines(texts, length=9):
  """The tokens of texts that are written as their pieces."""
  made = np.full((len(texts), length), PAD, np.int32)
  for row, text in zip(made, texts, strict=True):
    tokens = [CLASSES.index(piece) for piece in text.split()] + [EOS]
    row[: len(tokens)] = tokens
  return made


TARGETS = (
  '▁the ▁cat ▁sat ▁on ▁the ▁cat',
  '▁cat s ▁sat ▁on ▁the ▁cat s',
  '▁the ▁cat',
)
WRITTEN = (
  '▁the ▁cat ▁sat ▁on ▁the ▁cat',
  '▁cat s ▁sat ▁on ▁the ▁cat',
  '▁the ▁cat s',
)
LABELS = lines(TARGETS)
BATCH = {'labels': LABELS, 'valid': LABELS != PAD}
LOGITS = random.normal(size=(*LABELS.shape, WIDTH)).astype(np.float32)


def reached(name, outputs, batch=BATCH, kept=3):
  """A metric of two members whose outputs are the same."""
  metric = translation.metrics(CLASSES)[name]
  fields = metric.measure({'logits': LOGITS, **outputs}, batch, {})
  if metric.whole:
    fields = metric.whole(*(np.asarray(x)[:kept] for x in fields))
  value = metric.value(*(np.stack([x] * 2) for x in fields))
  assert value.shape == (2,)
  return value[0]


def text(written):
  return written.replace(' ', '').replace('▁', ' ').strip()


@pytest.mark.parametrize(
  ('output', 'suffix'), [('greedy', ''), ('beam', '_beam')]
)
class TestScores:
  def test_are_those_of_sacrebleu(self, output, suffix):
    outputs = {output: lines(WRITTEN)}
    said, wanted = [text(x) for x in WRITTEN], [[text(x) for x in TARGETS]]
    assert said[2] == 'the cats'
    assert reached(f'exact{suffix}', outputs) == pytest.approx(1 / 3)
    for name, score in (
      ('bleu', sacrebleu.BLEU().corpus_score(said, wanted)),
      ('chrf', sacrebleu.CHRF().corpus_score(said, wanted)),
    ):
      assert 0 < score.score < 100
      found = reached(f'{name}{suffix}', outputs)
      assert found == pytest.approx(score.score / 100)

  def test_what_follows_the_end_does_not_count(self, output, suffix):
    tokens = lines(TARGETS)
    tokens[2, 4:] = CLASSES.index('▁on')
    for name in translation.SCORES:
      assert reached(f'{name}{suffix}', {output: tokens}) == pytest.approx(1)

  def test_nothing_is_worth_nothing(self, output, suffix):
    for name in translation.SCORES:
      found = reached(f'{name}{suffix}', {output: lines(['', '', ''])})
      assert found == 0

  def test_padding_that_is_no_number_does_not_count(self, output, suffix):
    logits = np.where((LABELS != PAD)[..., None], LOGITS, np.nan)
    for name in translation.SCORES:
      given = {output: lines(TARGETS), 'logits': logits}
      assert reached(f'{name}{suffix}', given) == pytest.approx(1)

  def test_of_a_net_that_diverged(self, output, suffix):
    logits = LOGITS.copy()
    logits[1, 2, 3] = np.inf
    for name in translation.SCORES:
      given = {output: lines(TARGETS), 'logits': logits}
      assert np.isnan(reached(f'{name}{suffix}', given))


def test_metrics_of_one_output_share_what_they_measure():
  found = translation.metrics(CLASSES)
  for suffix in ('', '_beam'):
    shared = {
      (found[f'{name}{suffix}'].measure, found[f'{name}{suffix}'].whole)
      for name in translation.SCORES
    }
    assert len(shared) == 1
  late = {name for name, metric in found.items() if metric.finished}
  scores = {'exact_beam', 'bleu_beam', 'chrf_beam'}
  assert late == scores | {'beam_gain', 'mode_mass'}


@pytest.mark.parametrize('where', [None, np.array([True, False, True])])
def test_nll_is_that_of_a_token(where):
  batch = BATCH if where is None else {**BATCH, 'where': where}
  x = LOGITS.astype(np.float64)
  log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
  losses = [
    -log_p[i, j, LABELS[i, j]]
    for i, j in np.argwhere(LABELS != PAD)
    if where is None or where[i]
  ]
  assert len(losses) < LABELS.size
  assert reached('nll', {}, batch) == pytest.approx(np.mean(losses), rel=1e-5)


def test_masses_are_means_of_the_examples_that_count():
  batch = {**BATCH, 'where': np.array([True, True, False])}
  outputs = {'mode_mass': np.array([0.1, 0.4, np.nan])}
  assert reached('mode_mass', outputs, batch) == pytest.approx(0.25)
  metric = translation.fidelity('main')['teacher_mass']
  assert metric.finished and metric.output == 'teacher_mass/main'
  total, count = metric.measure(
    {'teacher_mass/main': np.array([0.5, 0.7, 0.3])}, batch, {}
  )
  assert (float(total), float(count)) == pytest.approx((1.2, 2))


# Nets whose next token depends on the last one and on the source alone.

LENGTH = 4
SOURCE = jnp.array([[4, 5, 0], [6, 0, 0]], jnp.int32)
INPUTS = {'source': SOURCE, 'prefix': jnp.zeros((2, LENGTH), jnp.int32)}


def net(seed):
  table = 2 * np.random.default_rng(seed).normal(size=(WIDTH,) * 3)
  table = jnp.asarray(table, jnp.float32)

  def apply(inputs):
    if 'token' in inputs:
      first = inputs['state']['first']
      logits = table[first, inputs['token']]
      return {'logits': logits, 'state/first': first}
    first = inputs['source'][:, 0]
    if 'prefix' in inputs:
      return {'logits': table[first[:, None], inputs['prefix']]}
    return {'state/first': first}

  return apply, np.asarray(jax.nn.log_softmax(table), np.float64)


def search(log_p, source, width):
  """The best translation of a beam search, without a net."""
  beams = [((), 0.0)]
  for _ in range(LENGTH):
    longer = []
    for tokens, total in beams:
      if tokens and tokens[-1] == EOS:
        longer.append((tokens, total))
        continue
      last = tokens[-1] if tokens else BOS
      longer += [
        ((*tokens, k), total + log_p[source, last, k])
        for k in range(WIDTH)
        if k not in (PAD, BOS)
      ]
    beams = sorted(longer, key=lambda beam: -beam[1])[:width]
  return beams[0]


def padded(tokens):
  return [*tokens, *[PAD] * (LENGTH - len(tokens))]


def under(log_p, source, tokens):
  before = (BOS, *tokens)
  return sum(log_p[source, a, b] for a, b in zip(before, tokens, strict=False))


@pytest.fixture(scope='module')
def decoded():
  """What a student and its teacher write, and the tables that they are."""
  (student, own), (teacher, its) = net(0), net(1)
  wanted = {'greedy', 'beam', 'mode_mass', 'teacher_mass/main', 'logits',
            'teacher_mass/other'}  # fmt: skip
  run = jax.jit(
    lambda inputs: translation.decode(
      student, inputs, wanted, {'main': teacher}
    )
  )
  return run(INPUTS), own, its


def test_what_is_wanted_is_decoded(decoded):
  found, own, its = decoded
  assert {*found} == {'greedy', 'beam', 'mode_mass', 'teacher_mass/main'}
  for name in ('greedy', 'beam'):
    assert found[name].shape == (2, LENGTH) and found[name].dtype == jnp.int32
  for row, source in enumerate(np.asarray(SOURCE[:, 0])):
    tokens, _ = search(own, source, 1)
    assert found['greedy'][row].tolist() == padded(tokens)
    tokens, total = search(own, source, translation.BEAM)
    assert found['beam'][row].tolist() == padded(tokens)
    assert found['mode_mass'][row] == pytest.approx(np.exp(total), rel=1e-4)
    tokens, _ = search(its, source, translation.BEAM)
    mass = np.exp(under(own, source, tokens))
    assert found['teacher_mass/main'][row] == pytest.approx(mass, rel=1e-4)


def test_nothing_else_is_decoded(monkeypatch):
  def fail(*_):
    raise AssertionError

  student, _ = net(0)
  monkeypatch.setattr(decoding, 'beam', fail)
  monkeypatch.setattr(decoding, 'greedy', fail)
  found = translation.decode(student, INPUTS, {'logits'}, {'main': student})
  assert found == {}


def test_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'sacrebleu', None)
  with pytest.raises(UserError, match=r"^task: .* pip install 'jaxkd\[text\]'"):
    translation.metrics(CLASSES)


def test_is_a_task():
  given = dict(task='translation', teachers=dict(main={}))
  labels = configs.complete(given)['teachers']['main']['distill']['labels']
  assert labels['loss'] == 'cross_entropy'


def test_what_beam_search_gains_is_the_difference():
  outputs = {'greedy': lines(WRITTEN), 'beam': LABELS}
  found = reached('beam_gain', outputs)
  want = 1 - reached('bleu', outputs)
  assert found == pytest.approx(want) and 0 < found < 1
  bad = np.full_like(LOGITS, np.nan)
  assert np.isnan(reached('beam_gain', {**outputs, 'logits': bad}))


def test_what_nets_write_is_shown_as_text(tmp_path):
  nets = {'student': net(0)[0], 'the teacher': net(1)[0]}
  labels = lines(('▁the ▁cat', '▁sat s'), LENGTH)
  translation.show(
    tmp_path / 'new', {'inputs': INPUTS, 'labels': labels}, nets, CLASSES
  )
  shown = (tmp_path / 'new' / 'translations.txt').read_text(encoding='utf-8')
  first, second = shown.split('\n\n')
  assert [line[:13] for line in first.splitlines()] == [
    'source       ',
    'target       ',
    'student      ',
    'the teacher  ',
  ]
  assert first.splitlines()[1][13:] == 'the cat'
  assert second.splitlines()[1][13:] == 'sats'
  written = search(net(1)[1], int(SOURCE[1, 0]), 1)[0]
  pieces = [CLASSES[token] for token in written if token != EOS]
  assert second.splitlines()[3][13:] == text(' '.join(pieces))
