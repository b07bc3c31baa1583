"""Models that are fitted see what a net would, and then are nets as others."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import jaxkd
from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.run import pipeline
from jaxkd.train import checkpoint

MET = []


class Means(nnx.Module):
  """The nearest of the classes' means."""

  def __init__(self, *, num_classes, input_shape, rngs):
    del rngs
    self.means = nnx.Param(jnp.zeros((num_classes, input_shape[-1])))

  def __call__(self, x):
    gaps = x[:, None] - self.means[...][None]
    return -(gaps**2).sum(-1)

  @staticmethod
  def fit(inputs, labels, ids, *, num_classes, seed):
    MET.append((inputs, labels, ids, seed))
    means = [inputs[labels == k].mean(0) for k in range(num_classes)]
    return {'params': {'means': np.stack(means)}, 'state': {}}


def config(**changes):
  made = configs.plain(
    configs.complete(
      dict(
        name='small',
        data=dict(
          source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
        ),
        teachers=dict(
          main=dict(model='mlp', kw=dict(widths=(8, 6)), per_seed=True),
          other=dict(model='mlp', kw=dict(widths=(5,))),
          means=dict(
            model=f'{__name__}:Means',
            reads=('main', 'layers/0', 'other', 'embedding'),
            per_seed=True,
          ),
          both=dict(made_of=('means', 'main')),
        ),
        students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
        distill=dict(
          labels=dict(loss='cross_entropy'),
          soft=dict(loss='kl', teacher='both'),
        ),
        report=dict(compare=dict(better='student', than='teacher means')),
        train=dict(steps=6, seeds=2, batch_size=8, members='vmap'),
      )
    )
  )
  for entry, value in changes.items():
    made = configs.put(made, entry.replace('__', '.'), value)
  return made


def run(directory, **changes):
  return pipeline.run(
    config(**changes), directory, console=Console(file=io.StringIO())
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  MET.clear()
  directory = tmp_path_factory.mktemp('fitted')
  return directory, run(directory), list(MET)


def test_it_is_given_all_that_a_net_would_meet(finished):
  directory, _, met = finished
  assert len(met) == 2  # seeds
  own, _ = checkpoint.load(directory / 'nets/teachers/main')
  shared, _ = checkpoint.load(directory / 'nets/teachers/other')
  source = jaxkd.data.sources.load(
    'synthetic', shape=(4, 4, 1), num_classes=3, size=120
  )
  assert len({seed for *_, seed in met}) == 2
  for member, (inputs, labels, ids, _) in enumerate(met):
    assert inputs.shape == (48, 8 + 5)
    fields = source.splits['train'].fetch(ids)
    np.testing.assert_array_equal(labels, fields['labels'])
    pixels = fields['inputs'].reshape(48, -1)
    for tree, index, found in (
      (own, member, inputs[:, :8]),
      (shared, 0, inputs[:, 8:]),
    ):
      layer = tree['params']['layers']['0']['linear']
      kernel, bias = layer['kernel'][index], layer['bias'][index]
      hidden = np.maximum(pixels @ np.asarray(kernel) + np.asarray(bias), 0)
      np.testing.assert_allclose(found, hidden, rtol=1e-4, atol=1e-5)


def test_it_is_measured_put_together_and_stored_as_nets_are(finished):
  directory, row, met = finished
  assert len(row['arms']['teacher means']['values']) == 2
  assert len(row['arms']['teacher both']['values']) == 2
  net, variables = jaxkd.load(directory / 'nets/teachers/means')
  inputs, labels, *_ = met[0]
  means = np.stack([inputs[labels == k].mean(0) for k in range(3)])
  np.testing.assert_allclose(variables['params']['means'], means, rtol=1e-6)
  logits = net.apply(variables, inputs)[0]['logits']
  expected = -((inputs[:, None] - means[None]) ** 2).sum(-1)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_student_may_be_fitted_too(tmp_path):
  row = run(
    tmp_path,
    students__student__model=f'{__name__}:Means',
    students__student__kw={},
    students__student__reads=('other', 'embedding'),
    distill__soft__weight=0.0,
  )
  assert len(row['arms']['student']['values']) == 2
  _, variables = jaxkd.load(tmp_path)
  assert jax.tree.leaves(variables)[0].shape == (3, 5)


def test_what_it_does_not_look_at_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'distill.soft.teacher: students.stud'):
    run(
      tmp_path,
      students__student__model=f'{__name__}:Means',
      students__student__kw={},
      students__student__reads=('other', 'embedding'),
    )
