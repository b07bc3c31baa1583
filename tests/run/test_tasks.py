"""Runs on labels of several classes and on measured values."""

import io

import numpy as np
import optax
import pytest
from flax import nnx
from rich.console import Console

import jaxkd
from jaxkd import distill
from jaxkd.errors import UserError
from jaxkd.run import checks, class_weights, jobs, pipeline
from jaxkd.run import config as configs

N, K = 120, 3
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(N, 5)).astype(np.float32)
SEVERAL = (INPUTS[:, :K] > 0.5).astype(int)
SEVERAL[::7, 1] = -1
VALUES = np.stack([300 + 20 * INPUTS[:, 0], INPUTS[:, 1] ** 2], axis=1)
ONE = np.arange(N) % 4 // 2  # 0, 0, 1, 1
ONE[:30] = 0


def several():
  return {'all': (INPUTS, SEVERAL)}


def values():
  return {'all': (INPUTS, VALUES)}


def unequal():
  return {'all': (INPUTS, ONE)}


def config(task, source, loss, soft, metric, labels, /, **changes):
  made = dict(
    task=task,
    data=dict(source=f'{__name__}:{source}', kw=dict(labels=labels)),
    teachers=dict(main=dict(model='mlp', kw=dict(widths=(8,)), count=2)),
    students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
    distill=dict(
      labels=dict(loss=loss, mask='valid' if labels == 'multilabel' else ''),
      soft=dict(loss=soft, teacher='main'),
    ),
    arms=dict(student=dict(distill=dict(soft=dict(weight=0.0))), distilled={}),
    train=dict(
      steps=8, seeds=2, batch_size=16, members='vmap', learning_rate=0.1
    ),
    report=dict(metric=metric),
  )
  for entry, value in changes.items():
    *above, last = entry.split('__')
    section = made
    for name in above:
      section = section.setdefault(name, {})
    section[last] = value
  return configs.plain(configs.complete(made))


def multilabel(**changes):
  return config(
    *('multilabel', 'several', 'binary_cross_entropy', 'binary_kl', 'map'),
    'multilabel',
    **changes,
  )


def regression(**changes):
  return config(
    *('regression', 'values', 'squared_error', 'teacher_bounded', 'rmse'),
    'values',
    **changes,
  )


def run(made, directory):
  return pipeline.run(made, directory, console=Console(file=io.StringIO()))


def test_multilabel(tmp_path):
  made = multilabel(distill__labels__kw=dict(positive_weights='balanced'))
  row = run(made, tmp_path)
  assert {'student', 'distilled', 'teacher', 'teacher ensemble'} == set(
    row['arms']
  )
  for name in ('f1', 'nll', 'agreement', 'teacher_kl'):
    assert np.isfinite(row['metrics']['distilled'][name]).all()
  notes = ' '.join(row['notes'])
  assert 'of the labels of train are unknown' in notes
  assert 'positive weights of the term labels of distilled are bal' in notes
  net, variables = jaxkd.load(tmp_path)
  with pytest.raises(UserError, match=r'net\.predict: .*take the sigmoids'):
    net.predict(variables, INPUTS[0])


def test_regression(tmp_path):
  row = run(regression(), tmp_path / 'run')
  assert np.isfinite(row['arms']['distilled']['values']).all()
  assert {'mae', 'r2', 'rmse_0', 'rmse_1', 'teacher_rmse'} < set(
    row['metrics']['distilled']
  )
  assert 'errors are given in their own unit' in ' '.join(row['notes'])
  net, variables = jaxkd.load(tmp_path / 'run')
  assert 'a net of 2 values' in repr(net)
  predicted = net.apply(variables, INPUTS)[0]['logits']
  back = net.values(predicted)
  means, scales = net.standardized
  np.testing.assert_allclose(back, np.asarray(predicted) * scales + means)
  assert abs(back[:, 0].mean() - 300) < 60
  with pytest.raises(UserError, match=r'net\.predict: .*to net\.values'):
    net.predict(variables, INPUTS[0])

  nets = tmp_path / 'run' / 'nets' / 'teachers' / 'main'
  checks.prepare(regression(teachers__main__restore=str(nets)), tmp_path)
  other = regression(
    teachers__main__restore=str(nets), data__kw__validation=0.5
  )
  with pytest.raises(UserError, match=r'main\.restore: its labels were stand'):
    checks.prepare(other, tmp_path)


