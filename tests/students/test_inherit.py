"""What a net takes over, parameter by parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.errors import UserError
from jaxkd.students import inherit


def variables(base, width=3, *, lead=()):
  """Two layers and what one of them remembers."""
  full = lambda shape, add: jnp.full((*lead, *shape), base + add)  # noqa: E731
  return {
    'params': {
      'stem': {'kernel': full((4, width), 0.0), 'bias': full((width,), 1.0)},
      'head': {'kernel': full((width, 2), 2.0)},
    },
    'state': {'stem': {'mean': full((width,), 3.0)}},
  }


OWN, FROZEN = variables(0.0), {'main': variables(10.0, lead=(1,))}


def start(init, own=OWN, frozen=FROZEN):
  return inherit.start(init, own, frozen, at='students.s.init')


def taken(made):
  """The paths of what is not the net's own."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, leaf in jax.tree_util.tree_leaves_with_path(made)
    if np.all(leaf >= 10)
  }


def test_a_net_starts_at_random_unless_asked():
  assert start('random') is OWN


@pytest.mark.parametrize(
  ('init', 'paths'),
  [
    ('main/head', {'params/head/kernel'}),
    ('main/head/kernel', {'params/head/kernel'}),
    ('main/*/kernel', {'params/head/kernel', 'params/stem/kernel'}),
    (
      'main/stem',
      {'params/stem/kernel', 'params/stem/bias', 'state/stem/mean'},
    ),
    (
      'main',
      {'params/head/kernel', 'params/stem/kernel', 'params/stem/bias',
       'state/stem/mean'},
    ),
  ],
)  # fmt: skip
def test_a_net_takes_over_what_matches(init, paths):
  made = start(init)
  assert taken(made) == paths
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, OWN)
  np.testing.assert_array_equal(OWN['params']['head']['kernel'], 2)


def test_layers_that_do_not_match_may_differ():
  own = variables(0.0, 5)
  own['params']['head']['kernel'] = jnp.zeros((3, 2))
  assert taken(start('main/head', own)) == {'params/head/kernel'}


@pytest.mark.parametrize('own', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('theirs', [jnp.float32, jnp.bfloat16])
def test_what_is_taken_over_has_the_precision_of_the_net(own, theirs):
  there = variables(jnp.asarray(1 / 3, theirs), lead=(1,))
  made = start('main', variables(jnp.zeros((), own)), {'main': there})
  want = jax.tree.map(lambda x: x[0].astype(own), there)
  jax.tree.map(np.testing.assert_array_equal, made, want)
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(own)}


@pytest.mark.parametrize(
  ('init', 'own', 'frozen', 'message'),
  [
    ('mian', OWN, FROZEN, r"way to start 'mian'.*'main'.*known: main, random"),
    ('main/haed', OWN, FROZEN, "no parameter 'haed'.*known: head/kernel"),
    ('main', variables(0.0, 5), FROZEN, r'\(5, 2\) here and \(3, 2\) in main'),
    ('main/stem', {'params': {'stem': {'k': jnp.ones(1)}}, 'state': {}},
     FROZEN, r'stem/k is \(1,\) here and missing in main'),
    ('main', OWN, {'main': jax.tree.map(jnp.int32, variables(1.0, lead=(1,)))},
     'is float32 here and int32 in main'),
    ('main', OWN, {'main': variables(1.0, lead=(2,))},
     r'main has 2 nets.*set teachers\.main\.count=1'),
  ],
)  # fmt: skip
def test_what_cannot_be_taken_over(init, own, frozen, message):
  with pytest.raises(UserError, match=rf'^students\.s\.init: .*{message}'):
    start(init, own, frozen)


@pytest.mark.parametrize(
  ('pattern', 'paths'),
  [
    ('', set()),
    ('head', {'head/kernel'}),
    ('stem', {'stem/kernel', 'stem/bias'}),
    ('*/kernel', {'stem/kernel', 'head/kernel'}),
    ('stem/b*', {'stem/bias'}),
    ('*', {'stem/kernel', 'stem/bias', 'head/kernel'}),
  ],
)
def test_what_is_frozen(pattern, paths):
  assert inherit.frozen(OWN['params'], pattern, at='students.s') == paths


def test_to_freeze_nothing_is_a_mistake():
  with pytest.raises(UserError, match=r"^students\.s\.freeze: .*'haed'"):
    inherit.frozen(OWN['params'], 'haed', at='students.s')
