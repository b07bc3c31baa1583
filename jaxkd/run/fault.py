"""Explains an infinite or NaN loss: a teacher, a term, or the training.

This runs only after the loss has diverged, so steps that go well pay nothing:
teachers are frozen and the step determines the batch, so the teachers' outputs
of that step can be computed again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.distill.contexts import shown, teach
from jaxkd.distill.roles import Role
from jaxkd.paths import by_path
from jaxkd.run import terms
from jaxkd.train import hosts
from jaxkd.train.fit import Fault

_LOSS = 'loss/'


def explained(
  fault: Fault,
  *,
  distill: Mapping[str, Any],
  students: Mapping[str, Role],
  teachers: Mapping[str, Role],
  frozen: Mapping[str, dict],
  batch: Mapping[str, Any],
  seed: int,
  augment: Callable[..., dict] | None = None,
  at: str = '',
) -> str:
  """One sentence that says what diverged, and what to do about it.

  Args:
    fault: what became infinite or NaN, and at which step.
    distill: the complete terms.
    students: the nets that train.
    teachers: the groups that the step looks at.
    frozen: group -> its variables, [T, ...], of those that the step runs.
    batch: of that step, for the member that was first.
    seed: of that member.
    augment: ``(batch, seed) -> batch``, as the step has it.
    at: the config entry that holds the terms and `train`, as 'teachers.main.'.
  """
  bad = _terms(fault.measured)
  used = {name: distill[name] for name in bad} or terms.in_use(distill)
  entries = ' and '.join(f'{at}distill.{name}' for name in bad)
  whole = 'the loss' if 'loss' in fault.measured else 'the gradient'
  array = fault.weights and f'the array {fault.weights}'
  sentence = fault.said_of(entries or array or whole)
  if reason := _of_teachers(teachers, frozen, batch, seed, augment):
    return f'{sentence}, {reason}'
  nets = dict.fromkeys(entry['of'] or min(students) for entry in used.values())
  others = [
    f'{at}distill.{name}'
    for name in _terms(fault.finite)
    if name not in bad and (distill[name]['of'] or min(students)) in nets
  ]
  remedy = f'lower {at}train.learning_rate or set {at}train.clip'
  if bad and others:
    return (
      f'{sentence}, while {" and ".join(others)} was still a number; look at '
      f'the options of {entries}: kw, adapter and what it compares'
    )
  names = ' and '.join(students[name].at for name in nets)
  if bad:
    remedy += f', or look at the options of {entries}'
  return f'{sentence}, in the training of {names}; {remedy}'


def _terms(measured: tuple[str, ...]) -> list[str]:
  """The terms among what a step measures, each once for all copies of a net."""
  names = (
    name.removeprefix(_LOSS).partition('/')[0]
    for name in measured
    if name.startswith(_LOSS)
  )
  return list(dict.fromkeys(names))


def _of_teachers(teachers, frozen, batch, seed, augment) -> str:
  """Names the teacher whose outputs are NaN, and why; empty if none is."""
  if hosts.count() > 1:  # each holds a part of the batch
    return ''
  bad = {}
  given = _given(teachers, frozen, batch, seed, augment)
  for group, outputs in given.items():
    for name, tree in sorted(outputs.items()):
      rules_out = name == 'logits'
      leaves = jax.tree.leaves(tree)  # several if not dense
      if not all(_is_number(x, rules_out=rules_out) for x in leaves):
        bad.setdefault(group, name)
  for group, name in bad.items():
    role = teachers[group]
    if any(other in bad for other, _ in role.reads):
      continue  # it has it from there
    since = f'since {name!r} of {role.at} is'
    weights = by_path(frozen.get(group, {}))
    ruined = [path for path, x in weights.items() if not _is_number(x)]
    if ruined:
      return (
        f'{since}, whose weights are ({ruined[0]}); train or restore that '
        'group again'
      )
    return (
      f'{since}, though its weights are numbers; look at what it sees '
      f'({role.at}.views) or take a wider train.dtype'
    )
  return ''


def _given(teachers, frozen, batch, seed, augment) -> dict:
  """The outputs of the groups, each [T, B, ...]."""
  texts = {n: teachers[n].view for n in frozen if not teachers[n].reads}

  @jax.jit
  def outputs(frozen, batch):
    if augment:
      batch = augment(batch, seed=np.uint32(seed))
    inputs = shown(texts, batch, np.uint32(seed))
    return teach(teachers, frozen, inputs, batch.get('cached_outputs', {}))

  return jax.device_get(outputs(dict(frozen), dict(batch)))


def _is_number(x: Any, *, rules_out: bool = False) -> bool:
  """Whether all values are finite, or -inf as the logit of a missing class."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return True
  x = np.asarray(x, np.float32)
  return bool((np.isfinite(x) | (np.isneginf(x) & rules_out)).all())
