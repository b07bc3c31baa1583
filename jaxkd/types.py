"""The types that everything here is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array


class Idle(NamedTuple):
  """Parts of a net that have no effect in training although they should.

  Frozen layers, which should have none, are left out.

  Attributes:
    statistics: running statistics of BatchNorm that do not change, by paths
      like those of the parameters.
    dropout: dropout layers that draw nothing.
  """

  statistics: tuple[str, ...] = ()
  dropout: tuple[str, ...] = ()


class Net(NamedTuple):
  """A model as two pure functions over plain dicts.

  Attributes:
    init: ``(key) -> variables``, a dict ``{'params': ..., 'state': ...}``.
    apply: ``(variables, inputs, *, key=None, train=False) ->
      (outputs, state)``. Outputs are a dict of arrays with a leading batch
      axis; ``state`` is the new value of ``variables['state']``. In evaluation
      the outputs of an example do not depend on the others, or on a key.
    idle: ``() -> Idle``, found by tracing, without computing.
  """

  init: Callable[..., dict]
  apply: Callable[..., tuple[dict, dict]]
  idle: Callable[[], Idle] = Idle


class Compression(NamedTuple):
  """How a net is quantised or pruned while it trains.

  It trains with variables of its own, which are made from those of the net
  before training and converted to them afterwards.

  Attributes:
    apply: as that of the `Net`, with the variables that it trains with.
    start: ``(variables of the net) -> variables that it trains with``.
    update: ``(variables, step) -> state``, before each step of training.
    finish: ``(variables) -> variables of the net``, in which arrays that are
      to take less room are `jaxkd.students.stored.Stored`.
  """

  apply: Callable[..., tuple[dict, dict]]
  start: Callable[[dict], dict]
  update: Callable[[dict, Array], dict]
  finish: Callable[[dict], dict]


class Context(NamedTuple):
  """Everything that a loss may look at.

  Attributes:
    batch: ``inputs`` by role, ``id``, ``labels`` and masks, each [B, ...].
    student: outputs of the net that the term trains.
    teachers: outputs of each teacher group (and of the other roles), with a
      leading axis of its T members. No gradient flows into them.
    step: the number of steps taken, int32 [].
    key: a new one for each step, member and term.
    inputs: what that net sees of the examples, [B, ...].
    totals: if the batch is one of several parts, the mean over the parts of
      what the term's `count` returns; else None.
    unfused: `teachers` before a fusion. Under a fusion, `teachers` has the
      fused net in place of the first group, and empty dicts for the others.
  """

  batch: dict[str, Any]
  student: dict[str, Array]
  teachers: dict[str, dict[str, Array]]
  step: Array
  key: Array
  inputs: Any = None
  totals: Any = None
  unfused: dict[str, dict[str, Array]] | None = None


def nothing(context: Context) -> tuple[()]:
  """The `count` of a term with a plain mean over examples."""
  del context
  return ()


class Term(NamedTuple):
  """A part of the loss, with the nets and the outputs that it looks at.

  Attributes:
    init: ``(key, context) -> (params, state)``, from a context of shapes.
      ``params`` train with the student, such as those of adapters; ``state``
      is what the term remembers.
    loss: ``(params, state, context) -> (loss of each example [B], state)``.
    count: ``(context) -> sums``, the denominators of the loss's means, such as
      how many tokens are valid, as a tree of sums over the batch. They do not
      depend on parameters. Where a batch is taken in parts, they are counted
      over all of it first, and the loss finds their mean over the parts in
      ``context.totals``.
    of: the role that it trains; the only one if empty.
    teachers: the groups, or roles, of which it looks at all nets.
    draws: for groups of which one net is drawn in each step; see
      `jaxkd.distill.fusion.Draw`.
    layers: the names of the outputs that it looks at, of the student and of
      the teachers.
    mask: the name of its mask, as `jaxkd.distill.masks.find` takes it, so that
      what wraps the term can apply it too.
    temperature: of the logits that it compares, for a fusion of teachers.
    sigmoid: whether each class has its own probability, the sigmoid of its
      logit, for a fusion of teachers.
  """

  init: Callable[..., tuple[dict, dict]]
  loss: Callable[..., tuple[Array, dict]]
  count: Callable[[Context], Any] = nothing
  of: str = ''
  teachers: tuple[str, ...] = ()
  draws: tuple[Any, ...] = ()
  layers: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
  mask: str | tuple[str, str] = ''
  temperature: Any = 1.0
  sigmoid: bool = False

  @property
  def groups(self) -> set[str]:
    """All groups that it looks at, including those with a drawn net."""
    drawn = (group for draw in self.draws for group in draw.groups)
    return {*self.teachers, *drawn}


def ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
  """The mean that a sum and a count stand for."""
  return total / count


class Metric(NamedTuple):
  """A measure of a net's outputs.

  Attributes:
    measure: ``(outputs, batch, teachers) -> (sum, count)`` over one batch,
      where ``batch['where']``, a [B] bool, says which examples count. Sums
      and counts of batches add up.
    value: ``(sum, count) -> value``, on arrays with any leading axes.
    higher_is_better: which way is up.
    teacher: the group that it compares with; the metric is left out if that
      group's outputs are not available.
    output: the output that it measures; nets without it are not measured.
      Empty for one that every net has or that it finds itself.
    whole: for metrics that are no sum over batches, such as a rank among all
      examples: ``(*fields) -> (sum, count)`` on the host, for the examples of a
      whole split that count. ``measure`` then returns the fields instead,
      arrays [B, ...]. Metrics with the same ``measure`` and ``whole`` share
      its result. The fields of a net that diverged may be nan.
    finished: whether it is measured of finished nets only, as it takes long.
  """

  measure: Callable[[dict, dict, dict], tuple[Array, ...]]
  value: Callable[[np.ndarray, np.ndarray], np.ndarray] = ratio
  higher_is_better: bool = True
  teacher: str = ''
  output: str = 'logits'
  whole: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None
  finished: bool = False
