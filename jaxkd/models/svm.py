"""Support vector machines: fitted by scikit-learn, applied here.

One machine for each class against the rest, with Platt's sigmoids from scores
to probabilities. They are models that are fitted rather than trained, see
`jaxkd.run.fitted`: they can read a layer of a net, be combined, evaluated,
stored and loaded, as nets can.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from scipy import optimize, special

from jaxkd.errors import UserError, unknown

KERNELS = ('linear', 'rbf')
NEVER = -30.0  # log-odds of a class without examples
# Of the optimality conditions. With libsvm's default of 1e-3 the last bits of
# the features would change the third decimal of scores.
TOLERANCE = 1e-5


class Model(nnx.Module):
  """Machines with a linear or a Gaussian kernel, on standardised features.

  Outputs: ``logits``, the logarithms of each class's probability against the
  rest, whose softmax shares them out over the classes; ``scores``, the
  machines' own, [B, K].

  Cortes and Vapnik, `Support-Vector Networks
  <https://doi.org/10.1007/BF00994018>`_, 1995; Platt, `Probabilistic Outputs
  for Support Vector Machines`, 1999.

  Args:
    num_classes: the number of machines.
    input_shape: of one input; of maps [H, W, C] and tokens [N, C] the mean
      over all places is taken where `pool` says so, and the rest is flattened.
    kernel: 'linear', or 'rbf', exp(-γ |x - y|²).
    costs: candidates for C, the cost of margin violations: each machine takes
      the one with the largest likelihood of the held-out examples.
    gamma: γ times the number of features.
    balanced: whether violations cost less where a class has many examples.
    folds: held-out parts whose scores Platt's sigmoids are fitted to.
    pool: whether to average over places.
    size: the most examples that a Gaussian machine is fitted to.
    rngs: unused; machines start from nothing.

  Raises:
    UserError: another kernel.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    kernel: str = 'linear',
    costs: Sequence[float] = (1.0,),
    gamma: float = 1.0,
    balanced: bool = True,
    folds: int = 5,
    pool: bool = False,
    size: int = 0,
    rngs: nnx.Rngs,
  ):
    del balanced, folds, rngs
    _check(kernel, costs, size)
    width = input_shape[-1] if pool else math.prod(input_shape)
    self.pool, self.gamma = pool, gamma / width

    def param(*shape, value=0.0):
      return nnx.Param(jnp.full(shape, value, jnp.float32))

    self.mean, self.scale = param(width), param(width, value=1.0)
    # Rows without a part in the machine have coefficients of 0.
    self.vectors = None if kernel == 'linear' else param(size, width)
    rows = width if kernel == 'linear' else size
    self.coefficients = param(rows, num_classes)
    self.intercept = param(num_classes)
    self.slope = param(num_classes, value=1.0)
    self.offset = param(num_classes)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = (_flat(x, self.pool) - self.mean[...][None]) / self.scale[...][None]
    if self.vectors is not None:
      x = gaussian(x, self.vectors[...], self.gamma)
    scores = x @ self.coefficients[...] + self.intercept[...][None]
    odds = self.slope[...][None] * scores + self.offset[...][None]
    return {'logits': jax.nn.log_sigmoid(odds), 'scores': scores}

  @staticmethod
  def fit(
    inputs: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    kernel: str = 'linear',
    costs: Sequence[float] = (1.0,),
    gamma: float = 1.0,
    balanced: bool = True,
    folds: int = 5,
    pool: bool = False,
    size: int = 0,
  ) -> dict[str, Any]:
    """The variables of machines for these examples.

    Args:
      inputs: [N, ...].
      labels: int [N].
      ids: of the examples that the inputs are copies of, int [N]: what is
        held out is held out in all its copies.
      num_classes: K.
      seed: of the folds.
      kernel: and the other options, see the class.
      costs: see there.
      gamma: see there.
      balanced: see there.
      folds: see there.
      pool: see there.
      size: see there.

    Raises:
      UserError: more examples than `size`, examples of one class alone, or
        fewer of a class than folds.
    """
    from sklearn.svm import SVC  # takes a second, which others need not spend

    _check(kernel, costs, size)
    x = np.asarray(_flat(inputs, pool), np.float64)
    if kernel == 'rbf' and len(x) > size:
      raise UserError(
        f'size: {len(x)} examples are met, and {size} can be held; set it to '
        f'{len(x)}'
      )
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    x = (x - mean) / scale
    held_out = _folds(labels, ids, folds, seed)
    options = {
      'kernel': kernel,
      'gamma': gamma / x.shape[1],
      'class_weight': 'balanced' if balanced else None,
      'tol': TOLERANCE,
    }
    rows = x.shape[1] if kernel == 'linear' else size
    coefficients = np.zeros((rows, num_classes))
    intercept, slope = np.zeros(num_classes), np.ones(num_classes)
    offset = np.full(num_classes, NEVER)
    for label in np.unique(labels):
      own, tried = labels == label, []
      for cost in costs:
        machine, scores = SVC(C=cost, **options), np.empty(len(x))
        for out in held_out:
          machine.fit(x[~out], own[~out])
          scores[out] = machine.decision_function(x[out])
        tried.append((*platt(scores, own), machine))
      slope[label], offset[label], _, machine = min(tried, key=lambda t: t[2])
      machine.fit(x, own)
      intercept[label] = machine.intercept_[0]
      if kernel == 'linear':
        coefficients[:, label] = machine.coef_[0]
      else:
        coefficients[machine.support_, label] = machine.dual_coef_[0]
    found = {
      'mean': mean,
      'scale': scale,
      'coefficients': coefficients,
      'intercept': intercept,
      'slope': slope,
      'offset': offset,
    }
    if kernel == 'rbf':
      found['vectors'] = np.zeros((size, x.shape[1]))
      found['vectors'][: len(x)] = x
    params = {name: jnp.asarray(v, jnp.float32) for name, v in found.items()}
    return {'params': params, 'state': {}}


