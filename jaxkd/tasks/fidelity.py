"""Fidelity: how closely a student follows a teacher, regardless of labels."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import losses
from jaxkd.distill.masks import examples
from jaxkd.logits.factored import dense_needed, is_factored
from jaxkd.tasks.metrics import counted, counted_valid, judged, mean
from jaxkd.teachers import many
from jaxkd.types import Metric


def metrics(teacher: str) -> dict[str, Metric]:
  """Agreement, KL and CKA with the mean of a group of teachers.

  Args:
    teacher: the group's name. Its members' probabilities are averaged.
  """
  return {
    'agreement': Metric(_agreement(teacher), teacher=teacher),
    'teacher_kl': Metric(_kl(teacher), higher_is_better=False, teacher=teacher),
    'cka': Metric(_alignments(teacher), _cka, teacher=teacher),
  }


def of_positions(teacher: str) -> dict[str, Metric]:
  """Agreement and KL at the tokens or pixels that count.

  Args:
    teacher: the group's name. Its members' probabilities are averaged.
  """

  def agreement(outputs, batch, teachers):
    return counted_valid(_agrees(outputs, teachers, teacher), batch)

  def divergence(outputs, batch, teachers):
    return counted_valid(_divergence(outputs, teachers, teacher), batch)

  return {
    'agreement': Metric(agreement, mean, teacher=teacher),
    'teacher_kl': Metric(
      divergence, mean, higher_is_better=False, teacher=teacher
    ),
  }


def log_probabilities(teachers, name):
  """The logarithm of the mean probabilities of a group's nets.

  Of a single net with factored logits, these as they are.
  """
  logits = teachers[name]['logits']
  if not is_factored(logits):
    return many.log_mean_probabilities(logits)
  if len(logits) > 1:
    raise dense_needed(logits, f'the mean of several teachers {name}')
  return jax.tree.map(lambda x: x[0], logits)


def _agreement(teacher):
  def measure(outputs, batch, teachers):
    return counted(_agrees(outputs, teachers, teacher), batch)

  return measure


def _kl(teacher):
  def measure(outputs, batch, teachers):
    return counted(_divergence(outputs, teachers, teacher), batch)

  return measure


def _agrees(outputs, teachers, teacher):
  """Whether both find the same class likeliest, [B, ...]."""
  logits = outputs['logits'], log_probabilities(teachers, teacher)
  return judged(logits[0].argmax(-1) == logits[1].argmax(-1), *logits)


def _divergence(outputs, teachers, teacher):
  """KL of the student from the teacher, [B, ...]."""
  target = log_probabilities(teachers, teacher)
  return losses.kl(outputs['logits'], target)


def _alignments(teacher):
  """Sums of the HSICs of student with teacher and of each with itself."""

  def measure(outputs, batch, teachers):
    where = examples(batch)
    if where is None:
      where = jnp.ones(batch['labels'].shape[:1], bool)
    one = _centred_gram(outputs['logits'], where)
    two = _centred_gram(log_probabilities(teachers, teacher), where)
    total = jnp.stack([(one * two).sum(), (one**2).sum(), (two**2).sum()])
    return total, jnp.float32(1)

  return measure


def _centred_gram(features, where):
  x = jnp.where(where[:, None], features.astype(jnp.float32), 0)
  # A class that no example has adds nothing.
  absent = (jnp.isneginf(x) | ~where[:, None]).all(0)
  x = jnp.where(absent, 0, x)
  mean = x.sum(0, keepdims=True) / jnp.maximum(where.sum(), 1)
  x = jnp.where(where[:, None], x - mean, 0)
  return x @ x.T


def _cka(total, count):
  """Linear CKA (Kornblith et al., 2019) of the logits.

  The three sums are taken over minibatches before their ratio (Nguyen et al.,
  2021).
  """
  del count
  norm = np.sqrt(total[..., 1] * total[..., 2])
  return total[..., 0] / np.where(norm > 0, norm, np.nan)
