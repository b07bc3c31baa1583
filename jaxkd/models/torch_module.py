"""PyTorch modules with their weights, run by JAX through torchax.

``torch:package.module:function`` names a function that returns a
``torch.nn.Module`` with its weights. torchax runs each of PyTorch's operations
as one of JAX, so that the module is traced, compiled, batched and placed on
devices as a Flax module is. It is always in evaluation mode and never trains.

PyTorch has the channels of images and maps in the second axis, and jaxkd in
the last. With ``channels='first'``, the default, those of inputs are moved
there, and those of what the module and its layers return are moved back; see
`adapter`.

torchax and PyTorch are not needed for anything else: the extra ``torch``.
"""

import functools
import inspect
import operator
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, options
from jaxkd.errors import UserError, summary, unknown
from jaxkd.models.net import Adapter
from jaxkd.paths import by_path

PREFIX = 'torch:'  # of the name of such a model, in a config
CHANNELS = ('first', 'last')

_QUIET = (
  'let it draw random numbers and use the statistics of a batch only while '
  'module.training is True'
)
# A call puts traced arrays in the place of the module's own weights, and groups
# are traced side by side.
_lock = threading.RLock()

PyTree = Any


def is_named(name: str) -> bool:
  """Whether the name of a model, or of what to restore, is of a module."""
  return name.startswith(PREFIX)


def constructor(name: str, *, at: str) -> Callable[..., Any]:
  """What builds a module, as `jaxkd.models.resolve` gives it for others.

  Args:
    name: ``torch:package.module:function``; a class of modules or a module
      that is made already can stand in the place of the function.
    at: the config entry of the name, for errors.

  Returns:
    A function with the function's own arguments, and ``channels``, that gives
    an `Adapter`, or a list of them where that returns a list of modules.

  Raises:
    UserError: PyTorch or torchax cannot be imported, no such function, or one
      that has an argument ``channels`` itself.
  """
  _packages(at)
  path = name.removeprefix(PREFIX)
  found = lookup.attribute(path, kind='PyTorch module', at=at)
  return _maker(found, path, at)


@functools.cache
def _maker(found: Any, path: str, at: str) -> Callable[..., Any]:
  """The same for the same function: it is the key of what it has made."""
  torch, _ = _packages(at)
  if isinstance(found, torch.nn.Module):
    function, taken = lambda: found, {}
  else:
    function, taken = found, options.parameters_of(found)
  if 'channels' in taken:
    raise UserError(
      f'{at}: {path!r} takes an argument channels, which here says where the '
      'module has the channels of its inputs; call it something else'
    )

  def make(*, channels: str = CHANNELS[0], dtype=jnp.float32, **kw):
    returned = function(**kw)
    modules = returned if isinstance(returned, list) else [returned]
    for module in modules:
      if not isinstance(module, torch.nn.Module):
        raise UserError(
          f'{at}: {path!r} returns {module!r:.60}, which is no '
          'torch.nn.Module; return the module with its weights, or a list'
        )
    made = [
      adapter(module, channels=channels, dtype=dtype, at=at)
      for module in modules
    ]
    return made if isinstance(returned, list) else made[0]

  # Whatever it takes, it is given by name; dtype and rngs have meanings here.
  own = [
    p if p.kind is p.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY)
    for p in taken.values()
    if p.name not in ('dtype', 'rngs') and p.kind is not p.VAR_POSITIONAL
  ]
  ours = list(inspect.signature(make).parameters.values())[:2]
  make.__signature__ = inspect.Signature([*ours, *own])
  return make


def adapter(
  module: Any,
  *,
  channels: str = CHANNELS[0],
  dtype: jnp.dtype = jnp.float32,
  at: str = 'model',
) -> Adapter:
  """A module as `jaxkd.models.net` takes it.

  Args:
    module: a ``torch.nn.Module`` with its weights, which is set to evaluation,
      and to float32 on the CPU. Its parameters and buffers become variables;
      what it keeps in attributes as plain tensors cannot be traced.
    channels: where it has the channels. With ``'first'``, inputs of four axes
      or more, [B, H, W, C], are given to it as [B, C, H, W], and outputs of
      four axes or more, its own and its layers', are moved back in the same
      way. With ``'last'`` nothing is moved.
    dtype: what it computes in: its weights and inputs are rounded to it.
    at: the config entry of its name, for errors.

  Raises:
    UserError: no such channels, or BatchNorm without running statistics.
  """
  torch, torchax = _packages(at)
  if channels not in CHANNELS:
    raise unknown('place of channels', channels, CHANNELS, f'{at}: channels')
  name = type(module).__name__
  module = module.to('cpu').float().eval()
  tensors = {
    'params': dict(module.named_parameters()),
    'state': dict(module.named_buffers()),
  }
  norms = [
    (path, layer)
    for path, layer in module.named_modules()
    if isinstance(layer, torch.nn.modules.batchnorm._NormBase)
  ]
  for path, layer in norms:
    batch = isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
    if batch and layer.running_mean is None:
      raise UserError(
        f'{at}: the layer {path} of {name} has no running statistics and uses '
        'those of a batch in evaluation; make it with track_running_stats=True'
      )
  first = channels == CHANNELS[0]

  def init(key):
    del key  # the weights are there
    return {
      kind: _nested({path: _array(x) for path, x in own.items()})
      for kind, own in tensors.items()
    }

  def forward(wanted):
    def run(variables, inputs, *, key, train):
      del train  # it is in evaluation mode
      env, calls = torchax.default_env(), {}
      key = jax.random.key(0) if key is None else key
      rounded = jax.tree.map(lambda x: _rounded(x, dtype), variables)
      inputs = jax.tree.map(lambda x: _rounded(jnp.asarray(x), dtype), inputs)
      if first:
        inputs = jax.tree.map(_channels_first, inputs)

      def arrays(outputs):
        found = _arrays(outputs, torch)
        return jax.tree.map(_channels_last, found) if first else found

      with (
        _lock,
        _said(name),
        env,
        torch.no_grad(),
        torch.device('jax'),  # of tensors that are made without one
        jax.numpy_rank_promotion('allow'),  # as PyTorch does
        env.override_property(prng=key),
        _hooked(module, wanted, calls, arrays),
      ):
        own = {
          path: env.j2t_iso(_at(rounded[kind], path))
          for kind, each in tensors.items()
          for path in each
        }
        given = env.j2t_iso(inputs)
        result = torch.func.functional_call(module, own, given)
        nameless = isinstance(result, tuple | list)
        result = arrays(result)  # tuples, whose parts have no names, too
        drew = [name] if env.prng_key is not key else []
        _check_evaluates(module, name)
      after = {
        kind: _nested({path: own[path].jax() for path in each})
        for kind, each in tensors.items()
      }
      after = jax.tree.map(
        lambda old, was, now: old if now is was else now.astype(old.dtype),
        *(variables, rounded, after),
      )
      result = tuple(result.values()) if nameless else result
      return result, calls, after, drew

    return run

  return Adapter(
    name,
    init,
    jax.eval_shape(init, jax.random.key(0)),
    forward,
    tuple(
      f'{path.replace(".", "/")}/{kind}'.removeprefix('/')
      for path, layer in norms
      for kind in ('running_mean', 'running_var')
      if getattr(layer, kind) is not None
    ),
    dropout=list,
    is_frozen=None,
    quiet=_QUIET,
    plan=repr(module),
  )