def gaussian(x: Array, y: Array, gamma: float) -> Array:
  """exp(-γ |x - y|²) of all pairs of [B, D] and [N, D], [B, N]."""
  squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None]
  with jax.default_matmul_precision('highest'):
    distances = squares - 2 * x @ y.T
  return jnp.exp(-gamma * jnp.maximum(distances, 0))


def platt(
  scores: np.ndarray, positive: np.ndarray
) -> tuple[float, float, float]:
  """The sigmoid that makes probabilities of scores: its slope and offset.

  Platt's targets, (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), keep it from being sure
  of what few examples say.

  Args:
    scores: of examples that the machine has not seen, [N].
    positive: whether they are of its class, bool [N].

  Returns:
    a and b of 1 / (1 + exp(-(a s + b))), and the sum of the cross-entropies.
  """
  count = positive.sum()
  high, low = (count + 1) / (count + 2), 1 / (len(scores) - count + 2)
  target = np.where(positive, high, low)

  def loss(ab):
    z = ab[0] * scores + ab[1]
    gap = special.expit(z) - target
    value = (np.logaddexp(0, z) - target * z).sum()
    return value, np.array([gap @ scores, gap.sum()])

  start = np.array([1.0, np.log(count / (len(scores) - count))])
  found = optimize.minimize(loss, start, jac=True)
  return *found.x, found.fun


def _flat(x: Any, pool: bool) -> Any:
  """Features [B, D] of layers [B, ..., D]."""
  if pool and x.ndim > 2:
    x = x.mean(axis=tuple(range(1, x.ndim - 1)))
  return x.reshape(x.shape[0], -1)


def _folds(labels, ids, folds: int, seed: int) -> list[np.ndarray]:
  """Who is held out of each fold, bool [N]; copies of an example together."""
  known, first, copies = np.unique(ids, return_index=True, return_inverse=True)
  classes, counts = np.unique(labels[first], return_counts=True)
  if len(classes) < 2 or counts.min() < folds:
    raise UserError(
      f'folds: there are {min(counts)} examples of a class, and of each of two '
      f'classes or more there must be at least {folds}; take fewer folds or '
      'more data'
    )
  order = np.random.default_rng(seed).permutation(len(known))
  order = order[np.argsort(labels[first][order], kind='stable')]
  fold = np.empty(len(known), int)
  fold[order] = np.arange(len(known)) % folds
  return [fold[copies] == number for number in range(folds)]


def _check(kernel: str, costs: Sequence[float], size: int) -> None:
  if kernel not in KERNELS:
    raise unknown('kernel', kernel, KERNELS, 'svm: kernel')
  if not costs or min(costs) <= 0:
    raise UserError(f'svm: costs: {costs!r} should be numbers above 0')
  if kernel == 'rbf' and size < 1:
    raise UserError(
      'svm: size: a Gaussian machine keeps its examples; set it to how many '
      'there are, train.steps × train.batch_size'
    )
