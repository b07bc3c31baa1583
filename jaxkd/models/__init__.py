"""Models by name; files are the registry.

``mlp`` is the class ``Model`` in ``jaxkd/models/mlp.py``. ``resnet8x4`` is a
published name: the file of its family lists it, with the options it fixes, in
``NAMED``. ``hf:FOLDER`` is a decoder with the options that a folder of Hugging
Face fixes. ``package.module:attribute`` is your own: an NNX or Linen module
class, or a function that gives a module or a Net. Only the file of the model
that is named is imported.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from jaxkd import lookup, options, registry, shapes
from jaxkd.errors import UserError, unknown, within
from jaxkd.models import (
  external,
  frozen,
  half,
  hugging_face,
  hugging_face_vision,
  net,
  switch,
  torch_module,
)
from jaxkd.models.dependence import dependent
from jaxkd.models.net import count
from jaxkd.models.placed import is_placed, looked_up, tokens_of
from jaxkd.paths import by_path, replaced
from jaxkd.types import Net

__all__ = [
  'bound',
  'build',
  'count',
  'defaults',
  'explicit',
  'family_of',
  'families',
  'fitter',
  'merged',
  'part',
  'resolve',
  'tap_shapes',
]

PyTree = Any

# Options of which a net has some: their numbers are above 0.
SIZES = frozenset(
  (
    *('width', 'widths', 'depth', 'heads', 'patch', 'stride'),
    *('pyramid', 'bins', 'mlp_ratio', 'init'),
  )
)
HUGGING_FACE = 'decoder'  # the family of its folders, if not of images
# Modules whose insides are out of reach for what only NNX modules have.
_CLOSED = (Net, linen.Module, net.Adapter)
FLOATS = ('bfloat16', 'float16', 'float32')  # what models compute in


def build(
  name: str,
  *,
  num_classes: int,
  input_shape: PyTree,
  taps: Sequence[str] = (),
  remat: str = '',
  before: net.Hooks = (),
  after: net.Hooks = (),
  freeze: str = '',
  dtype: str = 'float32',
  at: str = 'model',
  made: Any = None,
  **kw: Any,
) -> Net:
  """Builds any model as a Net.

  Args:
    name: a family (``resnet``), a published name (``resnet8x4``),
      ``hf:FOLDER``, or ``package.module:attribute``, which is given those of
      ``num_classes``, ``input_shape``, ``dtype`` and ``rngs`` that it takes;
      with ``torch:`` before it, a PyTorch module, see
      `jaxkd.models.torch_module`.
    num_classes: the number of logits.
    input_shape: shape of one input, (H, W, C) for images; or a pytree of
      shapes, see `jaxkd.shapes`.
    taps: layers whose outputs are wanted too, e.g. ``('stages/*',)``; see
      ``jaxkd.models.net``.
    remat: layers of an NNX module whose activations are recomputed in the
      backward pass instead of kept, e.g. ``'blocks/*'``.
    before: layers of an NNX module, by name or glob, each with a function that
      is applied to its inputs.
    after: the same for outputs.
    freeze: a pattern of the parameters that do not train; layers all of whose
      parameters match run in evaluation mode, see `jaxkd.models.frozen`.
    dtype: what the model computes in; parameters and outputs are float32. A
      model that computes in float16 cannot train; see `jaxkd.models.half`.
    at: the config entry of the name, for error messages.
    made: a model that exists already, see `jaxkd.models.given`; by default it
      is built from its name and options.
    **kw: the model's own options; see ``defaults``.

  Raises:
    UserError: an unknown model, option or layer, an option that the name
      already fixes, or layers to freeze that cannot be reached.
  """
  if is_placed(input_shape):
    own = dict(num_classes=num_classes, input_shape=tokens_of(input_shape))
    own |= dict(taps=taps, remat=remat, before=before, after=after, made=made)
    return looked_up(
      build(name, **own, freeze=freeze, dtype=dtype, at=at, **kw)
    )
  if made is None:
    made = _make(name, num_classes, input_shape, dtype, at, kw)
  inputs = shapes.batch(input_shape)
  if remat and isinstance(made, _CLOSED):
    raise UserError(
      f'{at}: {name!r} is not an NNX module, so remat={remat!r} does not reach '
      'its layers; use linen.remat inside it'
    )
  if (before or after) and isinstance(made, _CLOSED):
    raise UserError(
      f'{at}: {name!r} is not an NNX module, so the activations of its layers '
      'cannot be reached; change them inside it'
    )
  if isinstance(made, Net):
    if taps:
      raise UserError(
        f'{at}: {name!r} gives a Net, whose layers cannot be reached; let its '
        f'outputs hold {", ".join(taps)}, or return the module itself'
      )
    built = _frozen(made, inputs, freeze, name, at)
  elif isinstance(made, net.Adapter):
    built = net.of_adapter(made, inputs, taps)
  elif isinstance(made, linen.Module):
    built = net.from_linen(made, inputs, taps=taps, freeze=freeze)
  else:
    built = net.from_nnx(
      made,
      inputs,
      taps=taps,
      remat=remat,
      before=before,
      after=after,
      freeze=freeze,
    )
  return half.untrained(built, at=at) if str(dtype) == 'float16' else built


def part(
  name: str,
  *,
  num_classes: int,
  input_shape: PyTree,
  dtype: jnp.dtype,
  rngs: nnx.Rngs,
  at: str = 'model',
  **kw: Any,
) -> nnx.Module:
  """A model as a part of another one; the arguments are those of ``build``.

  Raises:
    UserError: as ``build``, and a model that is not an NNX module.
  """
  dtype = jnp.dtype(dtype).name
  made = _make(name, num_classes, input_shape, dtype, at, kw)
  if isinstance(made, _CLOSED):
    raise UserError(
      f'{at}: {name!r} is not an NNX module, and no other can be a part of one'
    )
  return net.switchable(made(rngs))


def tap_shapes(
  name: str,
  *,
  num_classes: int,
  input_shape: PyTree,
  at: str = 'model',
  made: Any = None,
  **kw: Any,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Every layer that ``taps`` can name, with its shape for a batch of one."""
  if is_placed(input_shape):
    input_shape = tokens_of(input_shape)
  if made is None:
    made = _make(name, num_classes, input_shape, 'float32', at, kw)
  if isinstance(made, Net):
    return {}
  return net.tap_shapes(made, shapes.batch(input_shape))


