import io

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from rich.console import Console

import jaxkd
from jaxkd.data import sources
from jaxkd.distill.roles import Group, Role
from jaxkd.report import system
from jaxkd.run import config as configs
from jaxkd.run import pipeline
from jaxkd.teachers import mixture


def test_the_weights_are_those_that_make_the_labels_most_likely():
  random = np.random.default_rng(0)
  logs = np.log(random.dirichlet(np.ones(4), size=(3, 200))[..., 0])
  got = mixture.proportions(logs)

  def negative(scores):
    weights = np.exp(scores - scores.max())
    return -np.log(weights / weights.sum() @ np.exp(logs)).mean()

  best = scipy.optimize.minimize(negative, np.zeros(3), tol=1e-10)
  assert negative(np.log(got)) <= best.fun + 1e-7
  want = np.exp(best.x) / np.exp(best.x).sum()
  np.testing.assert_allclose(got, want, atol=2e-3)
  np.testing.assert_allclose(got.sum(), 1, rtol=1e-6)


def test_a_teacher_that_knows_takes_it_all_and_likes_share():
  good, bad = np.full(50, -0.1), np.full(50, -3000.0)
  got = mixture.proportions(np.stack([good, bad, good]))
  np.testing.assert_allclose(got, [0.5, 0, 0.5], atol=1e-5)
  same = mixture.proportions(np.tile(np.full(50, -1e5), (4, 1)))
  np.testing.assert_allclose(same, 0.25, rtol=1e-6)


def test_the_weights_have_the_shapes_that_they_will_have():
  def group(*lead):
    shape = jax.ShapeDtypeStruct((*lead, 7), jnp.float32)
    return Group(Role(None), {'params': shape, 'state': {}}, len(lead) > 1)

  for parts, want in (
    ([group(3)], (3,)),
    ([group(3), group(2)], (5,)),
    ([group(4, 3)], (4, 3)),
    ([group(3), group(4, 2)], (4, 5)),
  ):
    found = mixture.shapes(parts)
    assert found.variables['params']['weight'].shape == want
    assert found.per_member == (len(want) > 1)


DATA = dict(
  source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=150)
)


def config():
  net = dict(model='mlp', kw=dict(widths=(4,)))
  soft = dict(
    loss='kl', teacher='few', fuse='mean_logits', fuse_weights='validation'
  )
  return configs.plain(
    configs.complete(
      dict(
        name='small',
        data=DATA,
        teachers=dict(
          few=dict(**net, count=3, per_seed=True),
          two=dict(**net, count=2),
          # Its own term is weighed too, before the students are taught.
          assistant=dict(**net, per_seed=True, distill=dict(soft=soft)),
        ),
        students=dict(student=net),
        distill=dict(soft=soft, labels=dict(loss='cross_entropy')),
        arms=dict(
          student=dict(distill=dict(soft=dict(teacher=('two', 'few')))),
          distilled={},
        ),
        train=dict(
          steps=8, seeds=2, batch_size=8, members='vmap', learning_rate=0.05
        ),
      )
    )
  )


def test_a_run_weighs_the_teachers_of_each_seed(tmp_path):
  console = Console(file=io.StringIO())
  row = pipeline.run(config(), tmp_path, console=console)
  assert set(row['weights']) == {'few', 'two+few'}
  validation = sources.load(DATA['source'], **DATA['kw']).splits['validation']
  fields = validation.fetch(np.arange(len(validation)))

  def of_labels(group, member):
    folder = tmp_path / 'nets' / 'teachers' / group
    net, variables = jaxkd.load(folder, member=member)
    logits = net.apply(variables, fields['inputs'])[0]['logits']
    log_p = np.asarray(jax.nn.log_softmax(logits))
    return log_p[np.arange(len(log_p)), fields['labels']]

  for seed in range(2):
    few = [of_labels('few', 3 * seed + i) for i in range(3)]
    two = [of_labels('two', i) for i in range(2)]
    for name, parts in (('few', few), ('two+few', two + few)):
      want = mixture.proportions(np.stack(parts))
      np.testing.assert_allclose(row['weights'][name][seed], want, atol=1e-3)
  assert np.ptp(row['weights']['few']) > 0.05
  assert 'found on validation, go from 0.' in system.page(row)
  # Found again, they are the same to the last bit, and the students too.
  (tmp_path / 'row.json').unlink()
  again = pipeline.run(config(), tmp_path, console=console)
  for entry in ('weights', 'arms', 'metrics'):
    assert again[entry] == row[entry]
