"""Losses on relations: how examples, channels or positions stand to each other.

The student may place its features where it likes as long as they keep the
teacher's distances, angles or similarities, so widths may differ. Relations
between examples need the global batch: their value depends on all of it, and
gradient accumulation would change it. Examples that only pad the batch are
named by ``where``: they get 0 and change nothing. Neither do the positions of
an example that do not count, named by ``valid``.
"""

import math

import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxkd.losses import _checks, _numerics, _pairwise, _pooling, _shapes


def rkd_distance(
  student: Array,
  teacher: Array,
  *,
  delta: float = 1.0,
  where: Array | None = None,
) -> Array:
  """Distance-wise relational knowledge distillation.

  Compares the pairwise distances inside the batch, each in units of their
  mean: the shape of the cloud of embeddings matters, not its size, place or
  orientation. Needs the global batch.

  Args:
    student: embeddings s, [B, Ds].
    teacher: embeddings t, [B, Dt].
    delta: δ > 0 where Huber's loss turns linear, in mean distances.
    where: [B] bool, false for examples that only pad the batch.

  Returns:
    The loss of each example against the batch, [B].

  Formula:
    1/B Σ_j huber_δ(|s_i - s_j| / μ_s - |t_i - t_j| / μ_t), μ the mean of the
    distances above 0, huber_δ(x) = x² / 2 up to δ and δ (|x| - δ / 2) beyond

  References:
    Park et al., `Relational Knowledge Distillation
    <https://arxiv.org/abs/1904.05068>`_, 2019

  Example:
    >>> student = jnp.array([[0.0], [1.0], [3.0]])
    >>> teacher = jnp.array([[0.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    >>> rkd_distance(student, teacher).round(4)
    Array([0.0104, 0.0208, 0.0104], dtype=float32)

  Variants:
    - The mean over the partners includes the example itself, as in the
      authors' code; the paper sums over pairs.
    - The authors' code, RepDistiller and torchdistill take distances from
      inner products and clamp the squares to 1e-12, so that duplicates enter
      μ as 1e-6; here their distance is 0 and does not enter.
    - mmrazor normalises the embeddings first; the paper does not.
  """
  _embeddings(student, teacher, where)
  _checks.positive(delta=delta)
  student, teacher = _numerics.upcast(student, teacher)
  loss = optax.losses.huber_loss(
    _relative_distances(student, where),
    _relative_distances(teacher, where),
    delta=delta,
  )
  return _mean_over_partners(loss, where)


def rkd_angle(
  student: Array,
  teacher: Array,
  *,
  delta: float = 1.0,
  where: Array | None = None,
) -> Array:
  """Angle-wise relational knowledge distillation.

  Compares the angle that every two examples span at every third: a relation
  of higher order than a distance, and as free of rotation, shift and scale.
  Needs the global batch. The B³ angles are made a few vertices at a time, so
  temporaries stay small.

  Args:
    student: embeddings s, [B, Ds].
    teacher: embeddings t, [B, Dt].
    delta: δ > 0 where Huber's loss turns linear, in units of the cosine.
    where: [B] bool, false for examples that only pad the batch.

  Returns:
    The loss of each example as the vertex of all its angles, [B].

  Formula:
    1/B² Σ_i Σ_k huber_δ(cos_s(i, j, k) - cos_t(i, j, k)) at vertex j, with
    cos_x(i, j, k) = ⟨x_i - x_j, x_k - x_j⟩ / (|x_i - x_j| |x_k - x_j|), 0
    where a difference is 0, and huber_δ as in ``rkd_distance``

  References:
    Park et al., `Relational Knowledge Distillation
    <https://arxiv.org/abs/1904.05068>`_, 2019

  Example:
    >>> student = jnp.array([[0.0], [1.0], [3.0]])
    >>> teacher = jnp.array([[1.0], [0.0], [3.0]])
    >>> rkd_angle(student, teacher)
    Array([0.33333334, 0.33333334, 0.        ], dtype=float32)

  Variants:
    - The mean over all B² pairs includes those with the vertex itself or
      twice the same example, as in the authors' code, RepDistiller and
      torchdistill; the paper sums over triples.
    - mmrazor normalises the embeddings first; the paper does not.
  """
  sizes = _embeddings(student, teacher, where)
  _checks.positive(delta=delta)
  student, teacher = _numerics.upcast(student, teacher)
  student, teacher = (
    _numerics.keep(where, student),
    _numerics.keep(where, teacher),
  )

  def at_vertex(vertex):
    loss = optax.losses.huber_loss(
      _cosines_at(vertex[0], student),
      _cosines_at(vertex[1], teacher),
      delta=delta,
    )
    return jnp.sum(_numerics.keep(where, _numerics.keep(where, loss).T))

  widest = sizes['B'] * max(sizes.values())
  loss = _pairwise.chunked(
    at_vertex, (student, teacher), temporary=widest * student.dtype.itemsize
  )
  return _numerics.keep(
    where, loss / jnp.square(_numerics.count(where, student))
  )


