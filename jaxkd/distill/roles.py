"""The nets of a step: those that train, and frozen groups of teachers."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax

from jaxkd.types import Compression, Net

AVERAGE = 'average'  # the teacher that is a net's own running mean


def own_values(own: dict, frozen: Mapping[str, dict]) -> dict:
  """What a net starts with that takes nothing over."""
  del frozen
  return own


def none(params: Any) -> tuple[()]:
  """The untrained parameters of a net that trains whole."""
  del params
  return ()


class CacheSpec(NamedTuple):
  """Which outputs of a group of teachers are cached on disk, and where.

  Attributes:
    outputs: their names.
    top: how many of the largest logits are kept; 0 for all.
    dir: the folder; empty for one in the workdir.
    stage: the name of the group's folder in it.
    model: a description of the nets, as text.
    top_p: of these, the fewest with this mass; 1 for all.
    temperature: at which they and what is left are kept.
    dtype: of their log-probabilities; see `jaxkd.logits.packed.dtype_of`.
  """

  outputs: tuple[str, ...]
  top: int = 0
  dir: str = ''
  stage: str = ''
  model: str = ''
  top_p: float = 1.0
  temperature: float = 1.0
  dtype: str = ''


class Role(NamedTuple):
  """A net of a step, which trains or teaches.

  Attributes:
    net: the model.
    view: how it sees the examples while the student trains; of a group that
      is made of others, how each of them does, by their names.
    eval_view: how it sees them in evaluation.
    copies: how many of it train together, seeing each other as peers.
    shape: of one example as the net sees it.
    reads: the groups and the locations whose outputs it takes, one behind
      the other, in place of the examples; empty for the examples.
    start: ``(own, frozen) -> variables``, what it starts with: of the values
      that it draws itself, and of the variables of groups.
    starts_from: the group that `start` looks at; empty for none.
    untrained: ``(params) -> paths`` of the parameters that do not train. `net`
      was built with the same ones and runs their layers in evaluation mode.
    average_view: how its running mean sees the examples while it teaches;
      empty for as the net itself does.
    at: the config entry that it comes from, for error messages.
    cache: what of its outputs is cached on disk, if anything.
    fit: what gives its variables, if it is not trained but fitted; see
      `jaxkd.run.fitted`.
    compression: how it trains, if it is to end smaller than it is built.
    given: the nets that exist with their weights, if they do; see
      `jaxkd.models.given`.
    external: what gives its outputs, if it is no net here; see
      `jaxkd.teachers.external`. Then `net` takes these outputs and gives them
      back, `shape` is theirs, and the views are of the examples that they are
      of.
  """

  net: Net
  view: Any = ''
  eval_view: Any = ''
  copies: int = 1
  shape: Any = ()
  reads: tuple[tuple[str, str], ...] = ()
  start: Callable[[dict, Mapping], dict] = own_values
  starts_from: str = ''
  untrained: Callable[[Any], Collection[str]] = none
  average_view: str = ''
  at: str = 'role'
  cache: CacheSpec | None = None
  fit: Callable[..., dict] | None = None
  compression: Compression | None = None
  given: Any = None
  external: Any = None

  @property
  def apply(self) -> Callable:
    """That of the net, as it trains."""
    return (self.compression or self.net).apply


class Group(NamedTuple):
  """A frozen group of teachers.

  Attributes:
    role: the net and how it sees the examples.
    variables: with a leading axis of the group's T members; [S, T, ...]
      where each of S members of a population has teachers of its own.
    per_member: whether it is the latter.
  """

  role: Role
  variables: dict
  per_member: bool = False

  @property
  def by_seed(self) -> dict:
    """The variables [S, T, ...]; [1, T, ...] where all seeds share them."""
    if self.per_member:
      return self.variables
    return jax.tree.map(lambda x: x[None], self.variables)


def copies_of(role: str, copies: int) -> list[str]:
  """The names of a role's nets: its own, or `role/0`, `role/1`, ..."""
  return [role] if copies == 1 else [f'{role}/{i}' for i in range(copies)]
