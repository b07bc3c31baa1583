import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxkd.data import views
from jaxkd.distill import running_mean
from jaxkd.distill.roles import Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.models.net import from_linen, from_nnx
from jaxkd.run import config, terms
from jaxkd.students import compression
from jaxkd.tasks import classification
from jaxkd.types import Net

MOMENTUM, DECAY = 0.5, 0.75
APART = 'redraw|noise(0.3)'


class Dense(nnx.Module):
  def __init__(self, rngs):
    self.first = nnx.Linear(4, 5, rngs=rngs)
    self.norm = nnx.BatchNorm(5, momentum=MOMENTUM, rngs=rngs)
    self.last = nnx.Linear(5, 3, rngs=rngs)
    self.constant = nnx.Variable(jnp.ones(()))

  def __call__(self, x):
    return self.last(self.norm(self.first(x))) * self.constant.get_value()


class Convolutional(nnx.Module):
  def __init__(self, rngs):
    self.first = nnx.Conv(1, 5, (3,), rngs=rngs)
    self.norm = nnx.BatchNorm(5, momentum=MOMENTUM, rngs=rngs)
    self.last = nnx.Linear(5, 3, rngs=rngs)

  def __call__(self, x):
    return self.last(self.norm(self.first(x[..., None])).mean(1))


class OfLinen(linen.Module):
  @linen.compact
  def __call__(self, x, train):
    x = linen.Dense(5, name='first')(x)
    norm = linen.BatchNorm(
      use_running_average=not train, momentum=MOMENTUM, name='norm'
    )
    return linen.Dense(3, name='last')(norm(x))


INPUTS = jax.ShapeDtypeStruct((6, 4), jnp.float32)
NETS = {
  'nnx': lambda: from_nnx(lambda rngs: Dense(rngs), INPUTS),
  'convolutional': lambda: from_nnx(lambda rngs: Convolutional(rngs), INPUTS),
  'linen': lambda: from_linen(OfLinen(), INPUTS),
}
LABELS = dict(loss='cross_entropy')
SELF = dict(loss='logit_mse', teacher='average')


def learned(role, distill, batch, **recipe):
  complete = config.plain(
    config.complete({'distill': distill, 'students': {'student': {}}})
  )['distill']
  made = learner(
    System(
      {'student': role},
      {},
      lambda hyper: Recipe(
        terms.build(complete, ['student']), optax.sgd(0.5), **recipe
      ),
      jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),
      classification.metrics('abc'),
    )
  )
  return made, made.init(jnp.uint32(0), {}, {})


def statistics(state):
  return state.get('batch_stats', state)['norm']


def activations(params, inputs):
  """What is normalised, by the first layer of each of the nets."""
  kernel, bias = (np.asarray(params['first'][n]) for n in ('kernel', 'bias'))
  if kernel.ndim == 2:
    return inputs @ kernel + bias
  rows = np.pad(inputs, ((0, 0), (1, 1)))
  windows = np.stack([rows[:, i : i + 4] for i in range(3)], -1)
  return (windows @ kernel[:, 0] + bias).reshape(-1, 5)


@pytest.mark.parametrize('distill', [dict(labels=LABELS),
                                     dict(labels=LABELS, own=SELF)],
                         ids=['alone', 'teaching'])  # fmt: skip
@pytest.mark.parametrize('net', NETS)
def test_statistics_are_those_of_the_mean(net, distill, batch):
  role = Role(NETS[net](), average_view=APART)
  made, carry = learned(role, distill, batch, average=DECAY)
  place = {k: batch[k] for k in ('epoch', 'id')}
  inputs = views.apply(views.parse(APART), batch['inputs'], seed=0, **place)
  want = {'mean': np.zeros(5), 'var': np.ones(5)}
  run = jax.jit(made.step)
  for _ in range(4):
    x = activations(carry['average']['student'], np.asarray(inputs))
    for name, value in {'mean': x.mean(0), 'var': x.var(0)}.items():
      want[name] = MOMENTUM * want[name] + (1 - MOMENTUM) * value
    carry, _ = run(carry, batch, {}, {})
  found = running_mean.result(carry)['student']
  for name, value in want.items():
    got = statistics(found['state'])[name]
    np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-5)
    # The net itself has gone elsewhere.
    raw = statistics(carry['state']['nets']['student'])[name]
    assert np.abs(raw - got).max() > 1e-3
  # They are what the evaluation takes.
  logits = role.net.apply(found, batch['inputs'])[0]['logits']
  nll = -jax.nn.log_softmax(logits)[np.arange(6), batch['labels']].sum()
  measured = made.evaluate(carry, batch, {})['nll'][0]
  np.testing.assert_allclose(measured, nll, rtol=1e-5)