NEGATIVES = ('all', 'semi_hard', 'distance_weighted')
# Of distance-weighted sampling: nearer counts as this, farther as nothing.
_NEAREST, _FARTHEST = 0.5, 1.4


def triplet(
  student: Array,
  labels: Array,
  *,
  margin: float = 0.2,
  negatives: str = 'all',
  where: Array | None = None,
) -> Array:
  """Triplet loss of metric learning, from labels.

  An example, the anchor, should be nearer to one of its class, the positive,
  than to one of another, the negative, by a margin. All pairs of a class in
  the batch are taken, so no triplets have to be sampled beforehand; a batch
  needs several examples of a class. Needs the global batch.

  Args:
    student: embeddings x, [B, D].
    labels: class indices, integers [B].
    margin: m ≥ 0, in units of the distance.
    negatives: which ones a pair is compared with: 'all' alike; 'semi_hard',
      the nearest of those farther than the positive, or else the farthest;
      'distance_weighted', all, each as likely as distance-weighted sampling
      draws it, which is made for embeddings of length 1. No gradient passes
      through these likelihoods.
    where: [B] bool, false for examples that only pad the batch.

  Returns:
    The loss of each example as the anchor, [B]; their mean is that of all
    pairs. An example without a positive gets 0.

  Formula:
    B/P Σ_p Σ_n w_apn max(0, |x_a - x_p| - |x_a - x_n| + m) over the P pairs
    (a, p) of a class in the batch, Σ_n w_apn = 1; 'distance_weighted' has
    w_an ∝ δ^(2 - D) (1 - δ²/4)^((3 - D)/2), δ = max(½, |x_a - x_n|), for
    δ < 1.4, and equal ones where there is no such negative

  References:
    Schroff et al., `FaceNet: A Unified Embedding for Face Recognition and
    Clustering <https://arxiv.org/abs/1503.03832>`_, 2015; Wu et al., `Sampling
    Matters in Deep Embedding Learning <https://arxiv.org/abs/1706.07567>`_,
    2017

  Example:
    >>> student = jnp.array([[0.0], [1.0], [1.1]])
    >>> loss = triplet(student, jnp.array([0, 0, 1]))
    >>> [round(x, 3) for x in loss.tolist()]
    [0.15, 1.65, 0.0]

  Variants:
    - FaceNet squares the distances; here they are as in PyTorch's
      ``triplet_margin_loss`` and the code of relational distillation.
    - That code draws one negative for each pair by the likelihoods that
      'distance_weighted' takes the mean over.
    - Some code averages over the triplets whose loss is not 0; here all count.
  """
  sizes = _checks.arrays(
    student=(student, 'float[B, D]'),
    labels=(labels, 'int[B]'),
    where=(where, 'bool[B] or None'),
  )
  _checks.non_negative(margin=margin)
  _checks.one_of(NEGATIVES, negatives=negatives)
  student = _numerics.keep(where, _numerics.upcast(student))
  distances = _numerics.safe_sqrt(_pairwise.squared_distances(student))
  alike = labels[:, None] == labels[None, :]
  both = jnp.ones_like(alike)
  if where is not None:
    both = where[:, None] & where[None, :]
  positive = alike & both & ~jnp.eye(sizes['B'], dtype=bool)

  def of_anchor(rows):
    """The sum over its positives; without a negative there is no loss."""
    distance, positive, negative = rows
    if negatives == 'semi_hard':
      other = _semi_hard(distance, negative)
      each = _numerics.relu(distance - other + margin)
    else:
      weights = negative.astype(distance.dtype)
      if negatives == 'distance_weighted':
        weights = _likely(distance, negative, sizes['D'])
      weights /= jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)
      behind = distance[:, None] - distance[None, :] + margin
      each = jnp.sum(weights[None, :] * _numerics.relu(behind), axis=1)
    return jnp.sum(each, where=positive & jnp.any(negative))

  temporary = sizes['B'] ** 2 * student.dtype.itemsize
  loss = _pairwise.chunked(
    of_anchor, (distances, positive, ~alike & both), temporary=temporary
  )
  loss *= _finite(distances)  # of anchors without a positive too
  pairs = jnp.maximum(jnp.sum(positive, dtype=loss.dtype), 1)
  return loss * _numerics.count(where, student) / pairs


