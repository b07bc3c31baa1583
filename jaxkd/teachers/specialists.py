"""Specialists: nets for some of the classes, with one class for the rest.

A generalist confuses some classes with each other; a specialist for these is
a net with a dustbin, one more class for all others (Hinton et al., 2015,
section 5). Here a specialist has a logit for every class and the dustbin, and
those outside of its classes count for nothing, so that specialists of any
subsets are one population.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import losses
from jaxkd.errors import UserError, unknown
from jaxkd.tasks.metrics import counted, judged
from jaxkd.types import Metric, Net

CLUSTERS = ('covariance', 'random')
OUTSIDE = -1e9  # the logit of a class that a specialist does not know


def clusters(
  probabilities: np.ndarray,
  count: int,
  size: int,
  *,
  by: str = 'covariance',
  overlap: int = 1,
  cover: bool = False,
  seed: int = 0,
  at: str = 'specialists',
) -> np.ndarray:
  """Which classes each specialist is for.

  The columns of the covariance of a generalist's predictions show which classes
  it confuses. K-means finds groups of similar columns; since
  it leaves one huge group of well-recognised classes, a class goes to the
  nearest centres that have room for it. Where there is none, the class is left
  to the generalist. No specialist is left without a class.

  Args:
    probabilities: what the generalist predicts, [N, K].
    count: how many specialists.
    size: the most classes that one has, fewer than K.
    by: 'covariance', or 'random' for subsets of the same sizes as a control.
    overlap: in how many subsets a class can be.
    cover: whether every class is to be in one at least.
    seed: of the draws.
    at: the config entry, for error messages.

  Returns:
    bool [count, K].

  Raises:
    UserError: numbers that do not fit the number of classes.
  """
  classes = probabilities.shape[1]
  if not 1 <= count <= classes:
    raise UserError(
      f'{at}: {count} specialists for {classes} classes; use 1 to {classes}'
    )
  if not 1 <= size < classes:
    raise UserError(
      f'{at}: a specialist for {size} of {classes} classes; use 1 to '
      f'{classes - 1}'
    )
  if not 1 <= overlap <= count:
    raise UserError(
      f'{at}.overlap: a class in {overlap} of {count} subsets; use 1 to {count}'
    )
  if cover and count * size < classes:
    raise UserError(
      f'{at}.cover: {count} specialists for {size} classes each leave some of '
      f'{classes} to the generalist alone; take more of them, or larger ones'
    )
  if by not in CLUSTERS:
    raise unknown('way to choose classes', by, CLUSTERS, at)
  if by == 'random':
    distances = np.random.default_rng(seed).random((classes, count))
  else:
    covariance = np.cov(np.asarray(probabilities, np.float64).T)
    # A class's own variance says how often it comes, not what it is taken for.
    columns = covariance - np.diag(np.diag(covariance))
    length = np.linalg.norm(columns, axis=1, keepdims=True)
    columns = columns / np.maximum(length, 1e-12)
    from sklearn.cluster import KMeans  # slow to import

    found = KMeans(count, n_init=10, random_state=seed).fit(columns)
    distances = found.transform(columns)
  subsets = np.zeros((count, classes), bool)
  for nearest in np.argsort(distances, axis=None, kind='stable'):
    label, specialist = np.unravel_index(nearest, distances.shape)
    own, holders = subsets[specialist], subsets[:, label]
    # The last places are kept for who, and what, would go without.
    places = overlap * classes - subsets.sum()
    room = size * count - subsets.sum()
    idle = (~subsets.any(1)).sum()
    bare = (~subsets.any(0)).sum() if cover else 0
    if (
      own.sum() < size
      and holders.sum() < overlap
      and (not own.any() or places > idle)
      and (not holders.any() or room > bare)
    ):
      own[label] = True
  return subsets


def weights(
  labels: np.ndarray, subsets: np.ndarray, *, own: float = 0.5
) -> np.ndarray:
  """Sampling weights that give a specialist's own classes a fixed share.

  Args:
    labels: class of each example, int [N].
    subsets: bool [M, K].
    own: the share of examples of its own classes.

  Returns:
    float32 [M, N], of mean 1.
  """
  special = subsets[:, labels]
  share = special.mean(1, keepdims=True)
  each = np.where(special, own / share, (1 - own) / (1 - share))
  return each.astype(np.float32)


def dustbin_bias(
  labels: np.ndarray, subsets: np.ndarray, *, own: float = 0.5
) -> np.ndarray:
  """The bias of the dustbin's logit that undoes the oversampling.

  Training shows the special classes r times as often as the others do justice
  to, which takes log r from the dustbin.

  Args:
    labels: class of each example, int [N].
    subsets: bool [M, K].
    own: the share of examples of its own classes in training.

  Returns:
    log r, float32 [M].
  """
  share = subsets[:, labels].mean(1)
  return np.log(own / (1 - own) * (1 - share) / share).astype(np.float32)


def specialist(net: Net, classes: int) -> Net:
  """A net of K + 1 logits as a specialist.

  In its state, below ``specialist``, are ``subset``, float [K], 1 for its own
  classes (all, until it is set), and ``dustbin``, the bias of the dustbin's
  logit in evaluation.

  Outputs are ``specialist``, logits [B, K + 1] with the dustbin last, and
  ``subset``, [B, K]; the net's other outputs stay, but for its logits.

  Args:
    net: gives K + 1 logits.
    classes: K.
  """

  def init(key):
    variables = net.init(key)
    own = {
      'subset': jnp.ones((classes,), jnp.float32),
      'dustbin': jnp.zeros((), jnp.float32),
    }
    return {**variables, 'state': {**variables['state'], 'specialist': own}}

  def apply(variables, inputs, *, key=None, train=False):
    whole = dict(variables['state'])
    state = whole.pop('specialist')
    inner = {**variables, 'state': whole}
    outputs, new = net.apply(inner, inputs, key=key, train=train)
    logits = outputs.pop('logits').astype(jnp.float32)
    inside = state['subset'] > 0
    known = jnp.where(inside[None], logits[:, :classes], OUTSIDE)
    bias = 0.0 if train else state['dustbin']
    known = jnp.concatenate([known, logits[:, classes:] + bias], axis=1)
    subset = jnp.broadcast_to(state['subset'], (len(known), classes))
    outputs = {**outputs, 'specialist': known, 'subset': subset}
    return outputs, {**new, 'specialist': state}

  return net._replace(init=init, apply=apply)


def cross_entropy(logits: Array, labels: Array) -> Array:
  """The cross-entropy of a specialist: other classes' labels are its dustbin.

  Args:
    logits: as a specialist gives them, [B, K + 1].
    labels: int [B], from 0 to K - 1.

  Returns:
    The loss of each example, [B].
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
  dustbin = logits.shape[1] - 1
  target = jnp.where(own > OUTSIDE / 2, labels, dustbin)
  return losses.cross_entropy(logits, target)