def test_it_is_the_plain_mean_until_the_decay_is_less(batch):
  """Of the parameters at the start and after each of the first steps."""
  made, carry = learned(
    Role(NETS['nnx']()), dict(labels=LABELS), batch, average=DECAY
  )
  run = jax.jit(made.step)
  kernels = [np.asarray(carry['train']['nets']['student']['last']['kernel'])]
  for step in range(1, 6):
    carry, _ = run(carry, batch, {}, {})
    now = np.asarray(carry['train']['nets']['student']['last']['kernel'])
    if step < 4:  # 3/4 of the old mean are the share of three of four
      kernels.append(now)
      want = np.mean(kernels, 0)
    else:
      want = DECAY * want + (1 - DECAY) * now
    got = carry['average']['student']['last']['kernel']
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_mean_changes_nothing_of_the_net(batch):
  role = Role(NETS['nnx']())
  (made, plain), (averaged, carry) = (
    learned(role, dict(labels=LABELS), batch, average=average)
    for average in (0.0, DECAY)
  )
  for _ in range(2):
    plain, _ = made.step(plain, batch, {}, {})
    carry, _ = averaged.step(carry, batch, {}, {})
  for name in ('train', 'opt'):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7),
      carry[name],
      plain[name],
    )
  assert plain['state']['average'] == {}


def test_each_copy_and_each_part_of_a_batch(batch):
  """The statistics of a copy go on from one part of the batch to the next."""
  role = Role(NETS['nnx'](), copies=2)
  made, carry = learned(
    role, dict(labels=LABELS), batch, average=DECAY, accumulate=3
  )
  for name in ('student/0', 'student/1'):  # the mean is not the net any more
    params = carry['average'][name]
    params['first'] = jax.tree.map(lambda x: 2 * x, params['first'])
  new, _ = made.step(carry, batch, {}, {})
  for name in ('student/0', 'student/1'):
    want = np.zeros(5)
    for part in np.split(batch['inputs'], 3):
      x = activations(carry['average'][name], part)
      want = MOMENTUM * want + (1 - MOMENTUM) * x.mean(0)
    got = new['state']['average'][name]
    assert set(got) == {'norm/mean', 'norm/var'}  # and not the constant
    np.testing.assert_allclose(got['norm/mean'], want, rtol=1e-4, atol=1e-5)


def test_a_net_without_statistics_has_one_forward_pass(batch):
  calls = []

  def apply(variables, inputs, *, key=None, train=False):
    calls.append(train)
    return {'logits': inputs @ variables['params']['w']}, variables['state']

  def init(key):
    state = {'constant': jnp.ones(2)}
    return {'params': {'w': jax.random.normal(key, (4, 3))}, 'state': state}

  made, carry = learned(
    Role(Net(init, apply)), dict(labels=LABELS), batch, average=DECAY
  )
  calls.clear()
  new, _ = made.step(carry, batch, {}, {})
  assert calls == [True]
  assert new['state']['average'] == {'student': {}}
  np.testing.assert_array_equal(
    running_mean.result(new)['student']['state']['constant'], [1, 1]
  )


def test_masks_are_those_of_the_net(batch):
  """They come of the weights that train, and the mean is stored with them."""
  net = NETS['nnx']()
  smaller = compression.compression(
    net, 'uniform(4)', 'magnitude(0.4, end=2)', steps=9, at='s'
  )
  role = Role(net, compression=smaller)
  made, carry = learned(role, dict(labels=LABELS), batch, average=DECAY)
  run = jax.jit(made.step)
  for _ in range(4):
    carry, _ = run(carry, batch, {}, {})
  assert set(carry['state']['average']['student']) == {'norm/mean', 'norm/var'}
  masks = carry['state']['nets']['student']['prune']
  found = running_mean.result(carry)['student']
  assert sum(int((~mask).sum()) for mask in masks.values()) > 0
  for path, mask in masks.items():
    np.testing.assert_array_equal(found['state']['prune'][path], mask)