def similarity_preserving(
  student: Array,
  teacher: Array,
  *,
  where: Array | None = None,
  valid: Array | None = None,
) -> Array:
  """Similarity-preserving knowledge distillation.

  Inputs that excite the teacher alike should excite the student alike: what
  is compared is the similarity of an example with each of the batch, as a
  direction. Needs the global batch.

  Args:
    student: features, [B, ...], flattened to rows s.
    teacher: features, [B, ...], flattened to rows t; their shape is free.
    where: [B] bool, false for examples that only pad the batch.
    valid: [B, ...] bool, true at the positions that count, of both sides; all
      by default.

  Returns:
    The loss of each example against the batch, [B].

  Formula:
    1/B Σ_j (G_s(i, j) / |G_s(i, ·)| - G_t(i, j) / |G_t(i, ·)|)², with
    G_x(i, j) = ⟨x_i, x_j⟩

  References:
    Tung & Mori, `Similarity-Preserving Knowledge Distillation
    <https://arxiv.org/abs/1907.09682>`_, 2019

  Example:
    >>> student = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> teacher = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> similarity_preserving(student, teacher).round(3)
    Array([0.293, 0.293], dtype=float32)

  Variants:
    - torchdistill divides a row by the sum of its absolute values; the paper
      has the Euclidean norm, as here and in RepDistiller.
  """
  _checks.arrays(
    student=(student, _shapes.free(student, 'S')),
    teacher=(teacher, _shapes.free(teacher, 'T')),
    where=(where, 'bool[B] or None'),
  )
  student, teacher = _at_valid(valid, student, teacher)

  def similarities(x):
    x = _numerics.keep(where, x.reshape(len(x), -1))
    return _numerics.l2_normalize(_gram(x))

  student, teacher = _numerics.upcast(student, teacher)
  return _mean_over_partners(
    jnp.square(similarities(student) - similarities(teacher)), where
  )


def probabilistic_transfer(
  student: Array,
  teacher: Array,
  *,
  eps: float = 1e-7,
  where: Array | None = None,
) -> Array:
  """Probabilistic knowledge transfer (PKT).

  The similarities of an example with each of the batch, made a distribution,
  say which neighbour one would pick; the student's is drawn to the teacher's
  by the divergence between them. Needs the global batch.

  Args:
    student: embeddings s, [B, Ds].
    teacher: embeddings t, [B, Dt].
    eps: ε > 0 inside the logarithm.
    where: [B] bool, false for examples that only pad the batch.

  Returns:
    The loss of each example against the batch, in nats over B, [B].

  Formula:
    1/B Σ_j p_ij log((p_ij + ε) / (q_ij + ε)), with p_ij = k_ij / Σ_l k_il,
    k_ij = (cos(t_i, t_j) + 1) / 2, and q the same of s

  References:
    Passalis & Tefas, `Learning Deep Representations with Probabilistic
    Knowledge Transfer <https://arxiv.org/abs/1803.10837>`_, 2018

  Example:
    >>> student = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> teacher = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> probabilistic_transfer(student, teacher).round(4)
    Array([0.0294, 0.0294], dtype=float32)

  Variants:
    - The mean over a row, B times smaller than the divergence, is that of
      the authors' code, RepDistiller and torchdistill; the paper sums.
    - They also add ε to the norm of an embedding, 1e-7 of a unit norm.
  """
  _embeddings(student, teacher, where)
  _checks.positive(eps=eps)

  def neighbours(x):
    kernel = (_gram(_numerics.l2_normalize(_numerics.keep(where, x))) + 1) / 2
    kernel = _numerics.keep(where, kernel.T)
    return kernel / jnp.sum(kernel, axis=0, keepdims=True)

  student, teacher = _numerics.upcast(student, teacher)
  q, p = neighbours(student), neighbours(teacher)
  return _mean_over_partners((p * jnp.log((p + eps) / (q + eps))).T, where)


