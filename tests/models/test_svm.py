"""Support vector machines against scikit-learn's own pipelines."""

import jax
import numpy as np
import pytest
from sklearn import datasets, linear_model, pipeline, preprocessing, svm

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models.svm import NEVER, Model, platt

X, Y = datasets.load_wine(return_X_y=True)
X = X.astype(np.float32)
IDS = np.arange(len(X))


def fitted(inputs=X, labels=Y, ids=IDS, **kw):
  given = dict(num_classes=3, **kw)
  variables = Model.fit(inputs, labels, ids, seed=0, **given)
  net = models.build('svm', input_shape=inputs.shape[1:], **given)
  return net, variables


@pytest.mark.parametrize('kernel', ['linear', 'rbf'])
@pytest.mark.parametrize('balanced', [True, False])
def test_scores_are_scikit_learns(kernel, balanced):
  kw = dict(costs=(0.5,), balanced=balanced, size=200)
  net, variables = fitted(kernel=kernel, gamma=2.0, **kw)
  scores = jax.jit(net.apply)(variables, X)[0]['scores']
  for label in range(3):
    weight = 'balanced' if balanced else None
    options = dict(C=0.5, gamma=2 / 13, class_weight=weight, tol=1e-6)
    machine = pipeline.make_pipeline(
      preprocessing.StandardScaler(), svm.SVC(kernel=kernel, **options)
    ).fit(X, label == Y)
    expected = machine.decision_function(X)
    np.testing.assert_allclose(scores[:, label], expected, atol=1e-3)


def test_the_variables_are_those_of_the_net():
  for kernel in ('linear', 'rbf'):
    net, variables = fitted(kernel=kernel, size=200)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)


def test_probabilities_are_calibrated_on_what_was_held_out():
  random = np.random.default_rng(0)
  x = random.normal(size=(600, 4)).astype(np.float32)
  y = random.integers(3, size=600)  # there is nothing to learn
  net, variables = fitted(x, y, np.arange(600), kernel='rbf', size=600)
  logits = net.apply(variables, x)[0]['logits']
  assert abs(np.exp(logits) - 1 / 3).max() < 0.2


def test_platt_is_a_logistic_regression_on_softened_targets():
  random = np.random.default_rng(1)
  scores = random.normal(size=60)
  positive = scores + random.normal(size=60) > 0.4
  count = positive.sum()
  target = np.where(positive, (count + 1) / (count + 2), 1 / (60 - count + 2))
  regression = linear_model.LogisticRegression(C=1e9, tol=1e-9).fit(
    np.tile(scores, 2)[:, None],
    np.repeat([1, 0], 60),
    sample_weight=np.concatenate([target, 1 - target]),
  )
  expected = regression.coef_[0, 0], regression.intercept_[0]
  *found, loss = platt(scores, positive)
  np.testing.assert_allclose(found, expected, rtol=1e-3)
  p = 1 / (1 + np.exp(-(found[0] * scores + found[1])))
  cross = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum()
  np.testing.assert_allclose(loss, cross)


def test_the_cost_is_that_of_the_most_likely_held_out_labels():
  random = np.random.default_rng(4)
  y = np.arange(60) % 3
  noisy = random.normal(size=(60, 40)).astype(np.float32)
  noisy[:, 0] += 2 * y
  chosen = fitted(noisy, y, np.arange(60), costs=(100.0, 0.001))[1]
  alone = fitted(noisy, y, np.arange(60), costs=(0.001,))[1]
  np.testing.assert_array_equal(
    chosen['params']['coefficients'][:, 0],
    alone['params']['coefficients'][:, 0],
  )


def test_copies_of_an_example_are_held_out_together():
  random = np.random.default_rng(2)
  x = random.normal(size=(40, 30)).astype(np.float32)
  y = np.arange(40) % 2
  # Copies in other folds would be known by heart, and scores be sure.
  for ids, sure in ((np.tile(np.arange(40), 4), False), (np.arange(160), True)):
    net, variables = fitted(
      np.tile(x, (4, 1)),
      np.tile(y, 4),
      ids,
      kernel='rbf',
      size=160,
      costs=(10.0,),
    )
    logits = net.apply(variables, x)[0]['logits']
    p = np.exp(logits[np.arange(40), y])
    assert (p.mean() > 0.9) == sure


def test_a_class_without_examples_is_never_predicted():
  here = Y < 2
  net, variables = fitted(X[here], Y[here], IDS[here])
  logits = net.apply(variables, X)[0]['logits']
  assert (logits[:, 2] < NEVER + 1).all()


def test_places_are_averaged():
  random = np.random.default_rng(3)
  maps = random.normal(size=(60, 4, 5, 3)).astype(np.float32)
  labels = np.arange(60) % 3
  ids = np.arange(60)
  net, variables = fitted(maps, labels, ids, pool=True)
  means = maps.mean((1, 2))
  other, expected = fitted(means, labels, ids)
  np.testing.assert_allclose(
    net.apply(variables, maps)[0]['scores'],
    other.apply(expected, means)[0]['scores'],
    rtol=1e-3,
    atol=1e-3,
  )


@pytest.mark.parametrize(
  ('kw', 'said'),
  [
    (dict(kernel='rbf', size=100), 'set it to 178'),
    (dict(kernel='rbf'), 'train.steps'),
    (dict(kernel='cubic'), "no kernel 'cubic'"),
    (dict(costs=(0.0,)), 'above 0'),
    (dict(folds=60), 'fewer folds'),
    (dict(labels=np.zeros(178, int)), 'two classes'),
  ],
)
def test_what_cannot_be_fitted(kw, said):
  with pytest.raises(UserError, match=said):
    fitted(**kw)