def test_a_net_of_classes_has_no_values():
  from jaxkd.run.loaded import LoadedNet

  with pytest.raises(UserError, match=r'net\.values: '):
    LoadedNet(None, None).values(np.zeros(2))


@pytest.mark.parametrize(
  ('make', 'changes', 'message'),
  [
    (multilabel, dict(task='classification'), 'task: classification needs'),
    (multilabel, dict(data__kw__labels=''), r"data\.kw\.labels='multilabel'"),
    (regression, dict(task='multilabel'), "no field 'valid'"),
    (multilabel, dict(task='regression'), "no field 'label_scale'"),
    (
      multilabel,
      dict(distill__soft__fuse='mean_probabilities'),
      r"^distill\.soft\.fuse: .*multilabel have none; set it to 'mean_logits'",
    ),
    (
      multilabel,
      dict(teachers__main__cache=dict(outputs=('logits',), top=2)),
      r'^teachers\.main\.cache\.top: it takes a softmax',
    ),
    (
      multilabel,
      dict(distill__soft__example_weight='teacher_confidence'),
      r'^distill\.soft\.example_weight: it takes a softmax',
    ),
    (
      multilabel,
      dict(students__student__logit_shift='missing'),
      r'^students\.student\.logit_shift: it takes a softmax',
    ),
    (
      multilabel,
      dict(teachers__both=dict(made_of=('main',), restore='')),
      r"^teachers\.both\.fuse: .*set it to 'mean_logits'",
    ),
    (
      regression,
      dict(distill__soft__loss='kl'),
      r"^distill\.soft\.loss: .*choose 'squared_error'",
    ),
    (
      regression,
      dict(distill__labels__loss='cross_entropy'),
      r'^distill\.labels\.loss: it takes a softmax',
    ),
    (multilabel, dict(distill__labels__mask=''), r"mask: .*write 'valid'"),
    (
      multilabel,
      dict(distill__labels__kw=dict(class_weights='balanced')),
      r"kw\.class_weights: .*set positive_weights='balanced'",
    ),
    (
      multilabel,
      dict(distill__labels__kw=dict(class_weights=(1.0, 2.0))),
      r'class_weights must be 3 numbers',
    ),
    (
      multilabel,
      dict(data__kw__labels='values'),
      r"which labels count; set data\.kw\.labels='multilabel'",
    ),
    (
      multilabel,
      dict(task='regression'),
      r"label_scale.*; set data\.kw\.labels='values'",
    ),
    (
      regression,
      dict(data__augment__students='mixup(0.2)'),
      r'mixes examples of one class each',
    ),
  ],
)
def test_what_cannot_be_right_is_refused(tmp_path, make, changes, message):
  with pytest.raises(UserError, match=message):
    checks.prepare(make(**changes), tmp_path)


def balanced(**changes):
  made = config(
    *('classification', 'unequal', 'cross_entropy', 'kl', 'top1', ''),
    distill__labels__kw=dict(class_weights='balanced'),
    **changes,
  )
  return made


def test_balanced_weights_are_counted_in_the_training_examples(tmp_path):
  source, (part,) = checks.prepare(balanced(), tmp_path)
  labels = source.splits['train'].labels
  job = jobs.of_arm(part, 'distilled', source, jobs.shapes_of(part))
  weights = job.distill['labels']['kw']['class_weights']
  counts = np.bincount(labels)
  np.testing.assert_allclose(weights, len(labels) / (2 * counts))
  assert np.mean(np.array(weights)[labels]) == pytest.approx(1)
  (note,) = [n for n in source.notes if 'distilled are balanced' in n]
  assert f'1: {weights[1]:.4g}' in note
  assert not any('teacher' in n and 'balanced' in n for n in source.notes)