def metrics(most: int = 1) -> dict[str, Metric]:
  """Of a generalist with its specialists, by who is covered by one.

  `covered` is the share of the examples whose class, as the generalist sees
  it, has a specialist, and `..._covered` the accuracy on them: of the
  generalist, and of all together. `improvement` is the relative one, how many
  more are right than of the generalist over its own number, also of the
  examples whose label is in 0, 1, ... subsets (the table of the paper), of
  which `in_0`, `in_1`, ... are the shares.

  Args:
    most: in how many subsets a class can be.
  """

  def share(outputs, batch, teachers):
    covered = judged(outputs['covered'] > 0, outputs['generalist'])
    return counted(covered, batch)

  def correct(outputs, name, labels):
    return judged(outputs[name].argmax(-1) == labels, outputs[name])

  def right(name):
    def measure(outputs, batch, teachers):
      where = batch.get('where', jnp.ones(batch['labels'].shape, bool))
      where &= outputs['covered'] > 0
      return counted(correct(outputs, name, batch['labels']), {'where': where})

    return measure

  def holders(outputs, batch):
    cover, labels = outputs['cover'], batch['labels']
    return jnp.take_along_axis(cover, labels[:, None], axis=1)[:, 0]

  def share_in(number):
    def measure(outputs, batch, teachers):
      return counted(holders(outputs, batch) == number, batch)

    return measure

  def improvement(number=None):
    def measure(outputs, batch, teachers):
      where = batch.get('where', jnp.ones(batch['labels'].shape, bool))
      if number is not None:
        where &= holders(outputs, batch) == number
      together, alone = (
        counted(correct(outputs, name, batch['labels']), {'where': where})
        for name in ('logits', 'generalist')
      )
      return together[0] - alone[0], alone[0]

    return measure

  found = {
    'covered': Metric(share, output='covered'),
    'top1_covered': Metric(right('logits'), _of_some, output='covered'),
    'generalist_top1_covered': Metric(
      right('generalist'), _of_some, output='covered'
    ),
    'improvement': Metric(improvement(), _of_some, output='covered'),
  }
  for number in range(most + 1):
    found |= {
      f'in_{number}': Metric(share_in(number), output='covered'),
      f'improvement_in_{number}': Metric(
        improvement(number), _of_some, output='covered'
      ),
    }
  return found


def _of_some(total: np.ndarray, count: np.ndarray) -> np.ndarray:
  """The mean over these examples; NaN if there are none."""
  nothing = np.full(np.shape(total), np.nan)
  return np.divide(total, count, out=nothing, where=count > 0)


def fuse(
  generalist: Array, group: Mapping[str, Array], *, most: int | None = None
) -> dict[str, Array]:
  """The fused prediction of a generalist and its specialists.

  Args:
    generalist: logits, [B, K].
    group: outputs of the specialists, each [M, B, ...].
    most: in how many subsets a class is at most, where that is known.

  Returns:
    ``logits``, [B, K], see ``losses.fuse_specialists``; ``cover``, in how many
    subsets each class is, [B, K]; ``covered``, in how many the generalist's
    first choice is, [B]; and ``generalist``, its logits.
  """
  logits = group['specialist']
  subsets = group['subset'][:, 0] > 0
  # Its own classes first, in ascending order, then what is not read.
  order = jnp.argsort(~subsets, axis=1, stable=True)[:, None]
  order = jnp.broadcast_to(order, (*logits.shape[:2], order.shape[-1]))
  own = jnp.take_along_axis(logits[..., :-1], order, axis=-1)
  packed = jnp.concatenate([own, logits[..., -1:]], axis=-1)
  cover = jnp.broadcast_to(subsets.sum(0), generalist.shape)
  fused = losses.fuse_specialists(generalist, packed, subsets, most=most)
  return {
    'logits': fused,
    'cover': cover,
    'covered': cover[0, generalist.argmax(-1)],
    'generalist': generalist,
  }
