"""Example weights, targets made from one teacher, and fusion of several.

Arrays in, arrays out: gates and weights multiply a loss, targets take the
place of a teacher's outputs. Where probabilities p are to stand in for a
teacher's logits, T log p are logits whose softmax at T is p. Classes at -inf
are as in ``responses``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd.losses import _checks, _numerics


def teacher_is_correct(teacher: Array, labels: Array) -> Array:
  """Whether the teacher's first choice is the label.

  The gate of conditional teacher-student learning: learn from the teacher
  where it is right, from the label where it is wrong.

  Args:
    teacher: logits v, [..., K].
    labels: class indices from 0 to K - 1, integers [...].

  Returns:
    The gate, bool [...]; false where the label is no class, or the logits are
    NaN, infinite or all -inf.

  Formula:
    argmax_k v_k = label, the first of equals

  References:
    Meng et al., `Conditional Teacher-Student Learning
    <https://arxiv.org/abs/1904.12399>`_, 2019

  Example:
    >>> teacher = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> teacher_is_correct(teacher, jnp.array([1, 1]))
    Array([ True, False], dtype=bool)

  Variants:
    - The paper's loss has no temperature on either branch.
  """
  _checks.arrays(
    teacher=(teacher, 'float[..., K]'), labels=(labels, 'int[...]')
  )
  right = jnp.argmax(teacher, axis=-1) == labels
  return right & _numerics.is_distribution(teacher)


def teacher_confidence(teacher: Array, *, where: Array | None = None) -> Array:
  """Confidence weights over the batch (CWTM).

  How much of distillation is a weighting of the examples by how sure the
  teacher is: these weights go on the cross-entropy to the labels.

  Args:
    teacher: logits v, [B, K].
    where: true for the examples that count, bool [B]; all by default.

  Returns:
    The weight of each example, [B], with mean 1 over those that count, and 0
    where padded.

  Formula:
    m_b / mean_a m_a, m = max_k softmax(v)_k

  References:
    Furlanello et al., `Born-Again Neural Networks
    <https://arxiv.org/abs/1805.04770>`_, 2018

  Example:
    >>> teacher = jnp.log(jnp.array([[0.5, 0.5], [0.0, 1.0]]))
    >>> round(teacher_confidence(teacher)[1].item(), 3)
    1.333

  Variants:
    - The paper's weights sum to 1 over the batch and the losses are summed;
      with mean 1 the losses are averaged, to the same value.
  """
  _checks.arrays(
    teacher=(teacher, 'float[B, K]'), where=(where, 'bool[B] or None')
  )
  teacher = _numerics.keep(where, _numerics.upcast(teacher))
  sure = _numerics.keep(where, jnp.max(jax.nn.softmax(teacher), axis=-1))
  return sure / (jnp.sum(sure) / _numerics.count(where, sure))


def permute_dark_knowledge(key: Array, teacher: Array) -> Array:
  """Dark knowledge with permuted predictions (DKPP).

  The teacher's first choice keeps its probability and the others are shuffled
  among the other classes, so that only how sure it was is left to teach.

  Args:
    key: draws the permutations, a PRNG key.
    teacher: logits v, [B, K].

  Returns:
    Probabilities, [B, K]; each row those of softmax(v) in another order. A
    class at -inf keeps its 0.

  Formula:
    p_{π(k)}, p = softmax(v), π a random permutation that leaves argmax p be,
    drawn for each example

  References:
    Furlanello et al., `Born-Again Neural Networks
    <https://arxiv.org/abs/1805.04770>`_, 2018

  Example:
    >>> teacher = jnp.log(jnp.array([[0.1, 0.7, 0.2]]))
    >>> shuffled = permute_dark_knowledge(jax.random.key(0), teacher)
    >>> round(shuffled[0, 1].item(), 3)
    0.7

  Variants:
    - One permutation for the whole batch would keep which classes go
      together, which is what the experiment removes.
  """
  _checks.arrays(teacher=(teacher, 'float[B, K]'))
  batch, classes = teacher.shape

  def shuffle(key, p, there):
    others = jnp.arange(classes - 1)
    others = jnp.where(others < jnp.argmax(p), others, others + 1)
    drawn = jax.random.permutation(key, others)

    def there_first(order):
      return order[jnp.argsort(~there[order], stable=True)]

    return p.at[there_first(others)].set(p[there_first(drawn)])

  teacher = _numerics.upcast(teacher)
  p, there = jax.nn.softmax(teacher), _numerics.classes(teacher)
  return jax.vmap(shuffle)(jax.random.split(key, batch), p, there)


def error_weights(errors: Array, *, gamma: float) -> Array:
  """Weights that fall with the error of the teacher's output.

  For sequences that a teacher has decoded: those that it got right count
  most.

  Args:
    errors: error rates, such as the word error rate of each hypothesis, any
      shape; 1.2 counts as 1, since insertions are not bounded.
    gamma: γ, at least 0. 0 weighs all alike, a large one keeps only what has
      no error.

  Returns:
    Weights, of the shape of ``errors``, from exp(-γ) to 1.

  Formula:
    exp(-γ min(max(error, 0), 1))

  References:
    Kim et al., `Knowledge Distillation Using Output Errors for Self-attention
    End-to-end Models <https://ieeexplore.ieee.org/document/8682775>`_, 2019

  Example:
    >>> error_weights(jnp.array([0.0, 1.0, 1.5]), gamma=0.0)
    Array([1., 1., 1.], dtype=float32)

  Variants:
    - Whether the weights are normalised over beam or batch differs; they are
      not here, so compare at equal total weight.
  """
  _checks.arrays(errors=(errors, 'float[...]'))
  _checks.non_negative(gamma=gamma)
  return jnp.exp(-gamma * jnp.clip(_numerics.upcast(errors), 0, 1))


def mean_probabilities(
  teachers: Array, *, temperature: float = 1.0, weights: Array | None = None
) -> Array:
  """Arithmetic mean of the teachers' softened probabilities.

  The output of an ensemble as one target: a class that any teacher believes
  in keeps some mass.

  Args:
    teachers: logits v, [T, ..., K], one row for each of T teachers.
    temperature: τ > 0 that divides them.
    weights: of the teachers, [T], or for each example [..., T], not below 0;
      over their sum. Equal by default.

  Returns:
    Probabilities, [..., K].

  Formula:
    Σ_t w_t softmax(v_t / τ) / Σ_t w_t

  References:
    Hinton et al., `Distilling the Knowledge in a Neural Network
    <https://arxiv.org/abs/1503.02531>`_, 2015

  Example:
    >>> teachers = jnp.log(jnp.array([[[0.5, 0.5]], [[1.0, 0.0]]]))
    >>> mean_probabilities(teachers)
    Array([[0.75, 0.25]], dtype=float32)

  Variants:
    - Averaging the losses to each teacher has the gradient of
      ``soft_cross_entropy`` to this mean, for equal weights.
    - Code that averages logits is ``mean_logits``.
  """
  teachers, weights = _ensemble(teachers, weights)
  _checks.positive(temperature=temperature)
  teachers = _numerics.soften(teachers, temperature)
  return _mean(jax.nn.softmax(teachers), weights)


def mean_logits(teachers: Array, *, weights: Array | None = None) -> Array:
  """Mean of the teachers' logits.

  Keeps what a softmax would forget, the size of the logits; a teacher with
  larger ones counts for more.

  Args:
    teachers: logits v, [T, ..., K], one row for each of T teachers.
    weights: of the teachers, [T], or for each example [..., T], not below 0;
      over their sum. Equal by default.

  Returns:
    Logits, [..., K]. Their softmax at any temperature is the
    ``geometric_mean`` at that temperature.

  Formula:
    Σ_t w_t v_t / Σ_t w_t

  References:
    Ba & Caruana, `Do Deep Nets Really Need to be Deep?
    <https://arxiv.org/abs/1312.6184>`_, 2014

  Example:
    >>> mean_logits(jnp.array([[[0.0, 4.0]], [[2.0, 0.0]]]))
    Array([[1., 2.]], dtype=float32)

  Variants:
    - Some code fuses scores before and some after the softmax; for nets whose
      logits differ in size that is another ensemble.
  """
  teachers, weights = _ensemble(teachers, weights)
  return _mean_of_logs(teachers, weights)


def geometric_mean(
  teachers: Array, *, temperature: float = 1.0, weights: Array | None = None
) -> Array:
  """Geometric mean of the teachers' softened probabilities, normalised.

  A vote with vetoes: a class needs some mass from every teacher.

  Args:
    teachers: logits v, [T, ..., K], one row for each of T teachers.
    temperature: τ > 0 that divides them.
    weights: of the teachers, [T], or for each example [..., T], not below 0;
      over their sum. Equal by default.

  Returns:
    Probabilities, [..., K].

  Formula:
    Π_t softmax(v_t / τ)^(w_t / Σ w), over its sum

  References:
    Hinton et al., `Distilling the Knowledge in a Neural Network
    <https://arxiv.org/abs/1503.02531>`_, 2015

  Example:
    >>> teachers = jnp.log(jnp.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
    >>> round(geometric_mean(teachers)[0, 0].item(), 3)
    0.75

  Variants:
    - Without the division by the sum, which some code leaves out, it is no
      distribution.
  """
  teachers, weights = _ensemble(teachers, weights)
  _checks.positive(temperature=temperature)
  teachers = _numerics.soften(teachers, temperature)
  return jax.nn.softmax(_mean_of_logs(teachers, weights))


def confidence_weights(teachers: Array, labels: Array) -> Array:
  """How much each teacher is believed about an example (CA-MKD).

  A teacher whose prediction is far from the label counts less there than the
  others do. The weights go into a fusion or on the losses to the teachers.

  Args:
    teachers: logits v, [T, ..., K], one row for each of T > 1 teachers.
    labels: class indices from 0 to K - 1, integers [...].

  Returns:
    The weights of the teachers for each example, [..., T], that sum to 1.

  Formula:
    (1 - exp(h_t) / Σ_s exp(h_s)) / (T - 1), h_t = -log softmax(v_t)_label

  References:
    Zhang et al., `Confidence-Aware Multi-Teacher Knowledge Distillation
    <https://arxiv.org/abs/2201.00007>`_, 2022

  Example:
    >>> teachers = jnp.log(jnp.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
    >>> (weights,) = confidence_weights(teachers, jnp.array([0])).tolist()
    >>> [round(weight, 2) for weight in weights]
    [0.75, 0.25]

  Variants:
    - No weight is above 1 / (T - 1), so many teachers that are mostly right
      count nearly alike. exp(-h_t) over its sum, what a mixture holds each of
      them responsible for, has no such bound.
    - The paper weighs hints too, by the labels' cross-entropy of the student's
      features under each teacher's classifier.
  """
  _checks.arrays(
    teachers=(teachers, 'float[T, ..., K]'), labels=(labels, 'int[...]')
  )
  if len(teachers) < 2:
    raise ValueError(f'teachers must be two or more, not {teachers.shape}')
  each = jax.nn.log_softmax(_numerics.upcast(teachers))
  label = jnp.broadcast_to(labels[None, ..., None], (*each.shape[:-1], 1))
  gap = -jnp.take_along_axis(each, label, axis=-1)[..., 0]
  # Teachers that rule the label out share all of the softmax among them.
  never = jnp.isposinf(gap)
  shares = never.astype(gap.dtype)
  some = jnp.sum(shares, axis=0, keepdims=True)
  doubted = jax.nn.softmax(jnp.where(never, 0, gap), axis=0)
  doubted = jnp.where(some > 0, shares / jnp.maximum(some, 1), doubted)
  weights = (1 - doubted) / (len(teachers) - 1)
  return jnp.moveaxis(weights, 0, -1)


def majority_vote(teachers: Array) -> Array:
  """The class that most teachers choose.

  Hard labels from several teachers. Ties, which a vote of four has often, go
  to the class of larger mean probability.

  Args:
    teachers: logits v, [T, ..., K], one row for each of T teachers.

  Returns:
    Class indices, int32 [...]; -1, which is no class, where some teacher's
    logits are NaN, infinite or all -inf.

  Formula:
    argmax_k Σ_t [argmax v_t = k], among equals argmax_k Σ_t softmax(v_t)_k

  References:
    Breiman, `Bagging Predictors
    <https://link.springer.com/article/10.1007/BF00058655>`_, 1996

  Example:
    >>> teachers = jnp.array([[[0.0, 1.0]], [[0.0, 1.0]], [[9.0, 0.0]]])
    >>> majority_vote(teachers)
    Array([1], dtype=int32)

  Variants:
    - ``numpy.argmax`` of the counts, as much code has it, gives every tie to
      the class of lower index.
  """
  teachers, weights = _ensemble(teachers, None)
  first = jax.nn.one_hot(
    jnp.argmax(teachers, axis=-1), teachers.shape[-1], dtype=jnp.int32
  )
  votes = jnp.sum(first, axis=0)
  mean = _mean(jax.nn.softmax(teachers), weights)
  winners = votes == jnp.max(votes, axis=-1, keepdims=True)
  found = jnp.argmax(jnp.where(winners, mean, -1), axis=-1).astype(jnp.int32)
  known = jnp.all(_numerics.is_distribution(teachers), axis=0)
  return jnp.where(known, found, -1)


def fuse_specialists(
  generalist: Array,
  specialists: Array,
  subsets: Array,
  *,
  active: Array | None = None,
  most: int | None = None,
  steps: int = 100,
) -> Array:
  """One distribution that agrees best with a generalist and its specialists.

  A specialist knows a subset of the classes and calls all others its dustbin.
  The fused distribution is the nearest to all of them at once, each compared
  at its own resolution.

  Args:
    generalist: logits, [B, K].
    specialists: logits, [M, B, S + 1], for each of M specialists its classes
      in ascending order, then padding that is not read where it has fewer
      than S, and the dustbin last (not read either where the subset is all
      of the classes).
    subsets: the classes of each specialist, bool [M, K], at most S each.
    active: who is asked about which example, bool [M, B]; by default those
      whose subset holds the generalist's first choice.
    most: how many specialists are asked about one example, at most, where that
      is known, as of subsets that share no class it is 1: nothing is computed
      for the others, which changes no value. All by default.
    steps: how many updates; the first is exact where no example has more than
      one active specialist; none makes it worse, and 100 leave less than 0.01
      nats even where sharp specialists contradict each other.

  Returns:
    Logits, [B, K], the logarithm of the fused distribution.

  Formula:
    argmin_q KL(p^g ‖ q) + Σ_m KL(p^m ‖ q^m), over the active m, q^m being q
    with its mass outside the subset summed into the dustbin

  References:
    Hinton et al., `Distilling the Knowledge in a Neural Network
    <https://arxiv.org/abs/1503.02531>`_, 2015

  Example:
    >>> generalist = jnp.log(jnp.array([[0.4, 0.4, 0.2]]))
    >>> specialists = jnp.log(jnp.array([[[0.6, 0.2, 0.2]]]))
    >>> subsets = jnp.array([[True, True, False]])
    >>> fused = fuse_specialists(generalist, specialists, subsets)
    >>> [round(p, 3) for p in jnp.exp(fused[0]).tolist()]
    [0.5, 0.3, 0.2]

  Variants:
    - The paper descends the gradient of the logits of q for each image. The
      problem is convex in q and this is its expectation-maximisation: no step
      size, and no step that makes it worse.
    - The dustbin's bias is the caller's: training over-represents a
      specialist's own classes by a factor r, so add log r to its logit.
  """
  sizes = _checks.arrays(
    generalist=(generalist, 'float[B, K]'),
    specialists=(specialists, 'float[M, B, S + 1]'),
    subsets=(subsets, 'bool[M, K]'),
    active=(active, 'bool[M, B] or None'),
  )
  _checks.integer(1, steps=steps)
  if most is not None:
    _checks.integer(1, most=most)
  _checks.last_axis(2, specialists=specialists)
  slots = sizes['S + 1'] - 1
  if not isinstance(subsets, jax.core.Tracer):
    largest = np.asarray(subsets).sum(axis=1).max(initial=0)
    if largest > slots:
      raise ValueError(
        f'subsets must have at most {slots} classes each, as specialists of '
        f'shape {specialists.shape} have room for, not {largest}'
      )
  subsets = jnp.asarray(subsets)
  if active is None:
    active = subsets[:, jnp.argmax(generalist, axis=-1)]
  if most is not None and not isinstance(active, jax.core.Tracer):
    largest = np.asarray(active).sum(axis=0).max(initial=0)
    if largest > most:
      raise ValueError(
        f'most must be {largest} or more, as many as are active for one '
        f'example, not {most}'
      )
  generalist, specialists = _numerics.upcast(generalist, specialists)
  log_g = jax.nn.log_softmax(generalist)

  # Spread each specialist over the K classes: inside its subset the class's
  # own log-probability, outside the dustbin's, to be shared out in step.
  filled = jnp.arange(slots)[None] < jnp.sum(subsets, axis=1, keepdims=True)
  filled = jnp.pad(filled, ((0, 0), (0, 1)), constant_values=True)[:, None]
  log_p = jax.nn.log_softmax(specialists, where=filled)
  slot = jnp.where(subsets, jnp.cumsum(subsets, axis=1) - 1, slots)
  slot = jnp.broadcast_to(slot[:, None], (*active.shape, slot.shape[1]))
  log_p = jnp.take_along_axis(log_p, slot, axis=-1)
  inside = jnp.broadcast_to(subsets[:, None], log_p.shape)
  asked = active[..., None]
  if most is not None and most < len(active):
    first = jnp.argsort(~active, axis=0, stable=True)[:most, :, None]
    pick = lambda x: jnp.take_along_axis(x, first, axis=0)  # noqa: E731
    log_p, inside, asked = pick(log_p), pick(inside), pick(asked)
  if most == 1:
    steps = 1  # at which it is exact

  def step(_, log_q):
    # The dustbin's mass goes to the outer classes in proportion to q.
    outer = jax.nn.log_softmax(
      jnp.broadcast_to(log_q, log_p.shape), where=~inside
    )
    spread = jnp.where(inside, log_p, log_p + outer)
    spread = jnp.where(asked, spread, -jnp.inf)
    whole = jnp.concatenate([log_g[None], spread])
    return jax.nn.log_softmax(_numerics.log_mass(whole, axis=0)[0])

  return jax.lax.fori_loop(0, steps, step, log_g)


def _ensemble(teachers, weights):
  """Checked, upcast logits and weights that sum to 1."""
  each = 'T' if weights is None or np.ndim(weights) == 1 else '..., T'
  _checks.arrays(
    teachers=(teachers, 'float[T, ..., K]'),
    weights=(weights, f'float[{each}] or None'),
  )
  if not len(teachers):
    raise ValueError(f'teachers must not be empty, not {teachers.shape}')
  teachers = _numerics.upcast(teachers)
  if weights is None:
    weights = jnp.ones(len(teachers), teachers.dtype)
  weights = jnp.asarray(weights, teachers.dtype)
  return teachers, weights / jnp.sum(weights, axis=-1, keepdims=True)


def _mean(values, weights):
  """The mean of [T, ..., K] under weights [T] or [..., T], [..., K]."""
  if weights.ndim == 1:
    return jnp.tensordot(weights, values, 1)
  return jnp.einsum('...t,t...k->...k', weights, values)


def _mean_of_logs(logs, weights):
  """`_mean`, -inf where a teacher that has a weight says so."""
  ruled_out = jnp.isneginf(logs)
  mean = _mean(jnp.where(ruled_out, 0, logs), weights)
  return jnp.where(
    _mean(ruled_out.astype(logs.dtype), weights) > 0, -jnp.inf, mean
  )
