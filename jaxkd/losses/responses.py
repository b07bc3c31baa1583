"""Losses on responses: a student's logits against a teacher's, or labels.

Logits are [..., K] over K classes; any leading axes, so that tokens and pixels
work. In the formulas z is the student's, v the teacher's, T a temperature.

A class of an example that must not count has the logit -inf on both sides, or
on the one side that there is. The loss is then that of the other classes, K
being their number, and the gradient of that logit is 0. -inf on one side
alone is a probability of 0: what the teacher rules out adds 0 to ``kl``, what
the student alone rules out makes it infinite. What is not defined is NaN: an
example of which too few classes are left, or whose label is not one of them
(infinite in ``cross_entropy``).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxkd.logits import Factored, SparseLogits, chunks, sparse
from jaxkd.logits.factored import dense_needed
from jaxkd.losses import _checks, _numerics, targets


def kl(student: Array, teacher: Array, *, temperature: float = 1.0) -> Array:
  """Kullback-Leibler divergence from the softened teacher's distribution.

  The loss of knowledge distillation: a high temperature shows how the teacher
  ranks the wrong classes. The factor T² keeps the gradients, and with them
  the mixing weight, at the same size for every temperature.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality.

  Formula:
    T² Σ_k p_k log(p_k / q_k), p = softmax(v / T), q = softmax(z / T)

  References:
    Hinton et al., `Distilling the Knowledge in a Neural Network
    <https://arxiv.org/abs/1503.02531>`_, 2015

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(kl(student, teacher, temperature=4.0).item(), 3)
    1.775

  Variants:
    - torch's ``kl_div(reduction='mean')`` averages over the K classes too and
      is K times smaller; the mean of this is its ``'batchmean'``.
    - The paper mixes in the cross-entropy to the softened teacher:
      ``soft_cross_entropy`` has the same gradient and another value.
    - Some code leaves T² out, or only where there is no label term.
  """
  loss = _over_classes(_forward, student, teacher, temperature)
  return temperature**2 * loss


def reverse_kl(
  student: Array, teacher: Array, *, temperature: float = 1.0
) -> Array:
  """Kullback-Leibler divergence from the student's distribution.

  Seeks a mode: the student pays for mass where the teacher has none, and not
  for missing some of the teacher's, as suits one too small to cover it all.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality.

  Formula:
    T² Σ_k q_k log(q_k / p_k), p = softmax(v / T), q = softmax(z / T)

  References:
    Gu et al., `MiniLLM: Knowledge Distillation of Large Language Models
    <https://arxiv.org/abs/2306.08543>`_, 2024

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(reverse_kl(student, teacher, temperature=4.0).item(), 3)
    1.922

  Variants:
    - MiniLLM's is over whole sequences that the student samples, by policy
      gradient; this is the divergence at each token, as GKD has it.
    - Code for language models leaves T² out.
  """
  loss = _over_classes(_reverse, student, teacher, temperature)
  return temperature**2 * loss


def binary_kl(
  student: Array, teacher: Array, *, temperature: float = 1.0
) -> Array:
  """Sum over classes of the divergences of their own probabilities.

  For logits whose sigmoids, and not whose softmax, are probabilities, as those
  of detectors and of examples with several labels. How sure the teacher is
  that an anchor holds nothing is told too, which a softmax would not tell.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality.

  Formula:
    T² Σ_k p_k log(p_k / q_k) + (1 - p_k) log((1 - p_k) / (1 - q_k)), p =
    sigmoid(v / T), q = sigmoid(z / T)

  References:
    Yang et al., `Bridging Cross-task Protocol Inconsistency for Distillation in
    Dense Object Detection <https://arxiv.org/abs/2308.14286>`_, 2023

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(binary_kl(student, teacher).item(), 3)
    0.603

  Variants:
    - The paper takes the cross-entropy, which has the same gradient, weighs
      each anchor by how far p is from q, and has T = 1.
    - Some code averages over the classes.
  """
  _checks.arrays(
    student=(student, 'float[..., K]'), teacher=(teacher, 'float[..., K]')
  )
  _checks.positive(temperature=temperature)
  student, teacher = _numerics.upcast(student, teacher)

  def both(logits):
    z = _numerics.soften(logits, temperature)
    return jnp.stack([jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)], -1)

  found = _numerics.divergence(both(teacher), both(student), (-2, -1))
  return temperature**2 * found


def jensen_shannon(
  student: Array,
  teacher: Array,
  *,
  beta: float = 0.5,
  temperature: float = 1.0,
) -> Array:
  """Generalised Jensen-Shannon divergence between teacher and student.

  Bounded, and between the two directions of the Kullback-Leibler divergence.
  As in the paper, its ends stand for those directions, so it jumps there:
  near 0 and 1 the divergence itself goes to 0.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    beta: β in [0, 1], the teacher's share of the mixture. 0 is ``kl``, 1 is
      ``reverse_kl``, ½ the symmetric divergence.
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality.

  Formula:
    T² [β KL(p ‖ m) + (1 - β) KL(q ‖ m)], m = β p + (1 - β) q,
    p = softmax(v / T), q = softmax(z / T)

  References:
    Agarwal et al., `On-Policy Distillation of Language Models: Learning from
    Self-Generated Mistakes <https://arxiv.org/abs/2306.13649>`_, 2024

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(jensen_shannon(student, teacher).item(), 3)
    0.18

  Variants:
    - TRL and Liger have no T². An early version of TRL's mixed logarithms in
      place of probabilities, with β on the student's side.
    - Elsewhere β → 0 is the limit: 0, or ``kl`` after dividing by β.
  """
  _checks.within(0, 1, beta=beta)
  sides = student, teacher, temperature
  if isinstance(beta, jax.core.Tracer):
    loss = _over_classes(_mixed_or_end, *sides, beta)
  elif 0 < beta < 1:
    loss = _over_classes(_mixed, *sides, beta)
  else:
    loss = _over_classes(_reverse if beta > 0 else _forward, *sides)
  return temperature**2 * loss


def skewed_kl(
  student: Array,
  teacher: Array,
  *,
  alpha: float = 0.1,
  temperature: float = 1.0,
) -> Array:
  """Kullback-Leibler divergence from the teacher to a mixture with it (SKL).

  Some of the teacher in what the student is compared as bounds the loss by
  log(1 / α), and with it the gradient of classes that the student rules out.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    alpha: α in [0, 1], the teacher's share of the mixture. 0 is ``kl``; the
      gradient shrinks with 1 - α.
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality.

  Formula:
    T² KL(p ‖ α p + (1 - α) q), p = softmax(v / T), q = softmax(z / T)

  References:
    Ko et al., `DistiLLM: Towards Streamlined Distillation for Large Language
    Models <https://arxiv.org/abs/2402.03898>`_, 2024

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(skewed_kl(student, teacher).item(), 3)
    0.514

  Variants:
    - The authors' code leaves out the teacher's entropy: the same gradient, but
      not 0 at equality. Classes at -inf on one side add 0 there.
  """
  _checks.within(0, 1, alpha=alpha)
  if not isinstance(alpha, jax.core.Tracer) and alpha == 0:
    return kl(student, teacher, temperature=temperature)
  loss = _over_classes(_skewed, student, teacher, temperature, alpha)
  return temperature**2 * loss


def skewed_reverse_kl(
  student: Array,
  teacher: Array,
  *,
  alpha: float = 0.1,
  temperature: float = 1.0,
) -> Array:
  """Kullback-Leibler divergence from the student to a mixture with it (SRKL).

  As ``reverse_kl``, and bounded by log(1 / α) where the teacher rules out what
  the student does not.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    alpha: α in [0, 1], the student's share of the mixture. 0 is
      ``reverse_kl``.
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality.

  Formula:
    T² KL(q ‖ (1 - α) p + α q), p = softmax(v / T), q = softmax(z / T)

  References:
    Ko et al., `DistiLLM: Towards Streamlined Distillation for Large Language
    Models <https://arxiv.org/abs/2402.03898>`_, 2024

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(skewed_reverse_kl(student, teacher).item(), 3)
    0.699

  Variants:
    - In the authors' code classes at -inf on one side add 0.
  """
  _checks.within(0, 1, alpha=alpha)
  if not isinstance(alpha, jax.core.Tracer) and alpha == 0:
    return reverse_kl(student, teacher, temperature=temperature)
  loss = _over_classes(_skewed_reverse, student, teacher, temperature, alpha)
  return temperature**2 * loss


def total_variation(
  student: Array, teacher: Array, *, temperature: float = 1.0
) -> Array:
  """Total variation distance between the softened distributions.

  The mass that has to move to turn one into the other. Bounded by 1 and
  symmetric, so a few examples cannot dominate a batch.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    temperature: T > 0; divides both.

  Returns:
    The distance for each example, from 0 at equality to 1, [...].

  Formula:
    ½ Σ_k |p_k - q_k|, p = softmax(v / T), q = softmax(z / T)

  References:
    Wen et al., `f-Divergence Minimization for Sequence-Level Knowledge
    Distillation <https://arxiv.org/abs/2307.15190>`_, 2023

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(total_variation(student, teacher).item(), 3)
    0.482

  Variants:
    - Some code leaves ½ out. There is no T² in any that we know of.
  """
  return _over_classes(_half_gap, student, teacher, temperature)


def soft_cross_entropy(
  student: Array, teacher: Array, *, temperature: float = 1.0
) -> Array:
  """Cross-entropy of the student to the softened teacher.

  As ``kl`` without the teacher's entropy, which does not depend on the
  student: the same gradient, but not 0 at equality.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; at equality T² times the
    entropy of the teacher, its minimum over students.

  Formula:
    -T² Σ_k p_k log q_k, p = softmax(v / T), q = softmax(z / T)

  References:
    Hinton et al., `Distilling the Knowledge in a Neural Network
    <https://arxiv.org/abs/1503.02531>`_, 2015

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(soft_cross_entropy(student, teacher).item(), 3)
    0.693

  Variants:
    - Structured distillation for segmentation sums it over the batch and
      divides by the number of pixels of one image.
  """
  loss = _over_classes(_cross, student, teacher, temperature)
  return temperature**2 * loss


def permuted_soft_cross_entropy(
  key: Array, student: Array, teacher: Array
) -> Array:
  """Cross-entropy to the teacher with its wrong classes shuffled (DKPP).

  What is left of soft targets when they no longer say which wrong classes are
  alike: a control for dark knowledge.

  Args:
    key: draws a permutation for each example, a PRNG key.
    student: logits z, [B, K].
    teacher: logits v, [B, K].

  Returns:
    The loss of each example, nats, [B].

  Formula:
    -Σ_k p'_k log softmax(z)_k, p' of ``permute_dark_knowledge(key, v)``

  References:
    Furlanello et al., `Born-Again Neural Networks
    <https://arxiv.org/abs/1805.04770>`_, 2018

  Example:
    >>> student, teacher = jnp.zeros((1, 2)), jnp.array([[0.0, 4.0]])
    >>> key = jax.random.key(0)
    >>> round(permuted_soft_cross_entropy(key, student, teacher).item(), 3)
    0.693

  Variants:
    - The permutations must be drawn anew in each step; fixed ones would be
      another label set.
  """
  _checks.arrays(
    student=(student, 'float[B, K]'), teacher=(teacher, 'float[B, K]')
  )
  p = targets.permute_dark_knowledge(key, teacher)
  student = _numerics.upcast(student)
  # 0 log 0 is 0: what both rule out has any finite logarithm.
  never = jnp.isneginf(student) & (p == 0)
  student = jnp.where(never, jnp.finfo(student.dtype).min / 2, student)
  return -jnp.sum(p * jax.nn.log_softmax(student), axis=-1)


def logit_mse(student: Array, teacher: Array) -> Array:
  """Mean squared difference of the logits.

  Regression on the teacher before its softmax. It is where ``kl`` tends for a
  high temperature, but for ½ and the mean of each example's logits.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].

  Returns:
    The loss of each example, squared logits, [...]; 0 at equality.

  Formula:
    1/K Σ_k (z_k - v_k)²

  References:
    Ba & Caruana, `Do Deep Nets Really Need to be Deep?
    <https://arxiv.org/abs/1312.6184>`_, 2014

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> logit_mse(student, teacher).item()
    8.0

  Variants:
    - The paper has ½ and sums over the classes: K/2 times this.
  """
  _checks.arrays(
    student=(student, 'float[..., K]'), teacher=(teacher, 'float[..., K]')
  )
  student, teacher = _numerics.upcast(student, teacher)
  there = _numerics.classes(student, teacher)
  return _mean_square(student - teacher, there)


def probability_mse(student: Array, teacher: Array) -> Array:
  """Mean squared difference of the predictions (mean teacher).

  Bounded, and flat where the student is sure, so it is gentler than ``kl`` to a
  student that is sure of another class.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].

  Returns:
    The loss of each example, from 0 at equality to 2 / K, [...].

  Formula:
    1/K Σ_k (p_k - q_k)², p = softmax(v), q = softmax(z)

  References:
    Tarvainen & Valpola, `Mean teachers are better role models
    <https://arxiv.org/abs/1703.01780>`_, 2017

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(probability_mse(student, teacher).item(), 3)
    0.232

  Variants:
    - The authors' PyTorch code has the mean over classes, as here, with weight
      100 on CIFAR-10; their ImageNet code has ``kl`` with weight 10.
  """
  log_q, log_p = _softened(student, teacher, 1.0)
  there = _numerics.classes(*_numerics.upcast(student, teacher))
  return _mean_square(jnp.exp(log_q) - jnp.exp(log_p), there)


def noisy_logit_mse(
  key: Array,
  student: Array,
  teacher: Array,
  *,
  share: float = 0.5,
  std: float = 0.3,
) -> Array:
  """``logit_mse`` to a teacher that is disturbed on some examples.

  Noise on one teacher's logits, drawn anew for each batch, stands for many
  teachers that differ.

  Args:
    key: draws the examples and the noise, a PRNG key.
    student: logits z, [B, K].
    teacher: logits v, [B, K].
    share: the probability that an example is disturbed.
    std: σ, of the noise in units of the logit itself.

  Returns:
    The loss of each example, squared logits, [B].

  Formula:
    1/K Σ_k (z_k - v_k (1 + m ε_k))², ε_k ~ N(0, σ²), m ~ Bernoulli(share) of
    the example

  References:
    Sau & Balasubramanian, `Deep Model Compression: Distilling Knowledge from
    Noisy Teachers <https://arxiv.org/abs/1610.09650>`_, 2016

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> key = jax.random.key(0)
    >>> noisy_logit_mse(key, student, teacher, share=0.0).item()
    8.0

  Variants:
    - KD_Lib draws once whether all of a batch is disturbed. Its variance of
      0.1 and share of ½ are the defaults here.
  """
  _checks.arrays(
    student=(student, 'float[B, K]'), teacher=(teacher, 'float[B, K]')
  )
  _checks.within(0, 1, share=share)
  _checks.non_negative(std=std)
  student, teacher = _numerics.upcast(student, teacher)
  which, what = jax.random.split(key)
  disturbed = jax.random.bernoulli(which, share, (len(teacher), 1))
  noise = std * jax.random.normal(what, teacher.shape, teacher.dtype)
  there = _numerics.classes(student, teacher)
  noisy = teacher * (1 + jnp.where(disturbed, noise, 0))
  return _mean_square(student - noisy, there)


def top_k_kl(
  student: Array,
  teacher: Array | SparseLogits,
  *,
  k: int | None = None,
  temperature: float = 1.0,
  tail: str = 'bucket',
) -> Array:
  """Kullback-Leibler divergence on the teacher's k most likely classes.

  For large vocabularies, whose teacher is stored as its k largest
  probabilities. What the other classes hold is compared as one class, which
  keeps most of the gradient, or treated as one of the other tails says.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K]; or `jaxkd.logits.SparseLogits` of them at the
      same temperature.
    k: how many classes, from 1 to K; those that they have of sparse logits.
    temperature: T > 0; divides both.
    tail: 'bucket' adds a class that holds the rest, 'renormalize' makes both
      sides distributions over the k classes, 'uniform' has the other classes
      share the teacher's rest equally, 'drop' leaves them out of the sum.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality, but under
    'uniform' and 'drop'.

  Formula:
    T² [Σ_j p_j log(p_j / q_j) + p_rest log(p_rest / q_rest)], j over the k
    classes of largest v, p_rest = 1 - Σ_j p_j, q_rest = 1 - Σ_j q_j; the sum
    alone ('drop'), with p and q divided by their sums over the k
    ('renormalize'), or with T² Σ_i s log(s / q_i), s = p_rest / (K - k), over
    the others ('uniform')

  References:
    Tan et al., `Multilingual Neural Machine Translation with Knowledge
    Distillation <https://arxiv.org/abs/1902.10461>`_, 2019

  Example:
    >>> student = jnp.array([[0.0, 0.0, 0.0]])
    >>> teacher = jnp.array([[0.0, 1.0, 2.0]])
    >>> round(top_k_kl(student, teacher, k=2).item(), 3)
    0.266
    >>> round(top_k_kl(student, teacher, k=2, tail='renormalize').item(), 3)
    0.111

  Variants:
    - The paper, and much code, renormalises over the k: nothing then tells the
      student how much the others hold, which is most of what is lost.
    - Some code renormalises the teacher alone, which teaches the student to
      put no mass on the other classes.
    - Some code does not renormalise at all ('drop'); that sum can be negative.
  """
  _checks.one_of(sparse.TAILS, tail=tail)
  _checks.positive(temperature=temperature)
  if isinstance(teacher, SparseLogits):
    _checks.arrays(student=(student, 'float[..., K]'))
    if k not in (None, teacher.k):
      raise ValueError(f'k must be the {teacher.k} of the teacher, not {k!r}')
  else:
    _checks.arrays(
      student=(student, 'float[..., K]'), teacher=(teacher, 'float[..., K]')
    )
    _checks.integer(1, teacher.shape[-1], k=k)
    student, teacher = _numerics.upcast(student, teacher)
    teacher = SparseLogits.of(teacher, k, temperature=temperature)
  log_q, log_p = sparse.log_probs(
    student, teacher, temperature=temperature, tail=tail
  )
  return temperature**2 * _numerics.divergence(log_p, log_q)


def universal_logit_distance(
  student: Array, teacher: Array, *, temperature: float = 1.0
) -> Array:
  """Universal logit distance (ULD), between unequal vocabularies.

  Compares how the probabilities are spread and not what they stand for: the
  likeliest class of one side with the likeliest of the other, and so on. It is
  the cost of moving one distribution to the other where all classes are equally
  far from each other.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., J], of any number of classes.
    temperature: T > 0; divides both.

  Returns:
    The distance for each example, from 0 to 2, [...]; 0 where the sorted
    probabilities are equal.

  Formula:
    Σ_k |q_(k) - p_(k)|, p = softmax(v / T), q = softmax(z / T), each sorted
    downwards and filled up with 0 to max(K, J)

  References:
    Boizard et al., `Towards Cross-Tokenizer Distillation: the Universal Logit
    Distillation Loss for LLMs <https://arxiv.org/abs/2402.12030>`_, 2024

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0, 0.0]])
    >>> round(universal_logit_distance(student, teacher).item(), 3)
    0.965

  Variants:
    - The authors' code takes the mean over the tokens of each answer, cut to
      the shorter of the two tokenisations, and then over the answers, so a
      token of a short answer counts more. Here the mask says which tokens
      count, and each counts the same.
    - Its weight in their recipe is 1.5, beside the cross-entropy to the labels.
    - TRL's GOLD first compares the tokens that both vocabularies spell alike.
  """
  _checks.arrays(
    student=(student, 'float[..., K]'), teacher=(teacher, 'float[..., J]')
  )
  _checks.positive(temperature=temperature)
  q, p = (
    jnp.sort(jax.nn.softmax(_numerics.soften(x, temperature)), descending=True)
    for x in _numerics.upcast(student, teacher)
  )
  shared = min(q.shape[-1], p.shape[-1])
  gap = jnp.abs(q[..., :shared] - p[..., :shared]).sum(-1)
  # The classes that one side has more of stand against a probability of 0.
  return gap + q[..., shared:].sum(-1) + p[..., shared:].sum(-1)


def decoupled_kl(
  student: Array,
  teacher: Array,
  labels: Array,
  *,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
) -> Array:
  """Decoupled knowledge distillation (DKD).

  Splits ``kl`` into how sure the teacher is of the label (TCKD) and how it
  ranks the others (NCKD). In ``kl`` the latter is scaled by the teacher's
  mass off the label, so it counts least where the teacher is best.

  Args:
    student: logits z, [..., K]; K of at least 2.
    teacher: logits v, [..., K].
    labels: class indices from 0 to K - 1, integers [...].
    alpha: α, the weight of TCKD.
    beta: β, the weight of NCKD. α = 1 and β = 1 - p_label, one per example,
      would give ``kl``.
    temperature: T > 0; divides both.

  Returns:
    The loss of each example, nats times T², [...]; 0 at equality, NaN where
    the label is no class.

  Formula:
    T² (α KL(b_v ‖ b_z) + β KL(n_v ‖ n_z)), b_x = (p_label, 1 - p_label) with
    p = softmax(x / T), n_x = softmax(x / T) over the classes but the label

  References:
    Zhao et al., `Decoupled Knowledge Distillation
    <https://arxiv.org/abs/2203.08679>`_, 2022

  Example:
    >>> student = jnp.array([[0.0, 0.0, 0.0]])
    >>> teacher = jnp.array([[0.0, 4.0, 8.0]])
    >>> round(decoupled_kl(student, teacher, jnp.array([2])).item(), 3)
    17.866

  Variants:
    - The authors' code ramps the loss up over the first epochs (a weight
      schedule), and hides the label by taking 1000 from its logit, which
      leaves it in where the logits differ by more.
    - The default β is that code's too; its recipes set β for each pair of nets.
  """
  _checks.arrays(
    student=(student, 'float[..., K]'),
    teacher=(teacher, 'float[..., K]'),
    labels=(labels, 'int[...]'),
  )
  _checks.numbers(alpha=alpha, beta=beta)
  _checks.last_axis(2, student=student)
  log_q, log_p = _softened(student, teacher, temperature)
  target = _one_hot(labels, log_p)

  def split(log_x):
    binary = [
      jax.nn.logsumexp(log_x, axis=-1, keepdims=True, where=where)
      for where in (target, ~target)
    ]
    others = jax.nn.log_softmax(log_x, where=~target)
    return jnp.concatenate(binary, axis=-1), others

  (binary_p, others_p), (binary_q, others_q) = split(log_p), split(log_q)
  loss = alpha * _numerics.divergence(binary_p, binary_q)
  loss += beta * _numerics.divergence(others_p, others_q)
  there = _numerics.classes(log_q, log_p)
  return _known(labels, log_p, temperature**2 * loss, there)


def dist(
  student: Array,
  teacher: Array,
  *,
  beta: float = 1.0,
  gamma: float = 1.0,
  temperature: float = 1.0,
  where: Array | None = None,
) -> Array:
  """Distillation from a stronger teacher (DIST): correlations, not values.

  The student's probabilities need only be a linear function of the teacher's:
  over the classes of each example, and over the examples for each class. The
  second needs the whole batch.

  Args:
    student: logits z, [B, K]; K of at least 2.
    teacher: logits v, [B, K].
    beta: β, the weight over the classes of an example (inter-class).
    gamma: γ, the weight over the examples of a class (intra-class).
    temperature: T > 0; divides both.
    where: true for the examples that count, bool [B]; all by default.

  Returns:
    The loss of each example, [B]: its own inter-class part and the batch's
    intra-class part; 0 at equality and where padded. A correlation with a
    constant is 0.

  Formula:
    T² (β (1 - r(p_b, q_b)) + γ/K Σ_k (1 - r(p_·k, q_·k))), r Pearson's
    correlation, p = softmax(v / T), q = softmax(z / T)

  References:
    Huang et al., `Knowledge Distillation from A Stronger Teacher
    <https://arxiv.org/abs/2205.10536>`_, 2022

  Example:
    >>> student = jnp.array([[0.0, 1.0, 3.0], [1.0, 0.0, 0.0]])
    >>> teacher = jnp.array([[0.0, 2.0, 1.0], [2.0, 0.0, 0.0]])
    >>> round(dist(student, teacher).mean().item(), 3)
    1.256

  Variants:
    - The authors' code adds 1e-8 to the product of the norms, which shrinks
      the correlation of classes that are rare in the whole batch.
    - Their segmentation code has no temperature.
    - Code that adds the correlation, and not 1 less it, pulls the wrong way.
  """
  _checks.arrays(
    student=(student, 'float[B, K]'),
    teacher=(teacher, 'float[B, K]'),
    where=(where, 'bool[B] or None'),
  )
  _checks.numbers(beta=beta, gamma=gamma)
  _checks.last_axis(2, student=student)
  log_q, log_p = _softened(
    _numerics.keep(where, student), _numerics.keep(where, teacher), temperature
  )
  p, q = jnp.exp(log_p), jnp.exp(log_q)
  there = _numerics.classes(log_q, log_p)
  inter = 1 - _numerics.pearson(q, p, axis=1, where=there)
  inter = jnp.where(_several(there), inter, jnp.nan)
  if where is not None:
    there &= where[:, None]
  # A class that no example has is not one of the K.
  anywhere = jnp.any(there, axis=0)
  intra = 1 - _numerics.pearson(q, p, axis=0, where=there)
  intra = _mean(jnp.where(anywhere, intra, 0), anywhere)
  return _numerics.keep(where, temperature**2 * (beta * inter + gamma * intra))


def standardize(logits: Array, *, eps: float = 1e-7) -> Array:
  """Logits less their mean, over their standard deviation.

  Logit standardisation is ``kl`` of two standardised logits: the student is
  then free in the shift and the scale of its logits, and the temperature
  means the same for every example.

  Args:
    logits: x, [..., K]; K of at least 2.
    eps: added to the standard deviation.

  Returns:
    Standardised logits, [..., K]; 0 where all K are equal. A class at -inf
    stays there and is not one of the K.

  Formula:
    (x - mean(x)) / (std(x) + ε), over the classes, std with K - 1

  References:
    Sun et al., `Logit Standardization in Knowledge Distillation
    <https://arxiv.org/abs/2403.01427>`_, 2024

  Example:
    >>> print(standardize(jnp.array([[0.0, 2.0, 4.0]])))
    [[-1.  0.  1.]]

  Variants:
    - The paper's formula has K under the root, its code (torch's ``std``) has
      K - 1, as here: a factor of √(K / (K - 1)) in the temperature.
  """
  _checks.arrays(logits=(logits, 'float[..., K]'))
  _checks.positive(eps=eps)
  _checks.last_axis(2, logits=logits)
  logits = _numerics.upcast(logits)
  there = _numerics.classes(logits)
  gap = _numerics.center(logits, where=there)
  others = logits.shape[-1] - 1
  variance = jnp.sum(jnp.square(gap), axis=-1, keepdims=True) / others
  variance *= others / (jnp.sum(there, -1, keepdims=True, dtype=gap.dtype) - 1)
  standard = gap / (_numerics.safe_sqrt(variance) + eps)
  return jnp.where(there, standard, -jnp.inf)


def weighted_soft_labels(
  student: Array,
  teacher: Array,
  labels: Array,
  *,
  temperature: float = 2.0,
) -> Array:
  """Weighted soft labels (WSLD).

  Soft labels cost bias where the teacher knows less than the student. So each
  example is weighted by how far the student still is behind the teacher on
  the label; no gradient flows through the weight.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    labels: class indices from 0 to K - 1, integers [...].
    temperature: T > 0; divides both in the soft cross-entropy alone.

  Returns:
    The loss of each example, nats times T², [...]; NaN where the label is no
    class. At equality the weight is 1 - 1/e.

  Formula:
    -T² w Σ_k p_k log q_k, w = 1 - exp(-CE(z) / max(CE(v), 1e-7)), detached,
    CE at T = 1, p = softmax(v / T), q = softmax(z / T)

  References:
    Zhou et al., `Rethinking Soft Labels for Knowledge Distillation: A
    Bias-Variance Tradeoff Perspective <https://arxiv.org/abs/2102.00650>`_,
    2021

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(weighted_soft_labels(student, teacher, jnp.array([1])).item(), 3)
    2.773

  Variants:
    - The authors' code adds 1e-7 to CE(v) where this clamps it, for the same
      end: 0/0 where both are sure of the label.
    - The weight keeps the loss from ending at the teacher: with KL in place
      of the cross-entropy the gradient would be the same.
  """
  log_q, log_p = _softened(student, teacher, temperature)
  _checks.arrays(
    student=(student, 'float[..., K]'), labels=(labels, 'int[...]')
  )
  nearest = _nearest_class(labels, student)
  behind = cross_entropy(student, nearest)
  behind /= jnp.maximum(cross_entropy(teacher, nearest), 1e-7)
  weight = jax.lax.stop_gradient(-jnp.expm1(-behind))
  loss = temperature**2 * weight * _soft_cross_entropy(log_q, log_p)
  return _known(labels, student, loss)


def virtual_teacher(
  logits: Array,
  labels: Array,
  *,
  correct: float = 0.99,
  temperature: float = 20.0,
  variant: str = 'paper',
) -> Array:
  """Teacher-free regularisation (Tf-KD-reg): a teacher made by hand.

  The teacher is always right and knows nothing about the other classes.
  Distilling from it shows how much of distillation is label smoothing.

  Args:
    logits: z, [..., K]; K of at least 2.
    labels: class indices from 0 to K - 1, integers [...].
    correct: c in [0, 1], the teacher's probability of the label.
    temperature: T > 0.
    variant: 'paper' softens both sides and has T²; 'code' is what the authors
      ran.

  Returns:
    The loss of each example, nats times T², [...]; NaN where the label is no
    class.

  Formula:
    T² KL(softmax(u / T) ‖ softmax(z / T)), u_label = c, else (1 - c)/(K - 1)

  References:
    Yuan et al., `Revisiting Knowledge Distillation via Label Smoothing
    Regularization <https://arxiv.org/abs/1909.11723>`_, 2020

  Example:
    >>> logits, labels = jnp.array([[0.0, 2.0, 4.0]]), jnp.array([2])
    >>> round(virtual_teacher(logits, labels).item(), 3)
    0.779
    >>> round(virtual_teacher(logits, labels, variant='code').item(), 3)
    0.337

  Variants:
    - 'code': 1/K KL(softmax(u / T) ‖ softmax(z)): the student is not
      softened, there is no T², and torch's ``KLDivLoss`` averages over the
      classes; the authors' ``multiplier`` is a weight on it.
    - Both soften the probabilities u, not their logarithms, so that at T = 20
      the teacher is all but uniform.
  """
  _checks.arrays(logits=(logits, 'float[..., K]'), labels=(labels, 'int[...]'))
  _checks.within(0, 1, correct=correct)
  _checks.positive(temperature=temperature)
  _checks.one_of(('paper', 'code'), variant=variant)
  _checks.last_axis(2, logits=logits)
  logits = _numerics.upcast(logits)
  there, target = _numerics.classes(logits), _one_hot(labels, logits)
  classes = logits.shape[-1]
  count = jnp.sum(there, axis=-1, keepdims=True, dtype=logits.dtype)
  rest = (1 - correct) / (classes - 1) * ((classes - 1) / (count - 1))
  teacher = jnp.asarray(jnp.where(target, correct, rest), logits.dtype)
  teacher = jnp.where(there, teacher, -jnp.inf)
  log_p = jax.nn.log_softmax(_numerics.soften(teacher, temperature))
  if variant == 'paper':
    log_q = jax.nn.log_softmax(_numerics.soften(logits, temperature))
    loss = temperature**2 * _numerics.divergence(log_p, log_q)
  else:
    loss = _numerics.divergence(log_p, jax.nn.log_softmax(logits))
    factor = _numerics.mean_factor(there, dtype=logits.dtype)
    loss = loss / classes * factor[..., 0]
  loss = jnp.where(_several(there), loss, jnp.nan)
  return _known(labels, logits, loss, there)


def cross_entropy(
  logits: Array,
  labels: Array,
  *,
  label_smoothing: float = 0.0,
  class_weights: Array | Sequence[float] | None = None,
  every: bool = False,
) -> Array:
  """Cross-entropy to labels.

  The ground-truth term of nearly every recipe, at T = 1. Smoothing moves a
  share of the label's mass to all K classes evenly, the label included. Weights
  of the classes let rare ones count for more.

  Args:
    logits: z, [..., K].
    labels: class indices from 0 to K - 1, integers [...]; or probabilities p of
      the classes, [..., K], as mixup and cutmix give, in place of onehot.
    label_smoothing: ε in [0, 1], the mass that is spread.
    class_weights: w, K numbers from 0 on; 1 for all by default.
    every: the labels are of whole examples, [B] or [B, K], and each position of
      logits [B, ..., K] has that of its example.

  Returns:
    The loss of each example, nats, [...]; NaN where the label is no class
    (mask such examples with ``jnp.where``, not by a product).

  Formula:
    -Σ_k w_k u_k log softmax(z)_k, u = (1 - ε) onehot(label) + ε/K

  References:
    Szegedy et al., `Rethinking the Inception Architecture for Computer Vision
    <https://arxiv.org/abs/1512.00567>`_, 2015

  Example:
    >>> round(cross_entropy(jnp.array([[0.0, 2.0]]), jnp.array([1])).item(), 3)
    0.127

  Variants:
    - Some code, that of teacher-free distillation for one, spreads ε over the
      K - 1 other classes.
    - With weights, PyTorch's mean over a batch divides by the sum of the
      weights of its labels; the mean of what is here divides by the number of
      examples. For weights whose mean over the training labels is 1 they
      differ by how the classes of a batch happen to fall.
  """
  floats = jnp.issubdtype(getattr(labels, 'dtype', int), jnp.floating)
  if every:
    kind = 'float[B, K]' if floats else 'int[B]'
    _checks.arrays(logits=(logits, 'float[B, ..., K]'), labels=(labels, kind))
    axes = tuple(range(1, logits.ndim - 1))
    shape = logits.shape if floats else logits.shape[:-1]
    labels = jnp.broadcast_to(jnp.expand_dims(labels, axes), shape)
  soft = floats and jnp.ndim(labels) == jnp.ndim(logits)
  kind = 'float[..., K]' if soft else 'int[...]'
  _checks.arrays(logits=(logits, 'float[..., K]'), labels=(labels, kind))
  _checks.within(0, 1, label_smoothing=label_smoothing)
  weights = _checks.weights(logits.shape[-1], class_weights=class_weights)
  factored = isinstance(logits, Factored)
  smooth = isinstance(label_smoothing, jax.core.Tracer) or label_smoothing
  if factored and (soft or (smooth and weights is not None)):
    how = 'with class weights and smoothing' if not soft else 'to probabilities'
    raise dense_needed(logits, f'cross_entropy {how}')
  if not factored:
    logits = _numerics.upcast(logits)
  if soft:
    log_q = jnp.where(labels == 0, 0, jax.nn.log_softmax(logits))
    each = labels.astype(logits.dtype) * log_q
    loss = -jnp.sum(_times(weights, each), axis=-1)
  else:
    ids = _nearest_class(labels, logits)
    if factored:
      loss = -chunks.log_probabilities(logits, ids[..., None])[..., 0]
    else:
      loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, ids)
    if weights is not None:
      loss = weights[ids] * loss
  if smooth:
    if factored:
      count = chunks.sum_over_classes(_there, jax.lax.stop_gradient(logits))
      uniform = chunks.sum_over_classes(_surprise, logits) / count
    else:
      there = _numerics.classes(logits)
      each = jnp.where(there, jax.nn.log_softmax(logits), 0)
      uniform = -_mean(_times(weights, each), there)
    loss = (1 - label_smoothing) * loss + label_smoothing * uniform
  return loss if soft else _known(labels, logits, loss)


def binary_cross_entropy(
  logits: Array,
  labels: Array,
  *,
  label_smoothing: float = 0.0,
  class_weights: Array | Sequence[float] | None = None,
  positive_weights: Array | Sequence[float] | None = None,
  valid: Array | None = None,
) -> Array:
  """Sum over classes of the cross-entropies to labels of 0 and 1.

  For examples of several classes, or of none: each class has a probability of
  its own, the sigmoid of its logit, and a label of its own. ``binary_kl`` is
  the same to a teacher in place of the labels.

  Args:
    logits: z, [..., K].
    labels: y, 0 or 1, bools, integers or floats [..., K]; those in between are
      probabilities.
    label_smoothing: ε in [0, 1]: labels y become (1 - ε) y + ε/2.
    class_weights: w, K numbers from 0 on; 1 for all by default.
    positive_weights: a, K numbers from 0 on, by which the part of a label of 1
      counts more than that of 0; 1 for all by default.
    valid: which labels are known, bool [..., K]; all by default. The others
      add 0.

  Returns:
    The loss of each example, nats, [...]; NaN where a label that is known is
    not from 0 to 1.

  Formula:
    -Σ_k w_k (a_k u_k log q_k + (1 - u_k) log(1 - q_k)), q = sigmoid(z),
    u = (1 - ε) y + ε/2

  References:
    Yang et al., `Multi-Label Knowledge Distillation
    <https://arxiv.org/abs/2308.06453>`_, 2023

  Example:
    >>> logits, labels = jnp.array([[0.0, 4.0]]), jnp.array([[1, 1]])
    >>> round(binary_cross_entropy(logits, labels).item(), 3)
    0.711

  Variants:
    - PyTorch's mean is over the classes too: this over K.
    - Some code divides by the number of known labels of an example; here each
      known label counts the same, in whatever example it is.
  """
  dtype, kind = getattr(labels, 'dtype', int), 'int'
  if jnp.issubdtype(dtype, jnp.floating):
    kind = 'float'
  elif jnp.issubdtype(dtype, jnp.bool_):
    kind = 'bool'
  _checks.arrays(
    logits=(logits, 'float[..., K]'),
    labels=(labels, f'{kind}[..., K]'),
    valid=(valid, 'bool[..., K] or None'),
  )
  _checks.within(0, 1, label_smoothing=label_smoothing)
  classes = logits.shape[-1]
  weights = _checks.weights(classes, class_weights=class_weights)
  more = _checks.weights(classes, positive_weights=positive_weights)
  logits = _numerics.at_valid(valid, _numerics.upcast(logits))
  labels = _numerics.at_valid(valid, labels.astype(logits.dtype))
  inside = (labels >= 0) & (labels <= 1)
  spread = jnp.where(_numerics.classes(logits), label_smoothing, 0)
  yes = (1 - spread) * labels + spread / 2

  def part(share, z):  # 0 log 0 is 0, in value and gradient
    none = share == 0
    return share * jax.nn.log_sigmoid(jnp.where(none & jnp.isinf(z), 0, z))

  found = _times(more, part(yes, logits)) + part(1 - yes, -logits)
  found = _numerics.at_valid(valid, _times(weights, found))
  return -jnp.sum(found * _numerics.one_or_nan(inside), axis=-1)


def pseudo_label(student: Array, teacher: Array) -> Array:
  """Cross-entropy to the class that the teacher finds most likely.

  Hard labels by the teacher, for data that has none. All that is left of the
  teacher is its first choice, so no gradient reaches it.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].

  Returns:
    The loss of each example, nats, [...]; NaN where the teacher's logits are
    NaN, infinite or all -inf.

  Formula:
    -log softmax(z)_j, j = argmax_k v_k, the first of equals

  References:
    Lee, `Pseudo-Label: The Simple and Efficient Semi-Supervised Learning
    Method for Deep Neural Networks
    <https://www.kaggle.com/blobs/download/forum-message-attachment-files/746/pseudo_label_final.pdf>`_,
    2013

  Example:
    >>> student, teacher = jnp.array([[0.0, 2.0]]), jnp.array([[0.0, 1.0]])
    >>> round(pseudo_label(student, teacher).item(), 3)
    0.127

  Variants:
    - In the paper the labels are the student's own. Semi-supervised methods
      keep only those above a confidence: a weight here.
  """
  _checks.arrays(
    student=(student, 'float[..., K]'), teacher=(teacher, 'float[..., K]')
  )
  loss = cross_entropy(student, teacher.argmax(axis=-1))
  return loss * _numerics.one_or_nan(_numerics.is_distribution(teacher))


def multi_level_logits(
  student: Array,
  teacher: Array,
  *,
  temperatures: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0),
  where: Array | None = None,
) -> Array:
  """Multi-level logit distillation (MLKD).

  Aligns the predictions of each example, how the examples of the batch
  resemble each other, and how its classes do, at several temperatures. The
  last two need the whole batch.

  Args:
    student: logits z, [B, K].
    teacher: logits v, [B, K].
    temperatures: the values of T, each above 0.
    where: true for the examples that count, bool [B]; all by default.

  Returns:
    The loss of each example, [B]: its own divergence, its row of the batch
    part and the batch's class part; 0 at equality and where padded.

  Formula:
    Σ_T T² KL(p_b ‖ q_b) + Σ_a ((Q Qᵀ - P Pᵀ)_ba)² + 1/K ‖Qᵀ Q - Pᵀ P‖²,
    P = softmax(v / T), Q = softmax(z / T), [B, K]; the mean over b of the
    middle term is 1/B ‖Q Qᵀ - P Pᵀ‖²

  References:
    Jin et al., `Multi-Level Logit Distillation
    <https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html>`_,
    2023

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> round(multi_level_logits(student, teacher).item(), 3)
    9.004

  Variants:
    - The authors' code adds the divergence of a strongly augmented view. Its
      mask of the less confident half multiplies sums that are already taken,
      so it scales the loss and selects nothing.
  """
  _checks.arrays(
    student=(student, 'float[B, K]'),
    teacher=(teacher, 'float[B, K]'),
    where=(where, 'bool[B] or None'),
  )
  if not isinstance(temperatures, (tuple, list)) or not temperatures:
    raise ValueError(
      f'temperatures must be a tuple of numbers above 0, not {temperatures!r}'
    )
  student, teacher = (
    _numerics.keep(where, student),
    _numerics.keep(where, teacher),
  )
  there = _numerics.classes(*_numerics.upcast(student, teacher))
  if where is not None:
    there &= where[:, None]
  anywhere = jnp.any(there, axis=0)
  loss = 0
  for temperature in temperatures:
    log_q, log_p = _softened(student, teacher, temperature)
    q = _numerics.keep(where, jnp.exp(log_q))
    p = _numerics.keep(where, jnp.exp(log_p))
    batch = jnp.sum(jnp.square(q @ q.T - p @ p.T), axis=1)
    classes = jnp.sum(jnp.square(q.T @ q - p.T @ p)) / p.shape[1]
    classes *= _numerics.mean_factor(anywhere, dtype=p.dtype)[0]
    loss += (
      temperature**2 * _numerics.divergence(log_p, log_q) + batch + classes
    )
  return _numerics.keep(where, loss)


def _softened(student, teacher, temperature):
  """Checked, upcast log-probabilities: log q of the student, log p."""
  _checks.arrays(
    student=(student, 'float[..., K]'), teacher=(teacher, 'float[..., K]')
  )
  _checks.positive(temperature=temperature)
  student, teacher = _numerics.upcast(student, teacher)
  return (
    jax.nn.log_softmax(_numerics.soften(student, temperature)),
    jax.nn.log_softmax(_numerics.soften(teacher, temperature)),
  )


def _over_classes(g, student, teacher, temperature, *options):
  """Σ_k g(log q_k, log p_k, *options), checked; in chunks where factored."""
  _checks.arrays(
    student=(student, 'float[..., K]'), teacher=(teacher, 'float[..., K]')
  )
  _checks.positive(temperature=temperature)
  return chunks.sum_over_classes(
    g, student, teacher, temperature=temperature, options=options
  )


# What a class adds to a loss, by its log-probabilities.


def _forward(log_q, log_p):
  return _numerics.divergence_terms(log_p, log_q)


def _reverse(log_q, log_p):
  return _numerics.divergence_terms(log_q, log_p)


def _skewed(log_q, log_p, alpha):
  return _numerics.divergence_terms(log_p, _log_mix(alpha, log_p, log_q))


def _skewed_reverse(log_q, log_p, alpha):
  return _numerics.divergence_terms(log_q, _log_mix(alpha, log_q, log_p))


def _mixed(log_q, log_p, beta):
  log_m = _log_mix(beta, log_p, log_q)
  share_p = beta * _numerics.divergence_terms(log_p, log_m)
  return share_p + (1 - beta) * _numerics.divergence_terms(log_q, log_m)


def _mixed_or_end(log_q, log_p, beta):
  """As `_mixed` for a β that a population maps over, either end too."""
  # The inner β keeps log 0 out of the branch that is not taken.
  inner = jnp.where((beta > 0) & (beta < 1), beta, 0.5)
  found = _mixed(log_q, log_p, inner)
  found = jnp.where(beta <= 0, _forward(log_q, log_p), found)
  return jnp.where(beta >= 1, _reverse(log_q, log_p), found)


def _half_gap(log_q, log_p):
  return 0.5 * jnp.abs(jnp.exp(log_p) - jnp.exp(log_q))


def _cross(log_q, log_p):
  return -jnp.exp(log_p) * jnp.where(jnp.isneginf(log_p), 0, log_q)


def _surprise(log_q):
  return jnp.where(jnp.isneginf(log_q), 0, -log_q)


def _there(log_q):
  return jnp.where(jnp.isneginf(log_q), 0, jnp.ones_like(log_q))


def _mean(values, there):
  """The mean of [..., K], 0 elsewhere, over the classes that there are."""
  factor = _numerics.mean_factor(there, dtype=values.dtype)[..., 0]
  mean = jnp.mean(values, axis=-1)
  return jnp.where(jnp.all(there, axis=-1), mean, mean * factor)


def _mean_square(gap, there):
  """The mean square of [..., K] over the classes that there are."""
  return _mean(optax.losses.squared_error(jnp.where(there, gap, 0)), there)


def _several(there):
  """Whether two classes [..., K] or more are there, bool [...]."""
  return jnp.sum(there, axis=-1) > 1


def _log_mix(share, log_p, log_q):
  """log(share · p + (1 - share) · q), of classes that neither rules out."""
  neither = jnp.isneginf(log_p) & jnp.isneginf(log_q)
  log_p, log_q = jnp.where(neither, 0, log_p), jnp.where(neither, 0, log_q)
  return jnp.logaddexp(jnp.log(share) + log_p, jnp.log1p(-share) + log_q)


def _soft_cross_entropy(log_q, log_p):
  return jnp.sum(_cross(log_q, log_p), axis=-1)


def _one_hot(labels, logits):
  """The label's class, bool [..., K]."""
  labels = _nearest_class(labels, logits)
  return jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)


def _times(weights, x):
  """Weights [K] times what each class adds, [..., K]; None for all 1."""
  return (
    x if weights is None else jnp.expand_dims(weights, range(x.ndim - 1)) * x
  )


def _nearest_class(labels, logits):
  """Labels within the classes, so that gradients stay finite; see _known."""
  return jnp.clip(labels, 0, logits.shape[-1] - 1)


def _known(labels, logits, loss, there=None):
  """The loss, NaN where the label is no class, or none of those there."""
  inside = (labels >= 0) & (labels < logits.shape[-1])
  if there is not None:
    inside &= jnp.any(there & _one_hot(labels, logits), axis=-1)
  return jnp.where(inside, loss, jnp.nan)