def test_balanced_weights_are_those_of_a_partition(tmp_path):
  made = balanced(data__partition=dict(students='without:1'))
  source, (part,) = checks.prepare(made, tmp_path)
  job = jobs.of_arm(part, 'student', source, jobs.shapes_of(part))
  # Of the class that is not there nothing is known, and nothing is needed.
  assert job.distill['labels']['kw']['class_weights'] == (1.0, 1.0)


def test_positive_weights_are_the_negatives_over_the_positives(tmp_path):
  made = multilabel(distill__labels__kw=dict(positive_weights='balanced'))
  source, (part,) = checks.prepare(made, tmp_path)
  job = jobs.of_arm(part, 'student', source, jobs.shapes_of(part))
  train = source.splits['train'].fetch(np.arange(len(source.splits['train'])))
  yes = (train['labels'] * train['valid']).sum(0)
  no = train['valid'].sum(0) - yes
  got = job.distill['labels']['kw']['positive_weights']
  np.testing.assert_allclose(got, no / yes)
  assert class_weights.asked(job.distill) == []


@pytest.mark.parametrize(
  ('make', 'option'),
  [(balanced, 'positive_weights'), (regression, 'class_weights')],
)
def test_balanced_weights_that_a_loss_does_not_take(tmp_path, make, option):
  made = make()
  made['distill']['labels']['kw'] = {option: 'balanced'}
  with pytest.raises(
    UserError, match=rf"labels\.kw: .* no option .*'{option}'"
  ):
    checks.prepare(made, tmp_path)


class Linear(nnx.Module):
  def __init__(self, width, outputs, *, rngs):
    self.hidden = nnx.Linear(5, width, rngs=rngs)
    self.head = nnx.Linear(width, outputs, rngs=rngs)

  def __call__(self, x):
    return self.head(nnx.relu(self.hidden(x)))


@pytest.mark.parametrize('kind', ['multilabel', 'regression'])
def test_in_a_loop_of_ones_own(kind):
  labels, valid = np.maximum(SEVERAL, 0), SEVERAL >= 0
  batch, terms = (
    {'inputs': INPUTS, 'labels': labels, 'valid': valid},
    {
      'labels': distill.term('binary_cross_entropy', mask='valid'),
      'soft': distill.term('binary_kl', teacher='main', temperature=2.0),
    },
  )
  if kind == 'regression':
    scale = tuple(VALUES.std(0).tolist())
    batch = {'inputs': INPUTS, 'labels': VALUES.astype(np.float32)}
    terms = {
      'labels': distill.term('squared_error', scale=scale),
      'soft': distill.term('teacher_bounded', teacher='main', scale=scale),
    }
  outputs = batch['labels'].shape[1]
  nets = [Linear(w, outputs, rngs=nnx.Rngs(w)) for w in (4, 8)]
  student, teacher = (distill.net(net, INPUTS[:1]) for net in nets)
  step = distill.step(student, {'main': teacher}, terms, optax.adam(0.1))
  state, seen = step.init(seed=0), []
  for _ in range(10):
    state, found = step(state, batch)
    seen.append(found['loss/labels'])
  z = np.asarray(nets[0](INPUTS), np.float64)
  if kind == 'regression':
    want = (((z - VALUES) / VALUES.std(0)) ** 2).mean()
  else:
    log_q = -np.log1p(np.exp(np.where(labels == 1, -z, z)))
    want = -(log_q * valid).sum() / N
  assert seen[0] == pytest.approx(want, rel=1e-4)
  assert seen[-1] < seen[0]
