"""Your own models, as teachers and students of a step."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from jaxkd.data import views
from jaxkd.distill import running_mean
from jaxkd.errors import UserError, blamed, unknown
from jaxkd.models import net as flax_nets
from jaxkd.train.population import take
from jaxkd.types import Net

STUDENT = 'student'  # what the only net that trains is called

PyTree = Any
State = Any  # a pytree of arrays


@dataclasses.dataclass(frozen=True)
class Model:
  """A model as `jaxkd.distill.step` takes it, made by `net`.

  Attributes:
    build: ``(taps) -> Net``, which outputs these layers too.
    example: shapes of a batch of inputs.
    variables: its weights; None if they are drawn from the seed.
    taps: layers that are outputs too, also in evaluation.
    view: its view of the inputs in training; see docs/config.md.
    eval_view: its view in evaluation.
    freeze: a glob of the parameters that do not train.
    write: ``(module, variables) -> module`` with these weights.
  """

  build: Callable[[tuple[str, ...]], Net]
  example: PyTree
  variables: dict | None
  taps: tuple[str, ...]
  view: str
  eval_view: str
  freeze: str
  write: Callable[[Any, dict], Any]

  def update(
    self,
    module: Any,
    state: State,
    *,
    name: str = STUDENT,
    member: int | None = None,
  ) -> Any:
    """Writes trained weights to a module.

    Args:
      module: the ``nnx.Module``, which is changed. Linen modules and `Net`
        hold no weights and are ignored.
      state: of the step; if it has a running mean, that is written.
      name: of the net, if several train.
      member: which of several members; can be left out if there is one.

    Returns:
      The module; for Linen its variables, and for a `Net` the dict of
      ``params`` and ``state``.

    Raises:
      UserError: no such net, several members and none chosen, or a module of
        another architecture.
    """
    return self.write(module, variables_of(state, name, member=member))


def net(
  model: Any,
  example: PyTree,
  *,
  taps: Sequence[str] = (),
  view: str = '',
  eval_view: str = '',
  freeze: str = '',
) -> Model:
  """Your own model as a teacher or a student.

  Args:
    model: an ``nnx.Module`` with its weights; a function from ``nnx.Rngs`` to
      one, which draws weights for each seed; ``(linen_module, variables)``; an
      unbound Linen module, whose weights are drawn; or a `Net`, as
      `jaxkd.models.build` returns, or ``(net, variables)``, as `jaxkd.load`
      returns.
    example: a batch of inputs, any pytree of arrays or shapes [B, ...]; or a
      dict with such a batch as ``inputs``.
    taps: layers that metrics look at, by path or glob, e.g. ``'stages/*'``.
      Layers that terms look at need not be named.
    view: its view of the inputs in training, e.g. ``'noise(0.1)'``.
    eval_view: its view in evaluation.
    freeze: a glob of the parameters that do not train, e.g. ``'stem'``; their
      layers run in evaluation mode.

  Raises:
    UserError: something that is no model, or an unknown layer.
  """
  inputs = _inputs(example)
  views.parse(view, at='distill.net: view')
  views.parse(eval_view, at='distill.net: eval_view')
  taps = (taps,) if isinstance(taps, str) else tuple(taps)
  variables = None
  made = model
  if isinstance(model, tuple) and not isinstance(model, Net):
    if len(model) != 2:
      raise UserError(
        f'distill.net: a tuple of {len(model)} is no model; give (module, '
        'variables)'
      )
    made, variables = model
  if isinstance(made, Net):
    build = functools.partial(_given_net, made)
    write = lambda module, variables: variables  # noqa: E731
  elif isinstance(made, linen.Module):
    if made.scope is not None:
      raise UserError(
        f'distill.net: the Linen module {type(made).__name__} is bound; give '
        'what its unbind() gives, (module, variables)'
      )
    build = functools.partial(flax_nets.from_linen, made, inputs, freeze=freeze)
    write = lambda module, variables: {  # noqa: E731
      'params': variables['params'],
      **variables['state'],
    }
    if variables is not None:
      variables = flax_nets.linen_variables(variables, build())
  elif isinstance(made, nnx.Module):
    build = functools.partial(
      flax_nets.from_nnx, lambda rngs: nnx.clone(made), inputs, freeze=freeze
    )
    variables = build().init(jax.random.key(0))
    write = flax_nets.write
  elif callable(made) and not isinstance(made, type):
    build = functools.partial(flax_nets.from_nnx, made, inputs, freeze=freeze)
    write = flax_nets.write
  else:
    raise UserError(
      f'distill.net: {made!r:.60} is no model; give an nnx.Module, a function '
      'from nnx.Rngs to one, a Linen module or (linen_module, variables)'
    )
  chosen = lambda taps: build(taps=taps)  # noqa: E731
  with blamed('distill.net'):
    chosen(taps)  # refuses layers that are not there
  return Model(chosen, inputs, variables, taps, view, eval_view, freeze, write)


def variables_of(
  state: State, name: str = STUDENT, *, member: int | None = None
) -> dict:
  """The variables of a net that trains, ``{'params': ..., 'state': ...}``.

  Args:
    state: of the step; if it has a running mean, that is returned.
    name: of the net.
    member: which of several members; can be left out if there is one.

  Raises:
    UserError: no such net or member, or a state that was given to a step.
  """
  members = members_of(state)
  if member is None and members > 1:
    raise UserError(f'there are {members} members; choose one, e.g. member=0')
  member = 0 if member is None else member
  if not (is_int(member) and 0 <= member < members):  # JAX would take the last
    raise UserError(
      f'there is no member {member!r}; choose one from 0 to {members - 1}'
    )
  own = state[member] if isinstance(state, list) else take(state, member)
  found = running_mean.result(own)
  if name not in found:
    raise unknown('net', name, found)
  return found[name]


def members_of(state: State) -> int:
  """How many members a state is of.

  Raises:
    UserError: it is no state, or a step has used it up.
  """
  parts = state if isinstance(state, list) else [state]
  for part in parts or [None]:
    if not isinstance(part, Mapping) or not {'seed', 'train'} <= part.keys():
      raise UserError(
        f'this {type(state).__name__} is no state; pass what step.init() '
        'returned, or the first of the two values that a step returns'
      )
    seed = part['seed']
    traced = isinstance(seed, jax.core.Tracer)
    if isinstance(seed, jax.Array) and not traced and seed.is_deleted():
      raise UserError(
        'this state was donated to a step; keep the one that the step '
        'returned, as in state, metrics = step(state, batch)'
      )
  return len(state) if isinstance(state, list) else len(state['seed'])


def is_int(x: Any) -> bool:
  """Whether it is a whole number, and no bool."""
  return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _given_net(made: Net, *, taps: tuple[str, ...]) -> Net:
  """A `Net`, whose layers cannot be reached."""
  if taps:
    raise UserError(
      f'a Net gives no outputs of the layers {", ".join(taps)}; build it with '
      'these taps, or give the module itself'
    )
  return made


def _inputs(example: PyTree) -> PyTree:
  """Shapes of a batch of inputs."""
  if isinstance(example, Mapping) and 'inputs' in example:
    example = example['inputs']
  leaves = jax.tree.leaves(example)
  if not leaves or any(np.ndim(x) < 1 for x in leaves):
    raise UserError(
      f'distill.net: {example!r:.60} is no example; give a batch of inputs, '
      'arrays or shapes [B, ...]'
    )
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), dtype_of(x)), example
  )


def dtype_of(x: Any) -> jnp.dtype:
  """What JAX makes of an array's type, as float32 of float64."""
  return jax.dtypes.canonicalize_dtype(
    x.dtype if hasattr(x, 'dtype') else np.asarray(x).dtype
  )
