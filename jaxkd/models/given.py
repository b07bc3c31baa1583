"""Nets that exist with their weights, which a function of one's own gives.

``package.module:function`` takes what a model takes by name (``num_classes``,
``input_shape``, ``dtype``, ``rngs``, options of its own), and returns one of

    an ``nnx.Module``
    ``(linen_module, variables)``
    ``(net, variables)``, a `Net` as `jaxkd.load` gives it
    ``(function, variables)``, where ``function(variables, inputs)`` gives
        logits or a dict of outputs, the same for an example whatever else is
        in its batch

or a list of several that are built alike, which are a group. With ``torch:``
before its name it returns PyTorch modules, see `jaxkd.models.torch_module`.
"""

import dataclasses
import functools
import re
import weakref
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from jaxkd import models, shapes
from jaxkd.data import cache
from jaxkd.errors import UserError, blamed, within
from jaxkd.models import external, hugging_face, pytorch, torch_module
from jaxkd.models import net as flax_nets
from jaxkd.models.placed import is_placed, tokens_of
from jaxkd.types import Net

_FUNCTION = re.compile(r'[A-Za-z_][\w.]*:[A-Za-z_]\w*')
_PREFIXES = (
  *(pytorch.PREFIX, hugging_face.PREFIX),
  *(external.OUTPUTS, external.HOST),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
  """Nets that are built alike, with their weights.

  Attributes:
    name: of the function that gave them.
    made: the first of them, as `jaxkd.models.build` takes it.
    variables: ``{'params': ..., 'state': ...}`` of all of them, [T, ...].
  """

  name: str
  made: Any
  variables: dict

  def __str__(self) -> str:
    return self.name

  @property
  def first(self) -> dict:
    """The variables of the first net."""
    return jax.tree.map(lambda x: x[0], self.variables)

  @functools.cached_property
  def checksum(self) -> str:
    """SHA-256 of the variables."""
    return cache.fingerprint([self.variables])


# What a run has been given, while it holds it: the nets whose checksum it
# keeps are the ones that teach.
_found: weakref.WeakValueDictionary[Any, Given] = weakref.WeakValueDictionary()


def forget() -> None:
  """Has functions called anew, as they may give other weights by now.

  A run begins so: what is left of an earlier one in this process may still be
  in memory, and is not what this one is given.
  """
  _found.clear()


def is_function(restore: str) -> bool:
  """Whether nets are restored from a function."""
  named = torch_module.is_named(restore) or _FUNCTION.fullmatch(restore)
  return bool(named) and not restore.startswith(_PREFIXES)


def has_model(restore: str) -> bool:
  """Whether what nets are restored from says what they are, too."""
  return is_function(restore) or external.is_external(restore)


def find(
  name: str,
  *,
  num_classes: int,
  input_shape: Any,
  dtype: str = 'float32',
  at: str = 'teachers.main',
  **kw: Any,
) -> Given:
  """The nets that a function gives; called once while they are in use.

  Args:
    name: of the function, ``package.module:function``.
    num_classes: see `jaxkd.models.build`.
    input_shape: see there.
    dtype: see there.
    at: the config entry of the group.
    **kw: options of the function.

  Raises:
    UserError: the function fails, or gives something else.
  """
  if is_placed(input_shape):
    input_shape = tokens_of(input_shape)
  call, takes_rngs = models.bound(
    name, num_classes, input_shape, dtype, f'{at}.restore', kw
  )
  if isinstance(call.func, type):
    raise UserError(
      f'{at}.restore: {name} is a class, whose weights would be drawn; name a '
      'function that gives a net with its weights'
    )
  key = call.func, repr(sorted(call.keywords.items()))
  found = _found.get(key)
  if found is None:
    with within(f'{at}.restore: '), blamed(f'{at}.restore'):
      found = _given(
        name,
        call(rngs=nnx.Rngs(0)) if takes_rngs else call(),
        shapes.batch(input_shape),
        f'{at}.restore',
      )
    _found[key] = found
  return found


def _given(name: str, returned: Any, inputs: Any, at: str) -> Given:
  """What a function returned, as nets and their variables."""
  each = returned if isinstance(returned, list) else [returned]
  if not each:
    raise UserError(f'{at}: {name} returns no net; return one, or several')
  made = [_net(one, inputs, name, at) for one in each]
  first, variables = made[0][0], [own for _, own in made]
  for number, one in enumerate(each):
    if _plan(one) != _plan(each[0]) or (
      jax.tree.map(jnp.shape, variables[number])
      != jax.tree.map(jnp.shape, variables[0])
    ):
      raise UserError(
        f'{at}: net {number} of those that {name} returns is built otherwise '
        'than net 0; give a group to each kind of net'
      )
  return Given(
    name, first, jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
  )


def _net(returned: Any, inputs: Any, name: str, at: str) -> tuple[Any, dict]:
  """One net, as `jaxkd.models.build` takes it, and its variables."""
  if isinstance(returned, nnx.Module):
    make = lambda rngs: nnx.clone(returned)  # noqa: E731
    return make, flax_nets.from_nnx(make, inputs).init(jax.random.key(0))
  if isinstance(returned, flax_nets.Adapter):
    return returned, returned.init(jax.random.key(0))
  pair = isinstance(returned, tuple) and not isinstance(returned, Net)
  made, variables = returned if pair and len(returned) == 2 else (None, None)
  if isinstance(made, linen.Module):
    if made.scope is not None:
      raise UserError(
        f'{at}: the Linen module that {name} returns is bound; return what its '
        'unbind() gives, (module, variables)'
      )
    net = flax_nets.from_linen(made, inputs)
    variables = flax_nets.linen_variables(variables, net)
  elif isinstance(made, Net):
    pass
  elif callable(made) and not isinstance(made, nnx.Module | type):
    made = flax_nets.from_function(made, name)
    variables = {'params': variables, 'state': {}}
  else:
    raise UserError(
      f'{at}: {name} returns {returned!r:.60}, which is no net with its '
      'weights; return an nnx.Module, (linen_module, variables), (net, '
      'variables), (function, variables), or a list of several'
    )
  return made, jax.tree.map(jnp.asarray, variables)


def _plan(returned: Any) -> Any:
  """What nets have in common that are built alike."""
  if isinstance(returned, nnx.Module):
    return nnx.graphdef(returned)
  if isinstance(returned, flax_nets.Adapter):
    return returned.plan
  return returned[0]
