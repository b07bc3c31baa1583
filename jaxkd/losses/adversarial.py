"""Adversarial parts: what plays against the student."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.losses import _checks, _numerics


def reverse_gradient(x: Array, *, scale: float = 1.0) -> Array:
  """The identity, whose gradient is reversed.

  What lies before it climbs the loss that what lies behind it descends, so a
  game of two players is one backward pass.

  Args:
    x: floats of any shape.
    scale: λ, the factor on the reversed gradient; schedule it from 0 for a
      gentle start.

  Returns:
    x itself, of its shape and dtype.

  Formula:
    y = x, ∂L/∂x = -λ ∂L/∂y

  References:
    Ganin & Lempitsky, `Unsupervised Domain Adaptation by Backpropagation
    <https://arxiv.org/abs/1409.7495>`_, 2015; Li et al., `Curriculum
    Temperature for Knowledge Distillation
    <https://arxiv.org/abs/2211.16231>`_, 2023

  Example:
    >>> jax.grad(lambda x: reverse_gradient(x) ** 2)(3.0).item()
    -6.0

  Variants:
    - CTKD's code multiplies the gradient by a factor that goes from 0 to -1
      along a cosine: λ is minus that.
  """
  x = jnp.asarray(x)
  _checks.arrays(x=(x, 'float[...]'))
  _checks.numbers(scale=scale)
  return _reverse(x, scale)


@jax.custom_jvp
def _reverse(x, scale):
  return x


@_reverse.defjvp
def _reverse_jvp(primals, tangents):
  (x, scale), (x_dot, _) = primals, tangents
  return x, (-jnp.asarray(scale, x.dtype)) * x_dot


def wasserstein_critic(real_scores: Array, fake_scores: Array) -> Array:
  """The loss of a Wasserstein critic.

  The critic scores the teacher's outputs (real) high and the student's (fake)
  low. The student's own loss is minus its scores.

  Args:
    real_scores: the critic's scores of the teacher's outputs, [...].
    fake_scores: the critic's scores of the student's outputs, [...].

  Returns:
    The critic's loss for each example, [...]; 0 at equality. It needs
    ``gradient_penalty`` or another bound on the critic's slope.

  Formula:
    D(fake) - D(real)

  References:
    Arjovsky et al., `Wasserstein GAN <https://arxiv.org/abs/1701.07875>`_,
    2017; Liu et al., `Structured Knowledge Distillation for Semantic
    Segmentation <https://arxiv.org/abs/1903.04197>`_, 2019

  Example:
    >>> wasserstein_critic(jnp.array([3.0]), jnp.array([1.0]))
    Array([-2.], dtype=float32)

  Variants:
    - In holistic distillation the paper's critic sees the image as well, that
      of the authors' code the score map alone.
  """
  _checks.arrays(
    real_scores=(real_scores, 'float[...]'),
    fake_scores=(fake_scores, 'float[...]'),
  )
  real_scores, fake_scores = _numerics.upcast(real_scores, fake_scores)
  return fake_scores - real_scores


def gradient_penalty(
  key: Array,
  critic: Callable[[Array], Array],
  real: Array,
  fake: Array,
  *,
  target: float = 1.0,
) -> Array:
  """Penalty on the slope of a critic, between the real and the fake.

  Holds the length of the critic's gradient near the target at a point drawn
  on the line between each real and fake output.

  Args:
    key: draws the points, a PRNG key.
    critic: ``[B, ...] -> [B]``, the score of each example on its own (no
      statistics of the batch). Conditions such as the image are closed over.
    real: the teacher's outputs, [B, ...].
    fake: the student's outputs, the same shape.
    target: the length of the gradient that costs nothing, at least 0.

  Returns:
    The penalty for each example, [B]. The usual weight is 10.

  Formula:
    (‖∇_x D(x)‖ - target)², x = ε real + (1 - ε) fake, ε uniform on [0, 1],
    one per example

  References:
    Gulrajani et al., `Improved Training of Wasserstein GANs
    <https://arxiv.org/abs/1704.00028>`_, 2017

  Example:
    >>> critic = lambda x: 3.0 * x[:, 0]
    >>> real, fake = jnp.ones((2, 1)), jnp.zeros((2, 1))
    >>> gradient_penalty(jax.random.key(0), critic, real, fake)
    Array([4., 4.], dtype=float32)

  Variants:
    - One-sided penalties charge only lengths above the target.
    - Some code draws one ε for the whole batch, or one per element.
  """
  _checks.arrays(real=(real, 'float[B, ...]'), fake=(fake, 'float[B, ...]'))
  _checks.non_negative(target=target)
  dtype = jnp.asarray(real).dtype
  real, fake = _numerics.upcast(real, fake)
  batch = len(real)
  share = jax.random.uniform(key, (batch,) + (1,) * (real.ndim - 1), real.dtype)
  points = (share * real + (1 - share) * fake).astype(dtype)
  scores, pull_back = jax.vjp(critic, points)
  if jnp.shape(scores) != (batch,):
    raise ValueError(
      f'critic must return the shape {(batch,)}, not {jnp.shape(scores)}'
    )
  (slope,) = pull_back(jnp.ones_like(scores))
  square = jnp.square(_numerics.upcast(slope)).reshape(batch, -1)
  return jnp.square(_numerics.safe_sqrt(jnp.sum(square, axis=1)) - target)
