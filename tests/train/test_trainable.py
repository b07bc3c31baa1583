"""What trains has gradients and an optimiser's state, and the rest has none."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from jaxkd.train import trainable

TREE = {
  'nets': {'a': {'w': jnp.arange(3.0), 'b': jnp.ones(2)}, 'c': jnp.zeros(4)},
  'terms': (jnp.full(5, 2.0), {}),
}


@pytest.mark.parametrize(
  ('still', 'sizes'),
  [
    (set(), [3, 2, 4, 5]),
    ({'nets/a/w', 'terms/0'}, [2, 4]),
    ({'nets/a/w', 'nets/a/b', 'nets/c', 'terms/0'}, []),
  ],
)
def test_both_sides_make_the_tree(still, sizes):
  trains, rest = trainable.split(TREE, still)
  assert sorted(x.size for x in jax.tree.leaves(trains)) == sorted(sizes)
  assert sum(len(jax.tree.leaves(side)) for side in (trains, rest)) == 4
  chex.assert_trees_all_equal(trainable.join(trains, rest), TREE)
  chex.assert_trees_all_equal(trainable.join(rest, trains), TREE)


def test_an_optimiser_keeps_state_for_what_trains():
  still = {'nets/a/w', 'terms/0'}
  trains, rest = trainable.split(TREE, still)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
  state = optimizer.init(trains)
  assert sum(x.size for x in jax.tree.leaves(state)) == 1 + 2 * (2 + 4)

  def loss(trains):
    whole = trainable.join(trains, rest)
    return sum(jnp.sum((x - 3) ** 2) for x in jax.tree.leaves(whole))

  gradients = jax.grad(loss)(trains)
  updates, _ = optimizer.update(gradients, state, trains)
  new = trainable.join(optax.apply_updates(trains, updates), rest)
  chex.assert_trees_all_equal_structs(new, TREE)
  chex.assert_trees_all_equal(new['nets']['a']['w'], TREE['nets']['a']['w'])
  assert (new['nets']['a']['b'] != TREE['nets']['a']['b']).all()