def defaults(name: str, *, at: str = 'model') -> dict[str, Any]:
  """The options that a model takes, those that its name fixes left out."""
  constructor, fixed = resolve(name, at=at)
  return {
    option: parameter.default
    for option, parameter in _options(constructor).items()
    if option not in fixed and parameter.default is not parameter.empty
  }


def fitter(
  name: str, *, num_classes: int, at: str = 'model', **kw: Any
) -> Callable[..., dict] | None:
  """What fits a model that is not trained; see `jaxkd.run.fitted`.

  Args:
    name: of the model.
    num_classes: of the labels.
    at: the config entry of the name, for error messages.
    **kw: the model's own options.

  Returns:
    ``(inputs, labels, ids, *, seed) -> variables``, or None for a model that
    takes gradient steps, as most do.
  """
  constructor, fixed = resolve(name, at=at)
  fit = getattr(constructor, 'fit', None)
  given = {**fixed, **kw, 'num_classes': num_classes}
  return functools.partial(fit, **given) if fit else None


def resolve(
  name: str, *, at: str = 'model'
) -> tuple[Callable, Mapping[str, Any]]:
  """What builds a model, and the options that its name fixes."""
  if hugging_face.is_folder(name):
    family, fixed = _of_folder(name, at)
    return families()[family].Model, fixed
  if torch_module.is_named(name):
    return torch_module.constructor(name, at=at), {}
  if external.is_external(name):
    return external.function(name, at=at), {}
  if ':' in name:
    found = lookup.attribute(name, kind='model', at=at)
    if isinstance(found, linen.Module | nnx.Module):
      raise UserError(
        f'{at}: {name!r} is a model that is made already; name its class, or a '
        'function that makes one'
      )
    return found, {}
  module = families().find(name, kind='model', at=at)
  return module.Model, {} if name in families() else module.NAMED[name]


def explicit(
  name: str, kw: Mapping[str, Any], *, at: str = 'model'
) -> tuple[str, dict[str, Any]]:
  """The same model without the folder that its name may depend on.

  Args:
    name: of a model, ``hf:FOLDER`` or any other.
    kw: its own options.
    at: the config entry of the name, for error messages.

  Returns:
    A name and options that mean the model wherever they are read.
  """
  if not hugging_face.is_folder(name):
    return name, dict(kw)
  family, fixed = _of_folder(name, at)
  return family, {**fixed, **kw}


def family_of(name: str, *, at: str = 'model') -> str:
  """The family of the net in a folder of Hugging Face, ``hf:FOLDER``."""
  return _of_folder(name, at)[0]


def _of_folder(name: str, at: str) -> tuple[str, dict[str, Any]]:
  """The family of the net in a folder of Hugging Face, and its options."""
  folder = hugging_face.folder(name, at=at)
  with within(f'{at}: '):
    if family := hugging_face_vision.family(folder):
      return family, hugging_face_vision.options(folder)
    return HUGGING_FACE, hugging_face.options(folder)


def merged(
  name: str, kw: Mapping[str, Any], variables: dict
) -> tuple[dict[str, Any], dict]:
  """A trained net without what was added to it for training alone.

  Args:
    name: of the model.
    kw: its own options.
    variables: [members, ...], or their shapes within a trace.

  Returns:
    Options and variables of the net that computes the same; those that were
    given where the model adds nothing.
  """
  merge = getattr(resolve(name)[0], 'merged', None)
  return merge(kw, variables) if merge else (dict(kw), variables)


