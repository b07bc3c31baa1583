import numpy as np
import pytest
from sklearn import metrics, neighbors

from jaxkd.run import config as configs
from jaxkd.tasks import retrieval

random = np.random.default_rng(0)
LABELS = random.integers(0, 5, 700)
EMBEDDINGS = random.normal(size=(700, 4)) + 1.5 * np.eye(5, 4)[LABELS]
BATCH = {'labels': LABELS}


def reached(name, embeddings=EMBEDDINGS):
  metric = retrieval.metrics('abcde')[name]
  fields = metric.measure({'embedding': embeddings}, BATCH, {})
  total, count = metric.whole(*fields)
  # As of two members.
  found = metric.value(np.stack([total] * 2), np.stack([count] * 2))
  assert found.shape == (2,)
  return found[0]


@pytest.mark.parametrize('k', [1, 2, 4, 8])
def test_recall_is_that_of_scikit_learn(k):
  nearest = neighbors.NearestNeighbors(n_neighbors=k).fit(EMBEDDINGS)
  found = nearest.kneighbors(return_distance=False)  # without the query itself
  want = (LABELS[found] == LABELS[:, None]).any(1).mean()
  assert reached(f'recall_at_{k}') == pytest.approx(want)


def test_recall_by_hand():
  line = np.array([[0.0], [1.0], [3.0], [3.5], [9.0]])
  labels = np.array([0, 1, 0, 1, 2])
  # Of those of another class, so many are nearer than the nearest of its own:
  # one, one, two, two; the last is alone.
  found = retrieval.recall(line, labels, (1, 2, 3, 9))
  np.testing.assert_allclose(found, [0, 0.4, 0.8, 0.8])


def test_embeddings_that_say_nothing_find_nothing():
  assert reached('recall_at_1', np.ones((700, 4))) == 0
  assert reached('nmi', EMBEDDINGS * 0 + random.normal(size=(700, 4))) < 0.05


def test_mutual_information():
  apart = 100 * np.eye(5)[LABELS] + random.normal(size=(700, 5))
  assert reached('nmi', apart) == pytest.approx(1)
  found = reached('nmi')
  assert found == reached('nmi')  # the clusters are seeded
  best = metrics.normalized_mutual_info_score(LABELS, np.argmax(EMBEDDINGS, 1))
  assert best / 2 < found < 1


@pytest.mark.parametrize('name', ['recall_at_1', 'nmi'])
def test_a_net_that_diverged_reaches_nothing(name):
  assert np.isnan(reached(name, np.full((700, 4), np.nan)))


def test_teachers_train_with_triplets_of_the_embedding():
  given = dict(task='retrieval', teachers=dict(main=dict(model='embedder')))
  labels = configs.complete(given)['teachers']['main']['distill']['labels']
  assert labels['loss'] == 'triplet'
  assert labels['at'] == ('embedding', 'embedding')
