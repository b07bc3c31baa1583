"""Losses on tokens that the student itself has drawn."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.losses import _checks, responses


def sampled_reverse_kl(
  student: Array, teacher: Array, labels: Array, sampled_log_probs: Array
) -> Array:
  """Reverse KL from a token that was drawn, with the gradient of REINFORCE.

  Of each side it needs the probability of one token, and not those of all. Its
  mean over draws is ``reverse_kl``, and so is that of its gradient; a single
  draw has the noise of one token. Of log q - log p as it stands, whose mean is
  the same, the gradient is 0 on average: what counts is how probable the draw
  becomes, with that difference, the advantage, held constant.

  Args:
    student: logits z, [..., K].
    teacher: logits v, [..., K].
    labels: y, the tokens that were drawn, class indices from 0 to K - 1,
      integers [...].
    sampled_log_probs: log μ(y), of the distribution that they were drawn from,
      [...]; of the student itself, this is log q(y). It may be another, such as
      of a temperature, if it has mass wherever the student has: where it has
      none, as beyond the k likeliest tokens, nothing is unlearnt, and that is
      where a student moves its mass to.

  Returns:
    The loss of each example, nats, [...]; its mean over draws is 0 at equality.
    NaN where the label is no class.

  Formula:
    q_y / μ(y) · stop(log q_y - log p_y), p = softmax(v), q = softmax(z), of
    which the gradient is q_y / μ(y) · (log q_y - log p_y) · ∇ log q_y. No
    gradient reaches the teacher, nor μ.

  References:
    Williams, `Simple Statistical Gradient-Following Algorithms for
    Connectionist Reinforcement Learning
    <https://doi.org/10.1007/BF00992696>`_, 1992

    Gu et al., `MiniLLM: Knowledge Distillation of Large Language Models
    <https://arxiv.org/abs/2306.08543>`_, 2024

  Example:
    >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> drawn, log_prob = jnp.array([0]), jnp.log(jnp.array([0.5]))
    >>> round(sampled_reverse_kl(student, teacher, drawn, log_prob).item(), 3)
    3.325

  Variants:
    - MiniLLM's advantage of a token is also that of all tokens after it, which
      the token leads to, normalised by length; here each token answers for
      itself alone, as with a discount of 0.
    - Code with a clipped ratio q / μ (PPO) takes several steps on one draw.
      Here each step draws anew, and the ratio is 1 but for temperature and
      dropout.
    - Some code differentiates log q - log p as it stands: the wrong gradient.
  """
  _checks.arrays(
    student=(student, 'float[..., K]'),
    teacher=(teacher, 'float[..., K]'),
    labels=(labels, 'int[...]'),
    sampled_log_probs=(sampled_log_probs, 'float[...]'),
  )
  log_q = -responses.cross_entropy(student, labels)
  log_p = -responses.cross_entropy(teacher, labels)
  advantage = jax.lax.stop_gradient(log_q - log_p)
  drawn = jax.lax.stop_gradient(sampled_log_probs.astype(log_q.dtype))
  return jnp.exp(log_q - drawn) * advantage
