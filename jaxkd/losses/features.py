"""Losses on features: the maps inside a student against those of a teacher.

Maps are [B, ..., C], channels last: [B, H, W, C] for images, [B, N, C] for
tokens and flattened positions, [B, C] for embeddings. Widths may differ where
a definition allows it; elsewhere an adapter on the student comes first. Sums
of squares are computed in at least float32. What depends on a feature that is
NaN is NaN.

Positions that do not count, as padding, are named by ``valid``: whatever they
hold, NaN too, is in no value and in no gradient. A loss that is a mean over
positions then gives that of each position, [B, ...], 0 where it does not count,
so that a mean can be taken over what counts in the whole batch; one that puts
positions together gives that of each example, 0 where none of it counts.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxkd.losses import _checks, _numerics, _pairwise, _pooling, _shapes


def hint(
  student: Array, teacher: Array, *, valid: Array | None = None
) -> Array:
  """Mean squared difference between two maps.

  The student's guided layer regresses the teacher's hint layer, element by
  element, usually behind a linear or convolutional regressor.

  Args:
    student: features s, [B, ..., C].
    teacher: features t, the same shape.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, in squared units of the features, [B]; with
    `valid` that of each position, [B, ...].

  Formula:
    mean (s - t)² over all axes but the batch

  References:
    Romero et al., `FitNets: Hints for Thin Deep Nets
    <https://arxiv.org/abs/1412.6550>`_, 2015

  Example:
    >>> hint(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]]))
    Array([2.], dtype=float32)

  Variants:
    - The paper has ½ of the sum in place of the mean, so its weight is
      smaller by half the number of elements. RepDistiller and mdistiller have
      the mean.
  """
  student, teacher = _same_shape(student, teacher, valid)
  return _by_position(jnp.square(student - teacher), valid)


def cosine(
  student: Array, teacher: Array, *, valid: Array | None = None
) -> Array:
  """Cosine distance between two maps, averaged over positions.

  Only the direction of the features of a position counts, not their length.

  Args:
    student: features s, [B, ..., C].
    teacher: features t, the same shape.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, from 0 to 2, [B]; with `valid` that of each
    position, [B, ...]. Features that are all 0 have cosine 0, and no gradient,
    with anything.

  Formula:
    mean over positions of 1 - ⟨s, t⟩ / (|s| |t|)

  References:
    Sanh et al., `DistilBERT, a Distilled Version of BERT
    <https://arxiv.org/abs/1910.01108>`_, 2019

  Example:
    >>> cosine(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 4.0]])).round(3)
    Array([0.4], dtype=float32)

  Variants:
    - Some code adds the cosine to the loss in place of 1 - cosine, which
      drives the features apart.
    - ``optax.losses.cosine_distance`` is this for one position, but NaN for
      features that are all 0.
  """
  student, teacher = _same_shape(student, teacher, valid)
  products = _numerics.l2_normalize(student) * _numerics.l2_normalize(teacher)
  distance = 1 - jnp.sum(products, axis=-1)
  if valid is None:
    return _mean(distance)
  return _numerics.at_valid(valid, distance)


def attention_transfer(
  student: Array,
  teacher: Array,
  *,
  power: float = 2,
  variant: str = 'code',
  valid: Array | None = None,
) -> Array:
  """Attention transfer (AT), from activations.

  Where a map is strong, whatever the channel, is where the net looks; the
  student should look where the teacher does. The larger map is average-pooled
  to the smaller first.

  Args:
    student: maps s, [B, ..., Cs].
    teacher: maps t, [B, ..., Ct], with as many axes.
    power: p > 0; a higher one attends to the strongest channels.
    variant: 'code' of the authors, or 'paper'.
    valid: [B, ...] bool, true at the positions that count, of maps of one
      size; all by default.

  Returns:
    The loss of each example, [B].

  Formula:
    a_x = flatten(mean_c |x|^p) / |flatten(mean_c |x|^p)| over N positions;
    'code': 1/N Σ_n (a_s - a_t)², 'paper': |a_s - a_t|

  References:
    Zagoruyko & Komodakis, `Paying More Attention to Attention
    <https://arxiv.org/abs/1612.03928>`_, 2017

  Example:
    >>> student = jnp.array([[[1.0], [0.0]]])
    >>> teacher = jnp.array([[[3.0, 0.0], [0.0, 3.0]]])
    >>> attention_transfer(student, teacher).round(4)
    Array([0.2929], dtype=float32)
    >>> attention_transfer(student, teacher, variant='paper').round(4)
    Array([0.7654], dtype=float32)

  Variants:
    - Paper and authors' code disagree as shown; the usual weight of 1000
      belongs to 'code', which RepDistiller, mdistiller and mmrazor have too.
      torchdistill has both.
    - The sum over channels in place of the mean gives the same map.
  """
  _checks.arrays(
    student=(student, _shapes.free(student, 'S', 'Cs')),
    teacher=(teacher, _shapes.free(teacher, 'T', 'Ct')),
  )
  _checks.positive(power=power)
  _checks.one_of(('code', 'paper'), variant=variant)
  student, teacher = _numerics.upcast(student, teacher)
  if valid is not None:
    _checks.arrays(
      student=(student, 'float[B, ..., Cs]'),
      teacher=(teacher, 'float[B, ..., Ct]'),
      valid=(valid, 'bool[B, ...]'),
    )
    student, teacher = _numerics.at_valid(valid, student, teacher)
  student, teacher = _pooling.to_smaller(
    student, teacher, ('student', 'teacher')
  )
  square = jnp.square(_attention(student, power) - _attention(teacher, power))
  if variant == 'code':
    return _mean(square, valid)
  return _numerics.safe_sqrt(jnp.sum(square, axis=-1))


def neuron_selectivity(
  student: Array, teacher: Array, *, valid: Array | None = None
) -> Array:
  """Neuron selectivity transfer (NST).

  Matches the distribution of the channels, each a pattern over positions, in
  the sense of the maximum mean discrepancy with a polynomial kernel: which
  channel fires where is free, the patterns that occur are not.

  Args:
    student: maps, [B, ..., Cs].
    teacher: maps, [B, ..., Ct], at the same positions.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, [B]: at least 0, but for rounding.

  Formula:
    mean k(t_c, t_d) + mean k(s_c, s_d) - 2 mean k(s_c, t_d) over pairs of
    channels of length 1 over the positions, with k(x, y) = ⟨x, y⟩²

  References:
    Huang & Wang, `Like What You Like: Knowledge Distill via Neuron
    Selectivity Transfer <https://arxiv.org/abs/1707.01219>`_, 2017

  Example:
    >>> student = jnp.array([[[1.0], [0.0]]])
    >>> teacher = jnp.array([[[0.0], [2.0]]])
    >>> neuron_selectivity(student, teacher)
    Array([2.], dtype=float32)

  Variants:
    - RepDistiller and mdistiller compute the same from a temporary of all
      pairs of channels by all positions, and average-pool the larger map.
  """
  _checks.arrays(
    student=(student, 'float[B, N, ..., Cs]'),
    teacher=(teacher, 'float[B, N, ..., Ct]'),
    valid=(valid, 'bool[B, N, ...] or None'),
  )
  student, teacher = (
    _numerics.l2_normalize(_flat(_numerics.at_valid(valid, x)), axis=1)
    for x in _numerics.upcast(student, teacher)
  )

  def kernel(x, y):
    return _mean(jnp.square(_pairwise.einsum('bnc,bnd->bcd', x, y)))

  return (
    kernel(teacher, teacher)
    + kernel(student, student)
    - 2 * kernel(student, teacher)
  )


def flow_of_solution(
  student_pair: tuple[Array, Array], teacher_pair: tuple[Array, Array]
) -> Array:
  """Flow of the solution procedure (FSP).

  How features change from one layer to another, as the products between the
  channels of both, is how a net solves its task; the student learns the way
  and not the intermediate results. In each pair the larger map is
  average-pooled to the smaller.

  Args:
    student_pair: maps of two layers, [B, ..., C1] and [B, ..., C2].
    teacher_pair: maps of two layers as wide, at positions of their own.

  Returns:
    The loss of each example, [B].

  Formula:
    mean over c, d of (F_s(c, d) - F_t(c, d))², with F_x(c, d) = 1/N Σ_n
    x1_nc x2_nd over the N positions

  References:
    Yim et al., `A Gift from Knowledge Distillation
    <https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html>`_,
    2017

  Example:
    >>> first, second = jnp.array([[[1.0], [3.0]]]), jnp.array([[[2.0]]])
    >>> flow_of_solution((first, second), (second, second))
    Array([0.], dtype=float32)

  Variants:
    - torchdistill max-pools the larger map and sums the lengths of the
      columns of the difference; RepDistiller is as here.
  """
  pairs = {'student_pair': student_pair, 'teacher_pair': teacher_pair}
  specs = {}
  for name, pair in pairs.items():
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
      raise ValueError(f'{name} must be a tuple of two maps, not {_kind(pair)}')
    for i, x in enumerate(pair):
      axes = f'{name[0].upper()}{i + 1}'
      specs[f'{name}[{i}]'] = x, _shapes.free(x, axes, f'C{i + 1}')
  _checks.arrays(**specs)

  maps = _numerics.upcast(*student_pair, *teacher_pair)

  def flow(first, second, name):
    first, second = _pooling.to_smaller(
      first, second, (f'{name}[0]', f'{name}[1]')
    )
    first, second = _flat(first), _flat(second)
    products = _pairwise.einsum('bnc,bnd->bcd', first, second)
    return products / first.shape[1]

  student = flow(*maps[:2], 'student_pair')
  teacher = flow(*maps[2:], 'teacher_pair')
  return _mean(jnp.square(student - teacher))


def activation_boundary(
  student: Array,
  teacher: Array,
  *,
  margin: float = 1.0,
  valid: Array | None = None,
) -> Array:
  """Activation boundary transfer (AB).

  Whether a neuron fires, and not how much, is the boundary that a teacher has
  learnt; a squared hinge moves the student to the right side of it.

  Args:
    student: pre-activations s, [B, ..., C].
    teacher: pre-activations t, the same shape; only their sign counts.
    margin: m ≥ 0, how far on the right side is far enough.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, summed over its elements, [B].

  Formula:
    Σ (s + m)² where s > -m and t ≤ 0, plus (s - m)² where s ≤ m and t > 0

  References:
    Heo et al., `Knowledge Transfer via Distillation of Activation Boundaries
    Formed by Hidden Neurons <https://arxiv.org/abs/1811.03233>`_, 2019

  Example:
    >>> student, teacher = jnp.array([[0.5, 0.5]]), jnp.array([[2.0, -2.0]])
    >>> activation_boundary(student, teacher)
    Array([2.5], dtype=float32)

  Variants:
    - RepDistiller and mmrazor scale the mean of this over the batch by
      3 / 1000, RepDistiller also by ½ for each layer further down.
  """
  student, teacher = _same_shape(student, teacher, valid)
  _checks.non_negative(margin=margin)
  silent = jnp.where(student <= -margin, 0, student + margin)
  firing = jnp.where(student > margin, 0, student - margin)
  gap = jnp.where(teacher > 0, firing, silent)
  gap *= _numerics.one_or_nan(~jnp.isnan(teacher))
  return _sum(jnp.square(_numerics.at_valid(valid, gap)))


def factor_transfer(
  student: Array,
  teacher: Array,
  *,
  power: float = 1,
  channel_power: float = 2,
  valid: Array | None = None,
) -> Array:
  """Factor transfer (FT), between translated and paraphrased features.

  The teacher's features are paraphrased to a few factors by an autoencoder,
  the student's translated to them; what is compared is where the factors are
  strong.

  Args:
    student: factors s from the translator, [B, ..., Cs].
    teacher: factors t from the paraphraser, [B, ..., Ct], at the same
      positions.
    power: p > 0 of the difference.
    channel_power: q > 0 of the elements.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, [B].

  Formula:
    1/N Σ_n |f_s - f_t|^p over N positions, with f_x = flatten(mean_c |x|^q)
    over its length

  References:
    Kim et al., `Paraphrasing Complex Network: Network Compression via Factor
    Transfer <https://arxiv.org/abs/1802.04977>`_, 2018

  Example:
    >>> student = jnp.array([[[1.0], [0.0]]])
    >>> teacher = jnp.array([[[3.0, 0.0], [0.0, 3.0]]])
    >>> factor_transfer(student, teacher).round(4)
    Array([0.5], dtype=float32)

  Variants:
    - This is RepDistiller's. The authors' code, torchdistill and mmrazor take
      no mean over channels: they compare the flattened factors, of length 1,
      element by element.
  """
  _checks.arrays(
    student=(student, 'float[B, N, ..., Cs]'),
    teacher=(teacher, 'float[B, N, ..., Ct]'),
    valid=(valid, 'bool[B, N, ...] or None'),
  )
  _checks.positive(power=power, channel_power=channel_power)
  student, teacher = _numerics.at_valid(
    valid, *_numerics.upcast(student, teacher)
  )
  gap = _attention(student, channel_power) - _attention(teacher, channel_power)
  return _mean(_power(gap, power), valid)


def overhaul(
  student: Array,
  teacher: Array,
  margin: Array,
  *,
  valid: Array | None = None,
) -> Array:
  """Overhauled feature distillation (OFD).

  The teacher's pre-activations are cut at a negative margin, below which they
  say nothing; where they are not positive it is enough that the student lies
  below them.

  Args:
    student: pre-activations s behind the adapter, [B, ..., C].
    teacher: pre-activations t, the same shape.
    margin: m of each channel, mostly negative, from ``overhaul_margin``, [C].
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, summed over its elements, [B].

  Formula:
    Σ (s - u)² where s > u or u > 0, with u = max(t, m)

  References:
    Heo et al., `A Comprehensive Overhaul of Feature Distillation
    <https://arxiv.org/abs/1904.01866>`_, 2019

  Example:
    >>> student = jnp.array([[0.0, -3.0, 1.0]])
    >>> teacher = jnp.array([[-2.0, -2.0, 2.0]])
    >>> overhaul(student, teacher, jnp.array([-1.0, -1.0, -1.0]))
    Array([2.], dtype=float32)

  Variants:
    - The authors' code sums over the batch and the layers, halving the weight
      with each layer down, and divides by the batch size and by 1000.
      mdistiller writes out the same cases.
    - mmrazor takes the maximum with the margin in an adapter of the teacher.
  """
  _checks.arrays(
    student=(student, 'float[B, ..., C]'),
    teacher=(teacher, 'float[B, ..., C]'),
    margin=(margin, 'float[C]'),
    valid=(valid, 'bool[B, ...] or None'),
  )
  student, teacher, margin = _numerics.upcast(student, teacher, margin)
  student, teacher = _numerics.at_valid(valid, student, teacher)
  margin = jnp.expand_dims(margin, tuple(range(teacher.ndim - 1)))
  target = jnp.maximum(teacher, margin)
  counts = _numerics.above(student, target) | (target > 0)
  gap = jnp.where(counts, student - target, 0)
  return _sum(jnp.square(_numerics.at_valid(valid, gap)))


def overhaul_margin(
  scale: Array, bias: Array, *, variant: str = 'paper'
) -> Array:
  """The margin of ``overhaul``: the mean negative pre-activation.

  BatchNorm leaves pre-activations about normal, with its bias for mean and
  its scale for deviation, so the mean of the negative ones has a closed form.

  Args:
    scale: the teacher's BatchNorm scale γ before the activation, [C].
    bias: its bias β, [C].
    variant: 'paper', or 'code' as below.

  Returns:
    The margin of each channel, at most 0, [C].

  Formula:
    E[x | x < 0] = β - |γ| φ(β / |γ|) / Φ(-β / |γ|) for x ~ N(β, γ²), φ and Φ
    the standard normal's density and distribution

  References:
    Heo et al., `A Comprehensive Overhaul of Feature Distillation
    <https://arxiv.org/abs/1904.01866>`_, 2019

  Example:
    >>> overhaul_margin(jnp.array([1.0, 1.0]), jnp.array([0.0, 1.0])).round(1)
    Array([-0.8, -0.5], dtype=float32)

  Variants:
    - ``variant='code'``: the authors' code, mdistiller's too, puts ``-3 |γ|``
      where no more than 0.001 of the values are negative, though their mean
      is close to 0 there.
  """
  _checks.arrays(scale=(scale, 'float[C]'), bias=(bias, 'float[C]'))
  _checks.one_of(('paper', 'code'), variant=variant)
  scale, bias = _numerics.upcast(scale, bias)
  scale = jnp.abs(scale)
  varies = _numerics.above(scale, 0)
  ratio = bias / jnp.where(varies, scale, 1)
  margin = scale * _mean_of_negative(ratio)
  if variant == 'code':
    often = _numerics.above(jax.scipy.stats.norm.cdf(-ratio), 0.001)
    margin = jnp.where(often, margin, -3 * scale)
  return jnp.where(varies, margin, jnp.minimum(bias, 0))


def hierarchical_context(
  student_maps: tuple[Array, ...], teacher_maps: tuple[Array, ...]
) -> Array:
  """Hierarchical context loss of knowledge review (ReviewKD's HCL).

  A map is compared in full and averaged to 4, 2 and 1 positions a side, so
  that the context counts as well as the detail; summed over the levels.

  Args:
    student_maps: a map of each level, [B, H, W, C] of that level.
    teacher_maps: as many maps of the same shapes.

  Returns:
    The loss of each example, summed over levels, [B].

  Formula:
    Σ_levels Σ_i 2^-i mean (A_i s - A_i t)² / Σ_i 2^-i, A_0 the identity and
    A_1, A_2, ... the average pools to those of 4, 2 and 1 that are below H

  References:
    Chen et al., `Distilling Knowledge via Knowledge Review
    <https://arxiv.org/abs/2104.09044>`_, 2021

  Example:
    >>> student, teacher = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
    >>> hierarchical_context([student, student], [teacher, teacher])
    Array([2.], dtype=float32)

  Variants:
    - The weights halve with each pool that is used, as in the authors' code,
      mdistiller and torchdistill: a map of 4 by 4 has 1, ½ and ¼ for itself,
      2 and 1.
  """
  levels = {'student_maps': student_maps, 'teacher_maps': teacher_maps}
  for name, maps in levels.items():
    if not isinstance(maps, (tuple, list)) or not maps:
      raise ValueError(f'{name} must be a tuple of maps, not {_kind(maps)}')
  if len(student_maps) != len(teacher_maps):
    raise ValueError(
      f'teacher_maps must have {len(student_maps)} maps as student_maps, '
      f'not {len(teacher_maps)}'
    )
  _checks.arrays(
    **{
      f'{name}[{i}]': (x, f'float[B, H{i}, W{i}, C{i}]')
      for name, maps in levels.items()
      for i, x in enumerate(maps)
    }
  )
  return sum(map(_in_context, student_maps, teacher_maps))


def channel_wise(
  student: Array,
  teacher: Array,
  *,
  temperature: float = 1.0,
  valid: Array | None = None,
) -> Array:
  """Channel-wise distillation (CWD).

  Each channel, as a distribution over positions, says where its concept is;
  the divergence weighs the places that the teacher finds salient.

  Args:
    student: maps s, [B, ..., C], or score maps of C classes.
    teacher: maps t, the same shape.
    temperature: T > 0 that divides both.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, in nats times T², [B]. A channel that is -inf
    everywhere on both sides is not one of the C, and positions that are -inf
    on both sides are none of the N.

  Formula:
    T²/C Σ_c Σ_n p_nc log(p_nc / q_nc), with p = softmax_n(t / T) and
    q = softmax_n(s / T) over the N positions of a channel

  References:
    Shu et al., `Channel-wise Knowledge Distillation for Dense Prediction
    <https://arxiv.org/abs/2011.13256>`_, 2021

  Example:
    >>> student = jnp.array([[[0.0], [0.0]]])
    >>> teacher = jnp.array([[[0.0], [1.0]]])
    >>> channel_wise(student, teacher).round(2)
    Array([0.11], dtype=float32)

  Variants:
    - mmrazor and the authors' code agree on this. Code that takes the softmax
      over channels, at each position, is pixel-wise distillation: ``kl``.
  """
  _checks.arrays(
    student=(student, 'float[B, N, ..., C]'),
    teacher=(teacher, 'float[B, N, ..., C]'),
    valid=(valid, 'bool[B, N, ...] or None'),
  )
  _checks.positive(temperature=temperature)
  student, teacher = map(_flat, _numerics.upcast(student, teacher))
  here = None if valid is None else valid.reshape(len(student), -1)
  student, teacher = _numerics.at_valid(here, student, teacher)
  known = _numerics.classes(student, teacher)
  there = jnp.any(_numerics.at_valid(here, known), axis=1)
  if here is not None:  # an example of which nothing counts has a loss of 0
    there |= ~jnp.any(here, axis=1, keepdims=True)

  def log_shares(x):
    x = _numerics.soften(jnp.where(there[:, None], x, 0), temperature)
    if here is not None:
      least = jnp.finfo(x.dtype).min  # no infinity, for there may be no other
      x = jnp.where(here[..., None], x, least)
    return jax.nn.log_softmax(x, axis=1)

  log_q, log_p = log_shares(student), log_shares(teacher)
  divergence = _numerics.divergence(log_p, log_q, axis=1)
  factor = _numerics.mean_factor(there, dtype=log_q.dtype)
  return temperature**2 * _mean(divergence) * factor[:, 0]


def pearson_feature(
  student: Array,
  teacher: Array,
  *,
  where: Array | None = None,
  valid: Array | None = None,
) -> Array:
  """Feature imitation by Pearson's correlation (PKD).

  Maps that are standardised per channel differ by what does not correlate:
  neither the size of the teacher's features nor a dominant channel counts.
  Needs the global batch, whose statistics it takes.

  Args:
    student: maps s, [B, ..., C].
    teacher: maps t, the same shape.
    where: [B] bool, false for examples that only pad the batch.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, [B]; with `valid` that of each position, [B,
    ...]. Its mean is the mean over channels of 1 - correlation, but for a
    factor of (M - 1) / M. A channel that is constant becomes 0, with a gradient
    of 0.

  Formula:
    ½ mean (ŝ - t̂)² over all axes but the batch, x̂ = (x - mean) / (std + 1e-6)
    with mean and std (of M - 1) of a channel over its M values in the batch

  References:
    Cao et al., `PKD: General Distillation Framework for Object Detectors via
    Pearson Correlation Coefficient <https://arxiv.org/abs/2207.02039>`_, 2022

  Example:
    >>> student, teacher = jnp.array([[1.0], [3.0]]), jnp.array([[9.0], [5.0]])
    >>> pearson_feature(student, teacher).round(3)
    Array([1., 1.], dtype=float32)

  Variants:
    - mmrazor's, by the authors, is this; it also resizes the student's map to
      the teacher's where they differ.
    - Some ports take one deviation over all channels.
  """
  _checks.arrays(
    student=(student, 'float[B, ..., C]'),
    teacher=(teacher, 'float[B, ..., C]'),
    where=(where, 'bool[B] or None'),
    valid=(valid, 'bool[B, ...] or None'),
  )
  if valid is not None:
    where = _numerics.keep(where, valid, False)

  def standardized(x):
    axes = tuple(range(x.ndim - 1))
    counts, given = None, 1
    if where is not None:
      given = where.ndim
      counts = where.reshape(where.shape + (1,) * (x.ndim - given))
    gap = _numerics.center(x, axes, counts)
    values = _numerics.count(where, x) * math.prod(x.shape[given:-1])
    square = jnp.sum(jnp.square(gap), axis=axes, keepdims=True)
    std = _numerics.safe_sqrt(square / jnp.maximum(values - 1, 1))
    return gap / (std + 1e-6)

  student, teacher = _numerics.upcast(student, teacher)
  gap = standardized(student) - standardized(teacher)
  return _by_position(jnp.square(gap), valid) / 2


def masked_imitation(
  student: Array,
  teacher: Array,
  mask: Array,
  *,
  valid: Array | None = None,
) -> Array:
  """Fine-grained feature imitation, near the objects.

  What a detector's teacher knows lies where its anchors meet objects; the
  student imitates the features of those positions alone.

  Args:
    student: maps s behind the adapter, [B, ..., C].
    teacher: maps t, the same shape.
    mask: m, 1 or true at the positions to imitate, [B, ...] of any dtype.
    valid: [B, ...] bool, true at the positions that count at all; all by
      default.

  Returns:
    The loss of each example, 0 where its mask is empty, [B].

  Formula:
    Σ_n m_n Σ_c (s_nc - t_nc)² / (2 Σ_n m_n)

  References:
    Wang et al., `Distilling Object Detectors with Fine-grained Feature
    Imitation <https://arxiv.org/abs/1906.03609>`_, 2019

  Example:
    >>> student, teacher = jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3))
    >>> masked_imitation(student, teacher, jnp.array([[True, False]]))
    Array([1.5], dtype=float32)

  Variants:
    - The number of positions is each example's own; the authors' code has one
      image a batch. Its toy detector divides by 4 in place of 2.
    - Neither the code nor this divides by the number of channels.
  """
  kind = next(
    (k for k in ('int', 'float') if k in str(getattr(mask, 'dtype', ''))),
    'bool',
  )
  _checks.arrays(
    student=(student, 'float[B, ..., C]'),
    teacher=(teacher, 'float[B, ..., C]'),
    mask=(mask, f'{kind}[B, ...]'),
    valid=(valid, 'bool[B, ...] or None'),
  )
  student, teacher = _numerics.upcast(student, teacher)
  mask = _numerics.at_valid(valid, mask.astype(student.dtype))
  # Not a product alone: what is not imitated may not even be finite.
  gap = jnp.where(mask[..., None] > 0, student - teacher, 0)
  positions = _sum(mask)
  total = _sum(mask * jnp.sum(jnp.square(gap), axis=-1))
  return total / (2 * jnp.where(positions > 0, positions, 1))


def log_sum(
  student: Array,
  teacher: Array,
  *,
  power: float = 4.0,
  valid: Array | None = None,
) -> Array:
  """Log-sum distance of a simple recipe distillation (SRD).

  A high power counts the features that are far off, the logarithm keeps a few
  of them from ruling: what a linear projector of little capacity needs. Both
  sides are meant to be normalised by a BatchNorm.

  Args:
    student: features s behind the projector, [B, ..., D].
    teacher: features t, the same shape.
    power: p > 0 of the differences.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, unbounded below but for the floor: a difference
    of less than 1e-12 counts as 1e-12, without a gradient, [B].

  Formula:
    log Σ |s - t|^p over all axes but the batch

  References:
    Miles & Mikolajczyk, `Understanding the Role of the Projector in Knowledge
    Distillation <https://arxiv.org/abs/2303.11098>`_, 2024

  Example:
    >>> log_sum(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])).round(4)
    Array([0.6931], dtype=float32)

  Variants:
    - The authors' code for ImageNet and torchdistill sum over the batch too,
      inside the logarithm. The authors' code for transformers has the
      distance of each feature's correlation over the batch from 1, plus 1e-5.
  """
  student, teacher = _same_shape(student, teacher, valid)
  _checks.positive(power=power)
  gap = jnp.abs(student - teacher)
  gap = jnp.where(_numerics.above(gap, 1e-12), gap, 1e-12)
  logs, axes = power * jnp.log(gap), tuple(range(1, gap.ndim))
  if valid is None:
    return jax.nn.logsumexp(logs, axis=axes)
  # No infinity in place of what does not count, for there may be no other.
  logs = jnp.where(valid[..., None], logs, jnp.finfo(logs.dtype).min)
  some = jnp.any(valid, axis=tuple(range(1, valid.ndim)))
  return _numerics.keep(some, jax.nn.logsumexp(logs, axis=axes))


def maximum_mean_discrepancy(
  student: Array,
  teacher: Array,
  *,
  kernel: str = 'polynomial',
  bandwidth: float | None = None,
  across: bool = False,
  where: Array | None = None,
  valid: Array | None = None,
) -> Array:
  """Squared maximum mean discrepancy (MMD²) between two sets of features.

  Matches the distributions that two sets come from, without saying which
  element belongs to which: zero where the means agree in the kernel's feature
  space. Sets that are batches need the global batch.

  Args:
    student: a set s of N features, [N, D], or one for each group, [G, N, D].
    teacher: a set t of M features, [M, D] or [G, M, D].
    kernel: 'polynomial' for ⟨x, y⟩², which compares second moments, 'linear'
      for ⟨x, y⟩, which compares means, or 'rbf' for ``exp(-|x - y|² / 2σ²)``.
    bandwidth: σ > 0 of 'rbf', a distance. By default the median distance
      between elements of both sets that differ, without a gradient.
    across: of features [G, N, D] and [G, N, D] take N sets of G elements, one
      at each position, and not G sets of N.
    where: [N] or [G, N] bool with M = N, false for elements of both sets that
      only pad; with `across` [G].
    valid: [G, N] bool with M = N, true for the elements of groups that count.

  Returns:
    The biased estimate, at least 0 but for rounding, [] or [G]; with `across`
    the mean over positions, [].

  Formula:
    mean k(s_i, s_j) + mean k(t_i, t_j) - 2 mean k(s_i, t_j), over all pairs,
    i = j included

  References:
    Gretton et al., `A Kernel Two-Sample Test
    <https://jmlr.org/papers/v13/gretton12a.html>`_, 2012; Wang et al.,
    `Progressive Teacher-Student Learning for Early Action Prediction
    <https://openaccess.thecvf.com/content_CVPR_2019/html/Wang_Progressive_Teacher-Student_Learning_for_Early_Action_Prediction_CVPR_2019_paper.html>`_,
    2019

  Example:
    >>> student = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> teacher = jnp.array([[0.0, 1.0], [0.0, -1.0]])
    >>> maximum_mean_discrepancy(student, teacher)
    Array(2., dtype=float32)
    >>> maximum_mean_discrepancy(student, teacher, kernel='linear')
    Array(0., dtype=float32)

  Variants:
    - The unbiased estimate leaves out i = j, and may be negative.
    - σ² is also set to the median of the squares, or ½ of it.
  """
  if across:
    _checks.arrays(
      student=(student, 'float[G, N, D]'),
      teacher=(teacher, 'float[G, N, D]'),
      where=(where, 'bool[G] or None'),
      valid=(valid, 'bool[G, N] or None'),
    )
    student, teacher = (x.swapaxes(0, 1) for x in (student, teacher))
    if valid is not None:
      where = valid.T if where is None else valid.T & where[None]
      valid = None
  groups = 'G, ' if getattr(student, 'ndim', 0) == 3 else ''
  if valid is not None:
    _checks.arrays(
      student=(student, 'float[G, N, D]'), valid=(valid, 'bool[G, N]')
    )
    where = valid if where is None else valid & where
  shared = getattr(where, 'ndim', 0) == 1
  _checks.arrays(
    student=(student, f'float[{groups}N, D]'),
    teacher=(teacher, f'float[{groups}{"M" if where is None else "N"}, D]'),
    where=(where, f'bool[{"" if shared else groups}N] or None'),
  )
  _checks.one_of(('polynomial', 'linear', 'rbf'), kernel=kernel)
  if bandwidth is not None:
    _checks.positive(bandwidth=bandwidth)
    if kernel != 'rbf':
      raise ValueError(f'bandwidth must be None with kernel={kernel!r}')

  def discrepancy(student, teacher, where):
    return _discrepancy(student, teacher, where, kernel, bandwidth)

  if groups:
    discrepancy = jax.vmap(discrepancy, in_axes=(0, 0, None if shared else 0))
  found = discrepancy(*_numerics.upcast(student, teacher), where)
  return jnp.mean(found) if across else found


def _same_shape(student, teacher, valid):
  """Two checked maps of one shape, upcast, 0 where they do not count."""
  _checks.arrays(
    student=(student, 'float[B, ..., C]'),
    teacher=(teacher, 'float[B, ..., C]'),
    valid=(valid, 'bool[B, ...] or None'),
  )
  return _numerics.at_valid(valid, *_numerics.upcast(student, teacher))


def _kind(x):
  """What an argument that should hold several maps is instead."""
  if isinstance(x, (tuple, list)):
    return f'{len(x)} of them'
  return type(x).__name__


def _mean(x, valid=None):
  """Mean over all axes but the batch; of [B, N], over the N that are valid."""
  if valid is None:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
  valid = valid.reshape(x.shape)
  number = jnp.maximum(jnp.sum(valid, axis=1, dtype=x.dtype), 1)
  return jnp.sum(_numerics.at_valid(valid, x), axis=1) / number


def _by_position(x, valid):
  """Mean of [B, ..., C] over all but the batch; if masked, over features."""
  if valid is None:
    return _mean(x)
  return _numerics.at_valid(valid, jnp.mean(x, axis=-1))


def _sum(x):
  """Sum over all axes but the batch."""
  return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def _flat(x):
  """[B, ..., C] as [B, N, C]."""
  return x.reshape(len(x), -1, x.shape[-1])


def _power(x, exponent):
  """|x|^exponent, whose gradient at 0 is 0."""
  size = jnp.abs(x)
  positive = _numerics.above(size, 0)
  return jnp.where(positive, jnp.where(positive, size, 1) ** exponent, 0)


def _attention(x, power):
  """Where [B, ..., C] is strong, as a direction over its positions: [B, N]."""
  return _numerics.l2_normalize(jnp.mean(_power(_flat(x), power), axis=-1))


def _mean_of_negative(mean):
  """E[x | x < 0] for x ~ N(mean, 1)."""
  near = jnp.minimum(mean, 4)
  log_density = jax.scipy.stats.norm.logpdf(near)
  direct = near - jnp.exp(log_density - jax.scipy.stats.norm.logcdf(-near))
  # Further out the difference cancels; Laplace's continued fraction does not.
  far = jnp.maximum(mean, 4)
  fraction = far
  for k in range(12, 1, -1):
    fraction = far + k / fraction
  return jnp.where(mean < 4, direct, -1 / fraction)


def _in_context(student, teacher):
  """The hierarchical context loss of one level."""
  student, teacher = _numerics.upcast(student, teacher)
  gap, weight, total = student - teacher, 1.0, 1.0
  loss = _mean(jnp.square(gap))
  for size in (4, 2, 1):
    if size < gap.shape[1]:
      weight /= 2
      total += weight
      # Pooling is linear, so the difference is pooled once.
      pooled = _pooling.average(gap, (size, size))
      loss += weight * _mean(jnp.square(pooled))
  return loss / total


def _discrepancy(student, teacher, where, kernel, bandwidth):
  """Biased MMD² of [N, D] and [M, D]: wᵀ K w with weights of both signs."""
  elements = jnp.concatenate(
    [_numerics.keep(where, student), _numerics.keep(where, teacher)]
  )
  weights = jnp.concatenate([_shares(where, student), -_shares(where, teacher)])
  if kernel == 'linear':
    return jnp.sum(jnp.square(_pairwise.einsum('i,id->d', weights, elements)))
  if kernel == 'polynomial':
    values = jnp.square(_pairwise.einsum('id,jd->ij', elements, elements))
  else:
    square = _pairwise.squared_distances(elements)
    if bandwidth is None:
      bandwidth = lax.stop_gradient(_median_distance(square, weights != 0))
    values = jnp.exp(-square / (2 * bandwidth**2))
  return jnp.sum(weights[:, None] * values * weights[None, :])


def _shares(where, x):
  """The weight of each element of a set in its mean, [N]."""
  return _numerics.keep(where, jnp.ones(len(x), x.dtype)) / _numerics.count(
    where, x
  )


def _median_distance(square, valid):
  """The median root of [P, P] above 0 among valid elements; 1 if none is."""
  counts = (square > 0) & valid[:, None] & valid[None, :]
  ranked = jnp.sort(jnp.where(counts, square, jnp.inf), axis=None)
  number = jnp.sum(counts)
  middle = ranked[jnp.stack([jnp.maximum(number - 1, 0) // 2, number // 2])]
  return jnp.where(number > 0, jnp.mean(jnp.sqrt(middle)), 1)