def correlation_congruence(
  student: Array,
  teacher: Array,
  *,
  kernel: str = 'gaussian',
  gamma: float = 0.4,
  order: int = 2,
  variant: str = 'paper',
  where: Array | None = None,
) -> Array:
  """Correlation congruence (CC).

  The correlations between the examples of a batch, under a kernel, should be
  the teacher's. The Gaussian kernel of unit vectors is expanded to a
  polynomial in their inner product. Needs the global batch.

  Args:
    student: embeddings, [B, Ds].
    teacher: embeddings, [B, Dt].
    kernel: 'gaussian', or 'bilinear' for the inner product itself.
    gamma: γ > 0 of the Gaussian ``exp(-γ |x - y|²)``.
    order: the highest power P of its expansion.
    variant: 'paper', or 'code' as below.
    where: [B] bool, false for examples that only pad the batch.

  Returns:
    The loss of each example against the batch, [B].

  Formula:
    1/B Σ_j (K_s(i, j) - K_t(i, j))² on rows x of length 1, with K_x(i, j) =
    exp(-2γ) Σ_{p=0..P} (2γ)^p / p! ⟨x_i, x_j⟩^p, or ⟨x_i, x_j⟩

  References:
    Peng et al., `Correlation Congruence for Knowledge Distillation
    <https://arxiv.org/abs/1904.01802>`_, 2019

  Example:
    >>> student = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> teacher = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> correlation_congruence(student, teacher).round(4)
    Array([0.1266, 0.1266], dtype=float32)

  Variants:
    - ``variant='code'`` is torchdistill's: the embeddings keep their length,
      and the norm of the whole difference is not squared, √(Σ_ij (·)²) / B²,
      the same for every example.
    - RepDistiller's loss of this name, received from the authors, is another:
      the mean inner product of the absolute differences ``|s - t|`` of
      neighbouring examples in the batch.
  """
  _embeddings(student, teacher, where)
  _checks.one_of(('gaussian', 'bilinear'), kernel=kernel)
  _checks.one_of(('paper', 'code'), variant=variant)
  _checks.positive(gamma=gamma)
  _checks.integer(1, order=order)

  def correlations(x):
    x = _numerics.keep(where, x)
    if variant == 'paper':
      x = _numerics.l2_normalize(x)
    products = _gram(x)
    if kernel == 'bilinear':
      return products
    powers = (
      (2 * gamma) ** p / math.factorial(p) * products**p
      for p in range(order + 1)
    )
    return jnp.exp(-2 * jnp.asarray(gamma, x.dtype)) * sum(powers)

  student, teacher = _numerics.upcast(student, teacher)
  # Rows that pad are 0 on both sides, so that their kernels are equal.
  square = jnp.square(correlations(student) - correlations(teacher))
  if variant == 'paper':
    return _mean_over_partners(square, where)
  norm = _numerics.safe_sqrt(jnp.sum(square))
  norm /= jnp.square(_numerics.count(where, square))
  return _numerics.keep(where, jnp.full(len(square), norm))


