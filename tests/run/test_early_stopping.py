"""Runs that keep the best step on the validation split."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.run import checks, pipeline, stored_nets
from jaxkd.run import config as configs
from jaxkd.train import checkpoint


def small(metric='nll', patience=0, **changes):
  made = dict(
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
    ),
    students=dict(student=dict(model='mlp', kw=dict(widths=(8,)))),
    distill=dict(labels=dict(loss='cross_entropy')),
    arms=dict(student={}),
    train=dict(
      steps=24,
      seeds=2,
      batch_size=8,
      members='vmap',
      eval_every=4,
      save_every=8,
      learning_rate=0.3,
      schedule='constant',
      early_stopping=dict(metric=metric, patience=patience),
    ),
    report=dict(compare=dict(better='student', than='student')),
  )
  made['train'] |= changes
  return configs.plain(configs.complete(made))


def run(config, directory, **kw):
  console = Console(file=io.StringIO(), width=200)
  row = pipeline.run(config, directory, console=console, **kw)
  return row, console.file.getvalue()


def net(directory):
  folder = stored_nets.net_folder(directory, 'students/student/student')
  return checkpoint.load(folder)[0]


def test_the_nets_are_those_of_the_best_step(tmp_path):
  """As a run of so many steps with a constant learning rate has them."""
  row, text = run(small(), tmp_path / 'all')
  steps = row['best_steps']['student']
  measured = row['summary'][-1]
  assert measured['metric'] == 'validation/nll'
  assert set(steps) <= set(measured['step'])
  assert min(steps) < 24, 'else the last step would do'
  note = f'student: best steps {steps[0]}, {steps[1]} of 24 on validation (nll)'
  assert f'{note}, restored' in row['notes']
  assert 'students/student: best steps' in text

  whole = net(tmp_path / 'all')
  for member, step in enumerate(steps):
    other, text = run(small(metric='', steps=step), tmp_path / str(step))
    assert 'best_steps' not in other
    assert 'best step' not in text
    short = net(tmp_path / str(step))
    for a, b in zip(*map(jax.tree.leaves, (whole, short)), strict=True):
      np.testing.assert_array_equal(a[member], b[member])


def test_training_ends_early(tmp_path):
  row, text = run(small(patience=1), tmp_path)
  last = row['summary'][-1]['step'][-1]
  assert last < 24
  assert f'training ended at step {last}' in text
  again, text = run(small(patience=1), tmp_path)
  assert again == row


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (small(metric='nil'), r"^train\.early_stopping\.metric: .*'nll'"),
    (small(metric='', patience=2), r'^train\.early_stopping\.patience: name'),
    (small(patience=-1), r'^train\.early_stopping\.patience: -1'),
  ],
)
def test_what_cannot_be(tmp_path, config, message):
  with pytest.raises(UserError, match=message):
    checks.prepare(config, tmp_path)


def test_arms_share_it(tmp_path):
  config = small()
  config['arms']['other'] = dict(train=dict(early_stopping=dict(metric='top1')))
  with pytest.raises(UserError, match=r'early_stopping: all arms share this'):
    checks.prepare(config, tmp_path)
