"""A teacher-student system: who learns what from whom, and how."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import optax

from jaxkd.distill.roles import Role, copies_of
from jaxkd.types import Metric, Term


class Recipe(NamedTuple):
  """What a member trains with, made anew from the member's own values.

  Attributes:
    terms: the loss, term by term.
    optimizer: any optax transformation.
    accumulate: the batch is taken in this many parts, one after another.
    average: decay of the running mean of the parameters; 0 for none.
    parts: part of the loss -> its terms, where the optimiser is to have the
      gradient of each part; empty for one gradient of the sum.
  """

  terms: dict[str, Term]
  optimizer: optax.GradientTransformation
  accumulate: int = 1
  average: float = 0.0
  parts: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class System(NamedTuple):
  """Teachers, students and how they learn: all that steps have in common.

  Attributes:
    students: the roles that train.
    teachers: the frozen groups. Their variables, with a leading axis of the
      group's nets, are the argument ``frozen`` of init, step and evaluate.
    recipe: makes terms and optimiser from the member's own values, a dict from
      config entry to number (traced; empty for most).
    metrics: what `evaluate` measures of each net.
    example: a batch of shapes, as one member gets it from the loader.
    augment: ``(batch, seed) -> batch``, what all roles see of it in training;
      see `jaxkd.data.augment`.
    rollout: ``(student, batch, key) -> batch``, what the student writes and
      then learns from, where ``student`` gives its outputs in evaluation for
      inputs as the data have them (a dict of these where several roles train).
      It has no gradient. The mean of each array [B] in its field ``measured``
      is reported, as ``rollout/NAME``.
    decode: what else a net is measured by; see `jaxkd.tasks`.
  """

  students: Mapping[str, Role]
  teachers: Mapping[str, Role]
  recipe: Callable[[dict], Recipe]
  example: dict
  metrics: Mapping[str, Metric] = MappingProxyType({})
  augment: Callable[..., dict] | None = None
  rollout: Callable[..., dict] | None = None
  decode: Callable[..., dict] | None = None

  @property
  def nets(self) -> dict[str, Role]:
    """Every net that trains: one for each copy of a role."""
    return {
      copy: role
      for name, role in self.students.items()
      for copy in copies_of(name, role.copies)
    }