def inter_channel_correlation(
  student: Array,
  teacher: Array,
  *,
  where: Array | None = None,
  valid: Array | None = None,
) -> Array:
  """Inter-channel correlation knowledge distillation (ICKD).

  How the channels of a map correlate, pair by pair, says how diverse they
  are; the student keeps the teacher's pattern. A value of each example alone,
  which needs no global batch.

  Args:
    student: maps, [B, ..., C].
    teacher: maps, [B, ..., C]; their positions are free.
    where: [B] bool, false for examples that only pad the batch.
    valid: [B, ...] bool, true at the positions that count, of both sides; all
      by default.

  Returns:
    The loss of each example, [B].

  Formula:
    1/C Σ_cd (G_s(c, d) / |G_s(c, ·)| - G_t(c, d) / |G_t(c, ·)|)², with
    G_x(c, d) the inner product of channels c and d over the positions

  References:
    Liu et al., `Exploring Inter-Channel Correlation for Diversity-preserved
    Knowledge Distillation <https://arxiv.org/abs/2202.03680>`_, 2021

  Example:
    >>> student = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> teacher = jnp.array([[[1.0, 1.0], [0.0, 0.0]]])
    >>> inter_channel_correlation(student, teacher).round(3)
    Array([0.586], dtype=float32)

  Variants:
    - The authors' code divides the sum over the batch by C and B: the mean of
      this over the batch.
  """
  _checks.arrays(
    student=(student, _shapes.free(student, 'S', 'C')),
    teacher=(teacher, _shapes.free(teacher, 'T', 'C')),
    where=(where, 'bool[B] or None'),
  )
  student, teacher = _at_valid(valid, student, teacher)

  def correlations(x):
    x = _numerics.keep(where, x).reshape(len(x), -1, x.shape[-1])
    return _numerics.l2_normalize(_pairwise.einsum('bnc,bnd->bcd', x, x))

  student, teacher = _numerics.upcast(student, teacher)
  square = jnp.square(correlations(student) - correlations(teacher))
  return jnp.sum(square, axis=(1, 2)) / square.shape[-1]


def pairwise_affinity(
  student: Array,
  teacher: Array,
  *,
  pool: tuple | None = None,
  where: Array | None = None,
  valid: Array | None = None,
) -> Array:
  """Pair-wise distillation of the similarities between positions.

  Which places of an image belong together is what a segmentation teacher
  knows; the student's positions should be as similar to each other as the
  teacher's. A value of each example alone, which needs no global batch.

  Args:
    student: maps, [B, ..., Cs], of N positions.
    teacher: maps, [B, ..., Ct], of as many positions after pooling.
    pool: nodes in place of positions: ``('average', n)`` or ``('max', n)``
      pools to n by n of them (to n of [B, N, C]), ``('max', (h, w))`` to h by
      w; n need not divide the map.
    where: [B] bool, false for examples that only pad the batch.
    valid: [B, ...] bool, true at the positions that count, of both sides and
      without `pool`; all by default.

  Returns:
    The loss of each example, [B].

  Formula:
    1/N² Σ_ij (cos(s_i, s_j) - cos(t_i, t_j))² over pairs of positions

  References:
    Liu et al., `Structured Knowledge Distillation for Semantic Segmentation
    <https://arxiv.org/abs/1903.04197>`_, 2019

  Example:
    >>> student = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> teacher = jnp.array([[[1.0, 0.0], [1.0, 0.0]]])
    >>> pairwise_affinity(student, teacher)
    Array([0.5], dtype=float32)

  Variants:
    - The authors' code max-pools to a grid of 2 by 2 or 3 by 3 nodes and
      passes no gradient through the norms of the cosine; here it flows.
  """
  _checks.arrays(
    student=(student, _shapes.free(student, 'S', 'Cs')),
    teacher=(teacher, _shapes.free(teacher, 'T', 'Ct')),
    where=(where, 'bool[B] or None'),
  )
  if valid is not None and pool is not None:
    raise ValueError(f'pool must be None with valid, not {pool!r}')
  student, teacher = _at_valid(valid, student, teacher)
  maps = [
    _nodes(_numerics.keep(where, x), pool)
    for x in _numerics.upcast(student, teacher)
  ]
  _checks.arrays(
    student=(maps[0], 'float[B, N, Cs]'), teacher=(maps[1], 'float[B, N, Ct]')
  )
  inverses = [_inverse_length(x) for x in maps]

  def to_one(node):
    # Scaled behind the product, so that no map of unit vectors is kept.
    affinities = (
      _pairwise.einsum('bc,bnc->bn', x[:, node], x)
      * inverse[:, node, None]
      * inverse
      for x, inverse in zip(maps, inverses, strict=True)
    )
    return jnp.sum(jnp.square(jnp.subtract(*affinities)), axis=-1)

  batch, nodes, _ = maps[0].shape
  loss = _pairwise.chunked(
    to_one,
    jnp.arange(nodes),
    temporary=batch * nodes * maps[0].dtype.itemsize,
  )
  if valid is not None:
    nodes = jnp.sum(valid, axis=tuple(range(1, valid.ndim)), dtype=loss.dtype)
    nodes = jnp.maximum(nodes, 1)
  return jnp.sum(loss, axis=0) / nodes**2


