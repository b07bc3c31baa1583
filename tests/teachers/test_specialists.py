import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.errors import UserError
from jaxkd.teachers import specialists
from jaxkd.types import Net

K = 6


def predictions(pairs=((0, 1), (2, 3), (4, 5)), examples=600, doubt=0.4):
  """A generalist that takes the classes of a pair for each other."""
  random = np.random.default_rng(0)
  labels = random.integers(K, size=examples)
  partner = dict(pairs) | {b: a for a, b in pairs}
  p = np.full((examples, K), 1e-3)
  share = random.uniform(0, doubt, examples)
  p[np.arange(examples), labels] = 1 - share
  p[np.arange(examples), [partner[k] for k in labels]] = share
  return p / p.sum(1, keepdims=True), labels


def test_classes_that_are_confused_go_together():
  p, _ = predictions()
  subsets = specialists.clusters(p, 3, 2)
  found = {tuple(np.flatnonzero(own)) for own in subsets}
  assert found == {(0, 1), (2, 3), (4, 5)}


def test_sizes_are_kept_and_each_class_has_one_specialist():
  p, _ = predictions()
  for count, size in ((2, 2), (2, 5), (4, 3), (1, 1)):
    for by in specialists.CLUSTERS:
      subsets = specialists.clusters(p, count, size, by=by)
      assert subsets.shape == (count, K)
      assert subsets.sum(1).max() <= size
      assert subsets.sum() == min(K, count * size)
      assert subsets.sum(0).max() <= 1
  first, again, other = (
    specialists.clusters(p, 3, 2, by='random', seed=seed) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    ((0, 2, 'random'), '0 specialists for 6 classes'),
    ((7, 2, 'random'), '7 specialists for 6 classes'),
    ((2, 6, 'random'), '6 of 6 classes'),
    ((2, 0, 'random'), '0 of 6 classes'),
    ((2, 2, 'covarience'), "'covariance'"),
  ],
)
def test_what_makes_no_sense_is_refused(arguments, said):
  count, size, by = arguments
  with pytest.raises(UserError, match=said):
    specialists.clusters(predictions()[0], count, size, by=by)


def test_half_of_what_a_specialist_sees_is_its_own():
  _, labels = predictions()
  subsets = np.eye(K, dtype=bool)[:3]
  given = specialists.weights(labels, subsets, own=0.5)
  np.testing.assert_allclose(given.mean(1), 1, rtol=1e-5)
  special = subsets[:, labels]
  share = (given * special).sum(1) / given.sum(1)
  np.testing.assert_allclose(share, 0.5, rtol=1e-5)


def net():
  """Logits that are the inputs."""

  def apply(variables, inputs, *, key=None, train=False):
    logits = inputs * variables['params']
    return {'logits': logits, 'embedding': inputs}, variables['state']

  def init(key):
    return {'params': jnp.ones(()), 'state': {'calls': jnp.zeros(())}}

  return Net(init, apply)


def test_the_bias_makes_a_specialist_honest_again():
  """What learns the oversampled frequencies gives the true ones."""
  _, labels = predictions()
  subset = np.isin(np.arange(K), [0, 1])
  given = specialists.weights(labels, subset[None])[0]
  counts = np.bincount(labels, weights=given, minlength=K)
  inside = np.log(np.where(subset, counts, 1))
  logits = np.append(inside, np.log(counts[~subset].sum()))
  own = specialists.specialist(net(), K)
  variables = own.init(jax.random.key(0))
  variables['state']['specialist'] = {
    'subset': jnp.asarray(subset, jnp.float32),
    'dustbin': specialists.dustbin_bias(labels, subset[None])[0],
  }
  x = jnp.asarray(logits[None], jnp.float32)
  outputs, _ = own.apply(variables, x)
  got = jax.nn.softmax(outputs['specialist'])[0]
  true = np.bincount(labels, minlength=K) / len(labels)
  want = np.append(np.where(subset, true, 0), true[~subset].sum())
  np.testing.assert_allclose(got, want, atol=1e-5)
  in_training, _ = own.apply(variables, x, train=True)
  np.testing.assert_allclose(in_training['specialist'][0, K], logits[K], 1e-5)
  assert set(outputs) == {'specialist', 'subset', 'embedding'}


def test_labels_of_others_are_the_dustbin():
  logits = np.random.default_rng(1).normal(size=(4, K + 1)).astype(np.float32)
  inside = np.array([True, False, True, False, False, False, True])
  logits = np.where(inside, logits, specialists.OUTSIDE).astype(np.float32)
  labels = np.array([0, 1, 2, 5])
  got = specialists.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
  p = np.exp(logits[:, inside])
  p /= p.sum(1, keepdims=True)
  places = [0, 2, 1, 2]  # among the class 0, the class 2 and the dustbin
  np.testing.assert_allclose(got, -np.log(p[np.arange(4), places]), rtol=1e-5)


def test_a_generalist_and_specialists_predict_as_the_loss_library_says():
  random = np.random.default_rng(2)
  generalist = random.normal(size=(5, K)).astype(np.float32)
  subsets = np.zeros((2, K), bool)
  subsets[0, [1, 4]], subsets[1, [0, 2, 5]] = True, True
  raw = random.normal(size=(2, 5, K + 1)).astype(np.float32)
  known = np.pad(subsets, ((0, 0), (0, 1)), constant_values=True)[:, None]
  known = np.pad(subsets, ((0, 0), (0, 1)), constant_values=True)[:, None]
  masked = np.where(known, raw, specialists.OUTSIDE).astype(np.float32)
  subset = np.broadcast_to(subsets[:, None], (2, 5, K)).astype(np.float32)
  got = specialists.fuse(
    jnp.asarray(generalist),
    {'specialist': jnp.asarray(masked), 'subset': jnp.asarray(subset)},
  )
  packed = np.zeros((2, 5, 4), np.float32)
  packed[0, :, :2], packed[1, :, :3] = raw[0][:, [1, 4]], raw[1][:, [0, 2, 5]]
  packed[..., 3] = raw[..., K]
  want = losses.fuse_specialists(
    jnp.asarray(generalist), jnp.asarray(packed), jnp.asarray(subsets)
  )
  np.testing.assert_allclose(got['logits'], want, rtol=1e-4, atol=1e-5)
  top = generalist.argmax(1)
  np.testing.assert_array_equal(got['covered'], subsets[:, top].sum(0))
