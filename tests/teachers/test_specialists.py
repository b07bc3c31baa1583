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


def test_a_class_can_have_several_specialists():
  p, _ = predictions()
  for count, size, overlap in ((3, 4, 2), (4, 4, 2), (3, 5, 3)):
    for by in specialists.CLUSTERS:
      subsets = specialists.clusters(p, count, size, by=by, overlap=overlap)
      assert subsets.sum(1).max() <= size
      assert subsets.sum(0).max() == overlap
      assert subsets.any(1).all()


def test_no_specialist_is_without_a_class_and_no_class_without_one():
  p, _ = predictions()
  for seed in range(30):
    # Room for more than there are: the first would take them all.
    subsets = specialists.clusters(p, 5, 5, by='random', seed=seed)
    assert subsets.any(1).all()
    few = dict(by='random', seed=seed, overlap=3)
    subsets = specialists.clusters(p, 3, 2, **few, cover=True)
    assert subsets.any(0).all()
    if not specialists.clusters(p, 3, 2, **few).any(0).all():
      break
  else:
    pytest.fail('without the wish, some class is left out sometimes')


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    (dict(overlap=0), r'overlap: a class in 0 of 2 subsets; use 1 to 2'),
    (dict(overlap=3), r'overlap: a class in 3 of 2 subsets'),
    (dict(cover=True), r'cover: 2 specialists for 2 classes each leave'),
  ],
)
def test_subsets_that_cannot_be(options, said):
  with pytest.raises(UserError, match=rf'^teachers\.few\.specialize\.{said}'):
    specialists.clusters(
      predictions()[0], 2, 2, at='teachers.few.specialize', **options
    )


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


@pytest.mark.parametrize('most', [None, 2])
def test_improvement_by_the_number_of_specialists(most):
  random = np.random.default_rng(3)
  labels = np.arange(40) % K
  generalist = random.normal(size=(40, K)) + 1.5 * np.eye(K)[labels]
  subsets = np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0]], np.float32)
  known = np.pad(subsets, ((0, 0), (0, 1)), constant_values=1)[:, None] > 0
  logits = random.normal(size=(2, 40, K + 1))
  logits[:, np.arange(40), labels] += 3
  group = {
    'specialist': np.where(known, logits, specialists.OUTSIDE),
    'subset': np.broadcast_to(subsets[:, None], (2, 40, K)),
  }
  group = {name: jnp.asarray(x, jnp.float32) for name, x in group.items()}
  outputs = specialists.fuse(
    jnp.asarray(generalist, jnp.float32), group, most=most
  )
  where = np.arange(40) < 36
  batch = {'labels': jnp.asarray(labels), 'where': jnp.asarray(where)}
  found = {
    name: metric.value(*map(np.asarray, metric.measure(outputs, batch, {})))
    for name, metric in specialists.metrics(2).items()
  }
  after = np.asarray(outputs['logits']).argmax(-1) == labels
  before = generalist.argmax(-1) == labels
  assert after[where].sum() > before[where].sum()
  for number, held in enumerate(([3, 5], [1, 2, 4], [0])):
    mine = where & np.isin(labels, held)
    want = (after[mine].sum() - before[mine].sum()) / before[mine].sum()
    got = found[f'improvement_in_{number}']
    np.testing.assert_allclose(got, want, rtol=1e-5)
    share = mine.sum() / where.sum()
    np.testing.assert_allclose(found[f'in_{number}'], share, rtol=1e-5)
  want = (after[where].sum() - before[where].sum()) / before[where].sum()
  np.testing.assert_allclose(found['improvement'], want, rtol=1e-5)
  nobody = batch | {'where': jnp.zeros(40, bool)}
  metric = specialists.metrics(2)['improvement_in_2']
  pair = map(np.asarray, metric.measure(outputs, nobody, {}))
  assert np.isnan(metric.value(*pair))