def triplet_votes(
  student: Array,
  teachers: tuple[Array, ...],
  *,
  margin: float = 0.1,
  where: Array | None = None,
) -> Array:
  """Relative similarities between examples, as most teachers see them.

  Of two examples, teachers whose features have nothing in common can still
  say which is closer to a third. The student is to agree with the majority.
  Needs the global batch. The B³ triplets are made a few examples at a time.

  Args:
    student: embeddings s, [B, Ds].
    teachers: the embeddings t of each teacher, a tuple of [B, Dt]; their
      widths are free. No gradient reaches them: only their order counts.
    margin: δ of at least 0, by how much closer it should be, in mean
      distances of the student.
    where: [B] bool, false for examples that only pad the batch.

  Returns:
    The loss of each example as the one that others are closer to, [B].

  Formula:
    1/B² Σ_j Σ_k m² max(0, δ - m (d_ik - d_ij) / μ_s), j and k other than i,
    d_ij = |s_i - s_j|, μ_s the mean of the distances above 0, and m = sign(Σ_t
    sign(d^t_ik - d^t_ij)), 0 where the votes are equal

  References:
    You et al., `Learning from Multiple Teacher Networks
    <https://doi.org/10.1145/3097983.3098135>`_, 2017

  Example:
    >>> student = jnp.array([[0.0], [1.0], [3.0]])
    >>> same, other = student, jnp.array([[0.0], [3.0], [1.0]])
    >>> triplet_votes(student, (same, same, other), margin=0.0)
    Array([0., 0., 0.], dtype=float32)
    >>> loss = triplet_votes(student, (other,), margin=0.0)
    >>> [round(x, 3) for x in loss.tolist()]
    [0.222, 0.111, 0.111]

  Variants:
    - Distances here are in units of their mean, as in ``rkd_distance``, so
      that the margin does not depend on the size of the features.
  """
  _checks.arrays(
    student=(student, 'float[B, Ds]'),
    **{
      f'teachers[{i}]': (t, f'float[B, Dt{i}]') for i, t in enumerate(teachers)
    },
    where=(where, 'bool[B] or None'),
  )
  if not teachers:
    raise ValueError('teachers must have at least 1 teacher, not 0')
  _checks.non_negative(margin=margin)
  distances = _relative_distances(_numerics.upcast(student), where)
  seen = [
    _pairwise.squared_distances(_numerics.keep(where, _numerics.upcast(t)))
    for t in teachers
  ]
  others = ~jnp.eye(len(student), dtype=bool)
  if where is not None:
    others &= where[None]

  def of_one(distance, seen, others):
    votes = jnp.sign(seen[:, None, :] - seen[:, :, None])  # [T, j, k]
    majority = jnp.sign(jnp.sum(votes, axis=0))
    nearer = majority * (distance[None, :] - distance[:, None])
    counts = (majority != 0) & others[:, None] & others[None, :]
    return jnp.sum(jnp.maximum(margin - nearer, 0), where=counts)

  loss = _pairwise.chunked(
    lambda row: of_one(*row),
    (distances, jnp.stack(seen, axis=1), others),
    temporary=len(seen) * distances.size * distances.dtype.itemsize,
  )
  loss *= _finite(distances) * _finite(sum(seen))
  pairs = jnp.square(_numerics.count(where, distances))
  return _numerics.keep(where, loss / pairs)


def _embeddings(student, teacher, where):
  """Checks embeddings whose widths may differ."""
  return _checks.arrays(
    student=(student, 'float[B, Ds]'),
    teacher=(teacher, 'float[B, Dt]'),
    where=(where, 'bool[B] or None'),
  )