@functools.cache
def families() -> registry.Files:
  """The files that hold a ``Model``, by name; taking one imports it."""
  return registry.Files(__name__, defines='Model', lists='NAMED')


def bound(
  name: str,
  num_classes: int,
  input_shape: PyTree,
  dtype: str,
  at: str,
  kw: Mapping[str, Any],
) -> tuple[functools.partial, bool]:
  """What builds a model, with its arguments.

  Args:
    name: of the model.
    num_classes: see `build`.
    input_shape: see `build`.
    dtype: see `build`.
    at: see `build`.
    kw: the model's own options.

  Returns:
    A function, and whether it takes ``rngs`` as well.
  """
  constructor, fixed = resolve(name, at=at)
  parameters = options.parameters_of(constructor)
  for option in kw:
    if option in fixed:
      raise UserError(
        f'{at}: {name!r} means {option}={fixed[option]}; drop the option '
        f'{option!r} or name the family instead'
      )
  options.check(
    kw,
    _options(constructor),
    name=f'the model {name!r}',
    at=f'{at.removesuffix("model").removesuffix("restore")}kw',
    filled=fixed,
    positive=SIZES,
  )
  given = {'num_classes': num_classes, 'input_shape': input_shape}
  given = {key: value for key, value in given.items() if key in parameters}
  if _is_linen(constructor):
    given |= {
      key: flag
      for key, flag in switch.flags(train=False).items()
      if key in parameters
      and parameters[key].default is inspect.Parameter.empty
    }
  given |= {**fixed, **kw}
  compute = _float(dtype, at)
  if 'dtype' in parameters:
    given['dtype'] = compute
  elif compute != jnp.float32:
    raise UserError(
      f'{at}: {name!r} has no argument dtype, so it cannot compute in {dtype}; '
      'let it take one, or set train.dtype of this net to float32'
    )
  return functools.partial(constructor, **given), 'rngs' in parameters


def _make(name, num_classes, input_shape, dtype, at, kw):
  """A Net, a Linen module, an Adapter, or a function: rngs to NNX module."""
  if external.is_external(name):
    raise UserError(
      f'{at}: {name!r} gives outputs, and no net that could train; it is for '
      'teachers.NAME.restore'
    )
  constructor, draws = bound(name, num_classes, input_shape, dtype, at, kw)
  if draws:
    return lambda rngs: constructor(rngs=rngs)
  made = constructor()
  if isinstance(made, nnx.Module):
    raise UserError(
      f'{at}: {name!r} draws the first values of its parameters itself, and '
      'they would be the same for all seeds; let it take the argument rngs '
      'and pass it on'
    )
  return made


def _frozen(made: Net, inputs: PyTree, freeze: str, name: str, at: str) -> Net:
  """A Net of which parameters do not train; its layers cannot be reached."""
  if not freeze:
    return made
  variables, key = jax.eval_shape(
    lambda: (made.init(jax.random.key(0)), jax.random.key(0))
  )
  is_frozen = frozen.layers(by_path(variables['params']), freeze)
  if is_frozen and is_frozen(''):

    def apply(variables, inputs, *, key=None, train=False):
      del key, train
      return made.apply(variables, inputs)[0], variables['state']

    return made._replace(apply=apply)
  if is_frozen:
    moved = []

    def outputs(key, variables, inputs):
      found, state = made.apply(variables, inputs, key=key, train=True)
      moved.extend(replaced(variables['state'], state))
      return found

    program = jax.make_jaxpr(outputs)(key, variables, inputs).jaxpr
    others = [False] * len(jax.tree.leaves((variables, inputs)))
    draws = any(dependent(program, [True, *others]))
    if moved or draws:
      does = f'moves {moved[0]!r} of its state' if moved else 'draws'
      raise UserError(
        f'{at.removesuffix("model")}freeze: {name!r} gives a Net, whose layers '
        f'cannot be reached, and in training it {does}, perhaps in a layer '
        "that is frozen; return the module itself, or freeze all of it with '*'"
      )
  return made


def _options(constructor: Callable) -> dict[str, inspect.Parameter]:
  """The parameters that are the model's own; ``**kwargs`` too."""
  ours = {'num_classes', 'input_shape', 'dtype', 'rngs'}
  if _is_linen(constructor):
    ours |= {'parent', 'name', *switch.flags(train=False)}
  return {
    name: parameter
    for name, parameter in options.parameters_of(constructor).items()
    if name not in ours
  }


def _is_linen(constructor: Callable) -> bool:
  return inspect.isclass(constructor) and issubclass(constructor, linen.Module)


def _float(dtype: str, at: str) -> jnp.dtype:
  if str(dtype) not in FLOATS:
    raise unknown('floating-point type', dtype, FLOATS, at)
  return jnp.dtype(dtype)
