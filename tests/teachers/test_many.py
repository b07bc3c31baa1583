import io

import jax
import numpy as np
from rich.console import Console

from jaxkd import config as configs
from jaxkd import losses, models, pipeline
from jaxkd.data import sources
from jaxkd.teachers import many
from jaxkd.train import checkpoint


def predicted(net, variables, inputs):
  """Logits of each net, one after another, [T, B, K]."""
  count = len(jax.tree.leaves(variables)[0])
  alone = [jax.tree.map(lambda v, i=i: v[i], variables) for i in range(count)]
  return np.stack([net.apply(one, inputs)[0]['logits'] for one in alone])


def test_an_ensemble_gives_what_its_nets_give_together():
  net = models.build('mlp', num_classes=3, input_shape=(5,), widths=(4,))
  variables = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 3))
  x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
  each = predicted(net, variables, x)
  probabilities = np.exp(each) / np.exp(each).sum(-1, keepdims=True)
  outputs, _ = many.ensemble(net).apply(variables, x)
  got = jax.nn.softmax(outputs['logits'])
  np.testing.assert_allclose(got, probabilities.mean(0), rtol=1e-5)
  outputs, _ = many.ensemble(net, losses.mean_logits).apply(variables, x)
  np.testing.assert_allclose(outputs['logits'], np.mean(each, 0), rtol=1e-5)


def test_a_row_has_the_teachers_alone_and_together(tmp_path):
  """For each seed: the mean over its teachers, and what they reach as one."""
  data = dict(
    source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
  )
  config = configs.complete(
    dict(
      name='small',
      data=data,
      teachers=dict(
        main=dict(model='mlp', kw=dict(widths=(8,)), count=3, per_seed=True)
      ),
      students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
      distill=dict(labels=dict(loss='cross_entropy')),
      report=dict(
        compare=dict(better='teacher ensemble', than='teacher'),
        controls=dict(student=dict(better='teacher', than='student')),
      ),
      train=dict(steps=6, seeds=2, batch_size=8, members='vmap'),
    )
  )
  row = pipeline.run(
    configs.plain(config), tmp_path, console=Console(file=io.StringIO())
  )
  variables, spec = checkpoint.load(tmp_path / 'nets' / 'teachers' / 'main')
  assert spec['members'] == 6
  net = models.build('mlp', num_classes=3, input_shape=(4, 4, 1), widths=(8,))
  test = sources.load(data['source'], **data['kw']).splits['test']
  fields = test.fetch(np.arange(len(test)))
  logits = predicted(net, variables, fields['inputs'])
  right = logits.argmax(-1) == fields['labels']
  np.testing.assert_allclose(
    row['arms']['teacher']['values'], right.reshape(2, -1).mean(1), rtol=1e-5
  )
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  together = p.reshape(2, 3, *p.shape[1:]).mean(1).argmax(-1)
  np.testing.assert_allclose(
    row['arms']['teacher ensemble']['values'],
    (together == fields['labels']).mean(1),
    rtol=1e-5,
  )