def _at_valid(valid, student, teacher):
  """Maps with 0 at positions that do not count, where some do not."""
  if valid is None:
    return student, teacher
  _checks.arrays(
    student=(student, 'float[B, ..., Cs]'),
    teacher=(teacher, 'float[B, ..., Ct]'),
    valid=(valid, 'bool[B, ...]'),
  )
  return _numerics.at_valid(valid, student, teacher)


def _gram(x):
  return _pairwise.einsum('id,jd->ij', x, x)


def _mean_over_partners(x, where):
  """[B, B], examples by partners, to [B]; padding counts as neither."""
  total = jnp.sum(_numerics.keep(where, x.T), axis=0)
  return _numerics.keep(where, total / _numerics.count(where, x))


def _relative_distances(x, where):
  """Distances between rows in units of the mean of those above 0."""
  distances = _numerics.safe_sqrt(
    _pairwise.squared_distances(_numerics.keep(where, x))
  )
  counts = distances > 0
  if where is not None:
    counts &= where[:, None] & where[None, :]
  total = jnp.sum(distances, where=counts)
  mean = total / jnp.maximum(jnp.sum(counts, dtype=x.dtype), 1)
  return distances / jnp.where(mean > 0, mean, 1)


def _finite(distances):
  """A factor [B]: 1, or NaN for what is not at distance 0 from itself."""
  return _numerics.one_or_nan(~jnp.isnan(jnp.diagonal(distances)))


def _cosines_at(vertex, x):
  """The cosine of every angle at a vertex [D], over rows of [B, D]: [B, B]."""
  return _gram(_numerics.l2_normalize(x - vertex[None]))


def _semi_hard(distance, negative):
  """Of each positive [B] at these distances: that of its negative, [B]."""
  beyond = negative[None, :] & (distance[None, :] > distance[:, None])
  nearest = jnp.min(jnp.where(beyond, distance[None, :], jnp.inf), axis=1)
  farthest = jnp.max(jnp.where(negative, distance, 0))  # NaN where one is
  found = jnp.where(jnp.any(beyond, axis=1), nearest, farthest)
  return found * _numerics.one_or_nan(~jnp.isnan(farthest))


def _likely(distance, negative, width):
  """How likely distance-weighted sampling draws each negative, [B].

  In proportion to one over the density of distances on the unit sphere, up to
  a factor.
  """
  distance = jnp.maximum(lax.stop_gradient(distance), _NEAREST)
  near = negative & (distance < _FARTHEST)
  capped = jnp.minimum(distance, _FARTHEST)
  log = (2 - width) * jnp.log(capped)
  log += (3 - width) / 2 * jnp.log(1 - jnp.square(capped) / 4)
  likely = jnp.exp(log - jnp.max(jnp.where(near, log, -jnp.inf)))
  likely = jnp.where(near, likely, 0)  # and not the infinity of none at all
  return jnp.where(jnp.any(near), likely, negative.astype(log.dtype))


def _nodes(x, pool):
  """[B, ..., C] as [B, N, C], pooled first where asked."""
  if pool is not None:
    kind, size = _pooling_of(pool, x.ndim - 2)
    x = getattr(_pooling, kind)(x, size)
  return x.reshape(len(x), -1, x.shape[-1])


def _inverse_length(x):
  """1 / |x| of vectors [..., C]; 0, gradient too, where that is 0."""
  square = jnp.sum(jnp.square(x), axis=-1)
  long = _numerics.above(square, 1e-24)
  return jnp.where(long, 1 / jnp.sqrt(jnp.where(long, square, 1)), 0)


def _pooling_of(pool, axes):
  """The kind of pooling and its number of nodes along each axis."""
  try:
    kind, size = pool
    size = tuple(size) if isinstance(size, (tuple, list)) else (size,) * axes
    _checks.one_of(('average', 'max'), kind=kind)
    for nodes in size:
      _checks.integer(1, nodes=nodes)
    if len(size) != axes:
      raise ValueError(f'{axes} numbers of nodes are needed')
  except (TypeError, ValueError) as error:
    raise ValueError(
      "pool must be None, ('average', n), ('max', n), or have a number of "
      f'nodes for each of the {axes} axes in place of n, not {pool!r}'
    ) from error
  return kind, size