def _packages(at: str) -> tuple[Any, Any]:
  """PyTorch and torchax.

  Raises:
    UserError: they cannot be imported, for whatever reason.
  """
  try:
    import torch
    import torchax
  except (Exception, SystemExit) as error:
    raise UserError(
      f'{at}: PyTorch modules need torchax, which cannot be imported '
      f"({summary(error)}); pip install 'jaxkd[torch]' brings versions of it "
      'and of PyTorch that go together'
    ) from error
  return torch, torchax


def _check_evaluates(module: Any, name: str) -> None:
  """Refuses a module that sets itself to training in a call."""
  for path, layer in module.named_modules():
    if layer.training:
      raise UserError(
        f'the layer {path!r} of {name} is set to training by its '
        'forward; leave that to module.train()'
      )


@contextmanager
def _said(name: str) -> Iterator[None]:
  """Says in a sentence why a module cannot be traced."""
  try:
    with warnings.catch_warnings():
      # PyTorch's int64 is int32 in JAX.
      warnings.filterwarnings('ignore', 'Explicitly requested dtype')
      yield
  except UserError:
    raise
  except Exception as error:
    raise UserError(
      f'JAX cannot trace the PyTorch module {name} ({summary(error)}); its '
      'forward must consist of operations of PyTorch on its inputs, parameters '
      'and buffers, with no branch that depends on their values'
    ) from error


@contextmanager
def _hooked(
  module: Any,
  wanted: Callable[[str], bool] | None,
  calls: dict,
  arrays: Callable[[Any], Any],
) -> Iterator[None]:
  """Adds what layers return to ``calls``, as `Adapter.forward` has them."""

  def kept(path):
    def hook(layer, inputs, outputs):
      del layer, inputs
      found = by_path(arrays(outputs))
      calls[path] = (*calls.get(path, ()), found)

    return hook

  layers = module.named_modules() if wanted else ()
  paths = {path.replace('.', '/'): layer for path, layer in layers if path}
  hooks = [
    layer.register_forward_hook(kept(path))
    for path, layer in paths.items()
    if wanted(path)
  ]
  try:
    yield
  finally:
    for hook in hooks:
      hook.remove()


def _arrays(outputs: Any, torch: Any) -> Any:
  """Tensors as arrays, in dicts by name; what is None is left out."""
  if isinstance(outputs, Mapping):
    found = {str(k): _arrays(x, torch) for k, x in outputs.items()}
  elif isinstance(outputs, tuple | list):
    found = {str(i): _arrays(x, torch) for i, x in enumerate(outputs)}
  elif hasattr(outputs, 'jax'):  # a tensor of torchax
    return outputs.jax()
  else:
    return _array(outputs) if isinstance(outputs, torch.Tensor) else outputs
  return {name: x for name, x in found.items() if x is not None}


def _array(tensor: Any) -> Array:
  """A tensor of PyTorch's own as an array of its values."""
  return jnp.array(tensor.detach().cpu().numpy())


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """``{'a.b': x}`` as ``{'a': {'b': x}}``."""
  nested: dict[str, Any] = {}
  for path, x in flat.items():
    *parts, last = path.split('.')
    inner = nested
    for part in parts:
      inner = inner.setdefault(part, {})
    inner[last] = x
  return nested


def _at(nested: Mapping[str, Any], path: str) -> Any:
  """What a dotted path names."""
  return functools.reduce(operator.getitem, path.split('.'), nested)


def _rounded(x: Array, dtype: jnp.dtype) -> Array:
  is_float = jnp.issubdtype(x.dtype, jnp.floating)
  return x.astype(dtype) if is_float and x.dtype != dtype else x


def _channels_first(x: Array) -> Array:
  """[B, H, W, C] as [B, C, H, W]; clips likewise."""
  return jnp.moveaxis(x, -1, 1) if x.ndim > 3 else x


def _channels_last(x: Array) -> Array:
  """[B, C, H, W] as [B, H, W, C]; clips likewise."""
  return jnp.moveaxis(x, 1, -1) if x.ndim > 3 else x
