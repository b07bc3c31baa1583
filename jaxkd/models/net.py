"""Flax modules as pure functions over plain dicts.

The only file that knows Flax's API. An NNX module is split once into a static
description and its arrays; a call merges the two, runs, and splits again.
(``nnx.jit`` would cost a millisecond a call, and the state of random number
generators would land in checkpoints: it is rebuilt from ``key`` instead.)

Layers whose outputs are returned, ``taps``, are named by their module path with
``/`` between segments, e.g. ``blocks/0`` or the glob ``blocks/*``; ``*`` stays
inside one segment, ``**`` crosses them. A module that is called more than once
in a forward pass has an output for each call, ``head@0``, ``head@1``...; one
that returns several arrays has one for each, ``backbone/c4``, ``backbone/c5``.
Names are those of inputs of the structure that a module is built for; where it
takes others too, as one that translates does, these have the outputs of the
layers that they go through.

A module is set to training or evaluation in every way that it offers: an NNX
module by its ``train()`` and ``eval()``, both kinds by an argument of the call
or an attribute of the module with one of the names in `jaxkd.models.switch`. A
module that draws random numbers or uses batch statistics in evaluation is
refused. Changes of its parameters within a call, as by ``nnx.SpectralNorm``,
last for that call.
"""

import dataclasses
import functools
import inspect
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import flax.errors
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import Array

from jaxkd import keys
from jaxkd.errors import UserError, unknown
from jaxkd.logits.factored import Factored, is_factored
from jaxkd.models import frozen, switch
from jaxkd.models.dependence import dependent
from jaxkd.paths import by_path, matches, replaced
from jaxkd.types import Idle, Net

STATISTICS = 'batch_stats/'  # the collection of Linen's BatchNorm
_STATE = 'state/'  # outputs that the net itself is given again
_DRAWS = (
  'keep the generators where the layers are made, as '
  'nnx.Dropout(0.5, rngs=rngs) in __init__ does'
)

PyTree = Any
Make = Callable[[nnx.Rngs], nnx.Module]
Hooks = Sequence[tuple[str, Callable[[Array], Array]]]


# A forward pass gives, beside what the module returns, the outputs of layers:
# module path -> one {name within the output: array} a call.
Calls = dict[str, tuple[dict[str, Array], ...]]


class Adapter(NamedTuple):
  """What all kinds of module have in common.

  Attributes:
    name: of the module's class.
    init: ``(key) -> variables``.
    shapes: the shapes of the variables.
    forward: ``(wanted) -> run``, where ``wanted`` tells by its path whether a
      layer's output is to be kept (None keeps none at no cost), and ``run`` is
      ``(variables, inputs, *, key, train) -> (result, calls, after, drew)``,
      the last two the variables after the call, and the layers that may have
      drawn random numbers.
    statistics: the paths in the state of what BatchNorm remembers.
    dropout: ``() -> layers`` that are to drop units in training.
    is_frozen: from `jaxkd.models.frozen`.
    quiet: what to write so that evaluation draws and changes nothing.
    plan: what modules have in common that compute alike; None if not known.
  """

  name: str
  init: Callable[[Array], dict]
  shapes: dict
  forward: Callable[..., Callable]
  statistics: tuple[str, ...]
  dropout: Callable[[], list[str]]
  is_frozen: frozen.IsFrozen | None
  quiet: str
  plan: Any = None


def from_nnx(
  make: Make,
  inputs: PyTree,
  *,
  taps: Sequence[str] = (),
  remat: str = '',
  before: Hooks = (),
  after: Hooks = (),
  freeze: str = '',
) -> Net:
  """The Net of an NNX module.

  Parameters (``nnx.Param``) become ``variables['params']``, all other arrays
  (running means and the like) ``variables['state']``. ``train`` sets dropout
  and BatchNorm the way the module's own ``train()`` and ``eval()`` do, and the
  switches of `jaxkd.models.switch` that the module has.

  Args:
    make: builds the module from its random number generators. Parameters are
      drawn from a stream of their own: a dropout layer more or less leaves
      the initial values of the others as they are.
    inputs: arrays of a batch of inputs, or their shapes.
    taps: names or globs of the layers whose outputs are to be added.
    remat: a name or glob of layers that, in training, keep their inputs alone
      for the backward pass, which computes again what is inside them; empty for
      none.
    before: names or globs of layers, each with a function of what goes in.
    after: the same of what comes out, in taps too.
    freeze: a pattern of the parameters that do not train; layers of which it
      matches all run as in evaluation, see `jaxkd.models.frozen`.

  Returns:
    The Net. Its ``apply`` needs no ``key`` where nothing is drawn, takes
    ``train`` as a Python bool, and gives float32 where the module computes in
    half precision, but for a ``state`` that it is given again.

  Raises:
    UserError: a tap that matches no layer, two outputs of one name, or a call
      that needs more than the inputs and a switch.
  """
  return of_adapter(_nnx(make, remat, before, after, freeze), inputs, taps)


def from_linen(
  module: linen.Module,
  inputs: PyTree,
  *,
  taps: Sequence[str] = (),
  freeze: str = '',
) -> Net:
  """The Net of a Linen module.

  The collection ``params`` becomes ``variables['params']``, all others but
  those that are only sown into ``variables['state']``. The module hears of
  ``train`` through the switches of `jaxkd.models.switch` that it has; in
  evaluation its collections cannot be changed, in training there is a stream of
  random numbers called ``dropout``, and any other takes that of ``params``.

  Args:
    module: the unbound module.
    inputs: arrays of a batch of inputs, or their shapes.
    taps: names or globs of the layers whose outputs are to be added.
    freeze: a pattern of the parameters that do not train; layers of which it
      matches all run as in evaluation, see `jaxkd.models.frozen`.

  Returns:
    The Net. Its ``apply`` needs no ``key`` where nothing is drawn, takes
    ``train`` as a Python bool, and gives float32 where the module computes in
    half precision.

  Raises:
    UserError: a tap that matches no layer, two outputs of one name, or a call
      that needs more than the inputs and a switch.
  """
  return of_adapter(_linen(module, inputs, freeze), inputs, taps)


def from_function(function: Callable[[PyTree, PyTree], Any], name: str) -> Net:
  """The Net of a pure function that is no module.

  Args:
    function: ``(variables, inputs) -> logits, or a dict of outputs``. It does
      the same in training and in evaluation, and draws nothing.
    name: for error messages.

  Returns:
    A Net without ``init``, whose parameters are the function's variables.
  """

  def init(key):
    raise UserError(f'{name} draws no values for its parameters')

  def apply(variables, inputs, *, key=None, train=False):
    del key, train
    outputs = _dict(function(variables['params'], inputs), name)
    outputs = {at: _full_precision(x) for at, x in outputs.items()}
    return outputs, variables['state']

  return Net(init, apply)


def write(module: nnx.Module, variables: dict) -> nnx.Module:
  """An NNX module, changed to have these variables.

  Args:
    module: any module of the architecture that they belong to. Its random
      number generators stay as they are.
    variables: ``{'params': ..., 'state': ...}`` of the `Net` of such a module.

  Raises:
    UserError: they belong to another architecture, or it is no NNX module.
  """
  if not isinstance(module, nnx.Module):
    raise UserError(
      f'a {type(module).__name__} is no nnx.Module that weights could be '
      'written to'
    )
  leaves = list(nnx.to_flat_state(nnx.state(module)))
  _check(variables, jax.eval_shape(lambda: _variables(leaves)))
  for path, leaf in leaves:
    if not isinstance(leaf, nnx.RngState):
      leaf.set_value(_value(path, leaf, variables, None))
  nnx.update(module, nnx.from_flat_state(leaves))
  return module


def linen_variables(variables: Mapping, net: Net) -> dict:
  """A Linen module's variables as those of its `Net`.

  Args:
    variables: collections by name, ``params`` among them.
    net: from `from_linen`.

  Raises:
    UserError: a collection is missing, or they are no dict.
  """
  if not isinstance(variables, Mapping):
    raise UserError(
      f'the variables of a Linen module are {variables!r:.60}; give a dict of '
      'collections, as its init returns it'
    )
  shapes = jax.eval_shape(net.init, jax.random.key(0))
  for name in ('params', *shapes['state']):
    if name not in variables and (name != 'params' or shapes['params']):
      raise unknown('collection of variables', name, variables)
  found = {
    'params': variables.get('params', {}),
    'state': {name: variables[name] for name in shapes['state']},
  }
  _check(found, shapes)
  return found


def tap_shapes(
  module: Make | linen.Module | Adapter, inputs: PyTree
) -> dict[str, jax.ShapeDtypeStruct]:
  """The shape of every layer's output, under the name a tap goes by.

  Args:
    module: a Linen module, an `Adapter`, or what ``from_nnx`` takes.
    inputs: arrays of a batch of inputs, or their shapes.
  """
  if isinstance(module, Adapter):
    adapter = module
  elif isinstance(module, linen.Module):
    adapter = _linen(module, inputs)
  else:
    adapter = _nnx(module)
  return _named(_trace(adapter, inputs)[1])


def switchable(module: nnx.Module) -> nnx.Module:
  """Prepares an NNX module to be a submodule that is called with inputs alone.

  If its call takes a train switch, the module gets an attribute ``training`` in
  its place, which is set together with those of the whole net.
  """
  called_with = switch.caller(type(module), draws=_DRAWS)
  if called_with((), True) != called_with((), False):
    module.training = True
    _become(module, _switched)
  return module


def count(params: PyTree) -> int:
  """The number of parameters, given arrays or shapes."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def of_adapter(
  adapter: Adapter, inputs: PyTree, taps: Sequence[str] = ()
) -> Net:
  """The Net of a module of whatever kind, as `from_nnx` says of NNX.

  Args:
    adapter: of the module.
    inputs: arrays of a batch of inputs, or their shapes.
    taps: names or globs of the layers whose outputs are to be added.

  Raises:
    UserError: a tap that matches no layer, two outputs of one name, or
      variables that cannot be kept on disk.
  """
  for path, leaf in by_path(adapter.shapes).items():
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
      raise UserError(
        f'the model {adapter.name} keeps {leaf.dtype.name} in {path}, and what '
        'is kept on disk are numbers; keep jax.random.key_data(key) in its '
        'place, or draw from the generators that the model is given'
      )
  names: tuple[str, ...] = ()
  wanted = None
  if taps:
    outputs, calls = _trace(adapter, inputs)
    names = _select(taps, _named(calls))
    _add(outputs, calls, names, train=False)
    paths = {
      path
      for path, call in calls.items()
      if not _named({path: call}).keys().isdisjoint(names)
    }
    wanted = paths.__contains__
  run = adapter.forward(wanted)
  structure = jax.tree.structure(inputs)

  @functools.cache
  def used(train):
    return _used(adapter, inputs, train)

  def apply(variables, inputs, *, key=None, train=False):
    _check(variables, adapter.shapes)
    result, calls, after, drew = run(variables, inputs, key=key, train=train)
    state = after['state']
    if drew and (key is None or not train) and used(train).key:
      todo = (
        ': give apply a key' if train else f' in evaluation; {adapter.quiet}'
      )
      raise UserError(f'the layer {drew[0]!r} draws random numbers{todo}')
    moved = replaced(variables['state'], state)
    if not train and not moved.keys().isdisjoint(adapter.statistics):
      for path in used(train).moving:
        raise UserError(
          f'{path} of the model {adapter.name} changes in evaluation, where '
          f'the statistics of a batch are not to be used; {adapter.quiet}'
        )
    if train and replaced(variables['params'], after['params']):
      for path in used(train).written:
        raise UserError(
          f'the parameter {path} of the model {adapter.name} changes in a '
          'call, and parameters change by their gradient alone; keep it in an '
          'nnx.Variable that is no nnx.Param'
        )
    found = names
    if jax.tree.structure(inputs) != structure:
      found = [name for name in names if name in _named(calls)]
    outputs = _add(_dict(result, adapter.name), calls, found, train=train)
    return {
      name: value if name.startswith(_STATE) else _full_precision(value)
      for name, value in outputs.items()
    }, state

  def idle():
    found = used(True)
    still = [path.removeprefix(STATISTICS) for path in found.still]
    dropout = [] if found.key else adapter.dropout()
    if adapter.is_frozen:  # which is meant to do nothing
      still = [p for p in still if not adapter.is_frozen(p.rpartition('/')[0])]
      dropout = [layer for layer in dropout if not adapter.is_frozen(layer)]
    return Idle(tuple(still), tuple(dropout))

  return Net(adapter.init, apply, idle)


def _trace(adapter: Adapter, inputs: PyTree) -> tuple[dict, Calls]:
  """Shapes of what a model and all its layers give."""
  run = adapter.forward(lambda path: True)

  def outputs_and_calls(variables, inputs):
    key = jax.random.key(0)
    result, calls, *_ = run(variables, inputs, key=key, train=False)
    return _dict(result, adapter.name), calls

  return jax.eval_shape(outputs_and_calls, adapter.shapes, inputs)


class _Used(NamedTuple):
  """What a forward pass makes use of.

  Attributes:
    key: whether its result depends on random numbers.
    moving: the statistics whose new value depends on the inputs.
    still: those whose new value depends on no inputs and no parameters; those
      of spectral normalisation depend on parameters.
    written: the parameters whose new value depends on the inputs.
  """

  key: bool
  moving: tuple[str, ...]
  still: tuple[str, ...]
  written: tuple[str, ...]


def _used(adapter: Adapter, inputs: PyTree, train: bool) -> _Used:
  run = adapter.forward(None)
  params = tuple(by_path(adapter.shapes['params']))

  def forward(key, inputs, variables):
    result, _, after, _ = run(variables, inputs, key=key, train=train)
    state, own = by_path(after['state']), by_path(after['params'])
    moved = [state[path] for path in adapter.statistics]
    return moved, [own[path] for path in params], result

  arguments = jax.random.key(0), inputs, adapter.shapes
  program = jax.make_jaxpr(forward)(*arguments).jaxpr
  parts = {
    'key': arguments[0],
    'inputs': inputs,
    'params': adapter.shapes['params'],
    'state': adapter.shapes['state'],
  }

  def by(*chosen):
    """Which results depend on the chosen parts of the arguments."""
    leaves = [
      name in chosen
      for name, part in parts.items()
      for _ in jax.tree.leaves(part)
    ]
    return dependent(program, leaves)

  count = len(adapter.statistics)
  by_inputs = by('inputs')
  moving = itertools.compress(adapter.statistics, by_inputs)
  moved = by('inputs', 'params')[:count]
  still = itertools.compress(adapter.statistics, map(operator.not_, moved))
  written = itertools.compress(params, by_inputs[count:])
  drawn = any(by('key')[count + len(params) :])
  return _Used(drawn, tuple(moving), tuple(still), tuple(written))


def _add(
  outputs: dict, calls: Calls, names: Iterable[str], *, train: bool
) -> dict[str, Array]:
  """A model's outputs with those of the layers asked for."""
  layers = _named(calls)
  for name in names:
    if name in outputs:
      raise UserError(
        f'the tap {name!r} has the name of an output of the model itself '
        f'({", ".join(outputs)}): drop the tap or rename the layer'
      )
    if name not in layers:
      raise UserError(f'the layer {name!r} is not called with train={train}')
  return {**outputs, **{name: layers[name] for name in names}}


def _named(calls: Calls) -> dict[str, Array]:
  """Layers' outputs under one name each."""
  named = {}
  for path, outputs in sorted(calls.items()):
    for i, leaves in enumerate(outputs):
      base = path if len(outputs) == 1 else f'{path}@{i}'
      for key, leaf in leaves.items():
        name = f'{base}/{key}' if key else base
        if name in named:
          raise UserError(
            f'two layers have outputs called {name!r}: rename a layer'
          )
        named[name] = leaf
  return named


def _select(
  taps: Sequence[str], names: Iterable[str], at: str = 'taps'
) -> tuple[str, ...]:
  """The names that taps match, in the order of the names."""
  names = list(names)
  chosen = set()
  for tap in taps:
    pattern = re.escape(tap).replace(r'\*\*', '.*').replace(r'\*', '[^/]*')
    matched = [name for name in names if re.fullmatch(pattern, name)]
    if not matched:
      # Deep models have hundreds of layers: their numbers say little.
      short = {re.sub(r'(?<=/)\d+(?=/|$)', '*', name) for name in names}
      raise unknown('layer', tap, names if len(names) <= 30 else short, at)
    chosen.update(matched)
  return tuple(name for name in names if name in chosen)


def _leaves(output: PyTree) -> dict[str, Array]:
  """The arrays of a layer's output by their path inside it."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      output, is_leaf=is_factored
    )
    if isinstance(leaf, Array | Factored)
  }


def _dict(result: PyTree, model: str) -> dict[str, Array]:
  """A model's outputs by name.

  Raises:
    UserError: they have none, or are no arrays.
  """
  if isinstance(result, Array):
    return {'logits': result}
  if isinstance(result, Mapping):
    outputs = _leaves(result)
    found = by_path(dict(result), is_factored)
    if outputs and len(outputs) == len(found):
      return outputs
    bad = [f'{n!r} is {_said(x)}' for n, x in found.items() if n not in outputs]
    given = f'a dict in which {bad[0]}' if bad else 'a dict without arrays'
  else:
    given = _said(result)
  raise UserError(
    f'the model {model} returns {given}, and a model must return an array (its '
    "logits) or a dict of arrays: write return {'logits': logits, 'features': "
    'features}, with names of your own for all but the logits'
  )


def _said(output: PyTree) -> str:
  """What an output is, in words."""
  if isinstance(output, Array):
    sizes = ', '.join(map(str, output.shape))
    return f'an array {output.dtype.name}[{sizes}]'
  if isinstance(output, tuple | list) and output:
    kind = type(output).__name__
    return f'a {kind} of {len(output)}, the first {_said(output[0])}'
  return 'None' if output is None else f'a {type(output).__name__}'


def _full_precision(x: Array) -> Array:
  """Half precision is for computing; losses and metrics get float32."""
  half = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
  return x.astype(jnp.float32) if half else x


def _check(variables: dict, shapes: dict) -> None:
  """Refuses the variables of another model, and entries that none reads."""
  given, own = (jax.tree.map(np.shape, x) for x in (variables, shapes))
  if given == own:
    return

  def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(
      tree, is_leaf=lambda x: isinstance(x, tuple)
    )
    return {
      jax.tree_util.keystr(path, simple=True, separator='/'): shape
      for path, shape in leaves
    }

  given, own = flat(given), flat(own)
  name = min(n for n in {*given, *own} if given.get(n) != own.get(n))
  raise UserError(
    f'these variables belong to another model: {name} is '
    f'{given.get(name, "missing")} there and {own.get(name, "missing")} here'
  )


def _nnx(
  make: Make,
  remat: str = '',
  before: Hooks = (),
  after: Hooks = (),
  freeze: str = '',
) -> Adapter:
  def build(key):
    module = make(_rngs(key))
    for path, layer in nnx.iter_modules(module):
      for name, value in vars(layer).items():
        if isinstance(value, Array):  # NNX takes it for static under a trace
          raise UserError(
            f'the module keeps the bare array {_name((*path, name))!r}: wrap '
            'it in nnx.Variable'
          )
    return module

  def init(key):
    return _variables(nnx.to_flat_state(nnx.state(build(key))))

  kind, graphdef, state = _abstract(lambda: build(jax.random.key(0)))
  layout = list(nnx.to_flat_state(state))
  called_with = switch.caller(kind, draws=_DRAWS)
  shapes = _variables(layout)
  if freeze:
    _check_shared(nnx.merge(graphdef, state), by_path(shapes['params']), freeze)
  is_frozen = frozen.layers(by_path(shapes['params']), freeze)

  def forward(wanted):
    graphdefs = _modes(graphdef, state, wanted, remat, before, after, is_frozen)

    def run(variables, inputs, *, key, train):
      values = {
        path: _value(path, leaf, variables, key) for path, leaf in layout
      }
      state = nnx.from_flat_state(list(values.items()))
      module = nnx.merge(graphdefs[train], state)
      args, kwargs = called_with(inputs, train)
      with _bridged(kind):
        if wanted is None:
          result, sown = module(*args, **kwargs), nnx.State({})
        else:
          captured = nnx.capture(module, nnx.Intermediate)
          result, sown = captured(*args, **kwargs)
      calls = {
        _name(path[:-1]): tuple(map(_leaves, outputs.get_value()))
        for path, outputs in nnx.to_flat_state(sown)
        if path[-1] == '__call__'
      }
      after = dict(nnx.to_flat_state(nnx.state(module)))
      drew = [
        _name(path[:-2])
        for path, leaf in layout
        if isinstance(leaf, nnx.RngCount)
        and after[path].get_value() is not values[path]
      ]
      after = _variables((path, after[path]) for path, _ in layout)
      if train and is_frozen:
        after['state'] = frozen.still(
          variables['state'], after['state'], is_frozen
        )
      return result, calls, after, drew

    return run

  def dropout():
    module = nnx.merge(graphdef, state)
    return [_name(path) for path, m in nnx.iter_modules(module) if _drops(m)]

  return Adapter(
    kind.__name__,
    init,
    shapes,
    forward,
    tuple(_name(p) for p, leaf in layout if isinstance(leaf, nnx.BatchStat)),
    dropout,
    is_frozen,
    'leave deterministic and use_running_average to module.train() and '
    'module.eval(), or let __call__ take the argument train and pass it on',
  )


@contextmanager
def _bridged(kind: type) -> Iterator[None]:
  """Says what a Linen module inside of an NNX module needs to train."""
  try:
    yield
  except flax.errors.ModifyScopeVariableError as error:
    raise UserError(
      f'a Linen module in the model {kind.__name__} may not change its state '
      f"({_short(error)}); call it with mutable=['batch_stats'] where train is "
      'True, and with mutable=False elsewhere, or name the Linen module itself '
      'as the model'
    ) from error


def _check_shared(
  module: nnx.Module, params: Iterable[str], freeze: str
) -> None:
  """Refuses to freeze a layer whose parameters train as another layer's.

  Raises:
    UserError: the pattern matches one name of a parameter, and not the one by
      which it is known.
  """
  names: dict[int, list[str]] = {}
  for path, layer in nnx.iter_modules(module):
    for name, value in vars(layer).items():
      if isinstance(value, nnx.Param):
        names.setdefault(id(value), []).append(_name((*path, name)))
  known = set(params)
  for several in names.values():
    for own in known.intersection(several):
      for other in several:
        if matches(other, freeze) and not matches(own, freeze):
          raise UserError(
            f'freeze: {other} is the same parameter as {own}, which would '
            f'train; freeze it too, as by {f"{freeze}|{own}"!r}'
          )


def _drops(layer: nnx.Module | linen.Module) -> bool:
  """Whether a layer is to drop some units in training."""
  dropout = isinstance(layer, nnx.Dropout | linen.Dropout)
  rate = getattr(layer, 'rate' if dropout else 'dropout_rate', 0)
  return isinstance(rate, int | float) and 0 < rate < 1


class _Stream(nnx.RngStream):
  """Counts as its parent does, but in constant time under a trace.

  (``count[...] += 1`` asks a traced count for its sharding, and JAX goes
  through the whole trace to say that there is none: resnet110 took ten times
  as long to build.)
  """

  def __call__(self) -> Array:
    count = self.count.get_value()
    self.count.set_value(count + 1)
    return jax.random.fold_in(self.key.get_value(), count)


def _rngs(key: Array) -> nnx.Rngs:
  """A stream for parameters and one for all else."""
  rngs = nnx.Rngs()
  rngs.params = _Stream(keys.fold(key, 'params'), tag='params')
  rngs.default = _Stream(keys.fold(key, 'other'), tag='default')
  return rngs


def _abstract(
  make: Callable[[], nnx.Module],
) -> tuple[type, nnx.GraphDef, nnx.State]:
  """A module's class, its static part and the shapes of its arrays."""
  static = []

  def split():
    module = make()
    if not isinstance(module, nnx.Module):
      raise UserError(
        f'the function that makes the model gives {module!r:.60}; let it '
        'return an nnx.Module'
      )
    graphdef, state = nnx.split(module)
    static.append((type(module), graphdef))
    return state

  state = jax.eval_shape(split)
  return *static[0], state


def _modes(
  graphdef: nnx.GraphDef,
  state: nnx.State,
  wanted: Callable | None,
  remat: str,
  before: Hooks,
  after: Hooks,
  is_frozen: frozen.IsFrozen | None,
) -> dict[bool, nnx.GraphDef]:
  """A module's static part by whether it trains, with its outputs tapped."""
  modes = {}

  def visit(state, train):
    module = nnx.merge(graphdef, state)
    modules = {_name(path): m for path, m in nnx.iter_modules(module) if path}
    layers = {name: m for name, m in modules.items() if callable(m)}
    looped = modules.keys() - layers.keys()
    still = [
      layer
      for path, layer in nnx.iter_modules(module)
      if train and is_frozen and is_frozen(_name(path))
    ]
    for layer in filter(callable, still):
      _become(layer, _evaluating)
    for name in _select((remat,), layers, 'remat') if remat else ():
      # Evaluation has no backward pass, and needs no key: what is computed
      # again looks as if it had drawn.
      if train:
        _become(layers[name], _recomputing)
    for hooks, kind in ((before, _taking), (after, _giving)):
      for pattern, function in hooks:
        if pattern in looped:
          raise UserError(
            f'{pattern} is called in a loop, where what goes into it cannot be '
            f'changed; leave it out, as by skip={pattern!r}'
          )
        for name in _select((pattern,), layers, 'layers'):
          _become(layers[name], functools.partial(kind, function=function))
    for name in filter(wanted, layers) if wanted else ():
      _become(layers[name], _sowing)
    _tell(module, train)
    for layer in still:
      _tell(layer, False)
    modes[train] = nnx.graphdef(module)

  for train in (True, False):
    jax.eval_shape(functools.partial(visit, train=train), state)
  return modes


def _tell(module: nnx.Module, train: bool) -> None:
  """Sets a module and its submodules to training or evaluation."""
  # Called by class: an attribute of the module's may have their name.
  (type(module).train if train else type(module).eval)(module)
  for _, layer in nnx.iter_modules(module):
    for name, value in switch.flags(train).items():
      own = isinstance(vars(layer).get(name), bool)
      if own and name not in ('deterministic', 'use_running_average'):
        setattr(layer, name, value)


def _become(layer: nnx.Module, kind: Callable[[type], type]) -> None:
  object.__setattr__(layer, '__class__', kind(type(layer)))


def _derived(cls: type[nnx.Module], call: Callable) -> type[nnx.Module]:
  """A class of layers that differs from another in how it is called."""
  pytree = getattr(cls, '_pytree__is_pytree', True)
  return type(cls)(cls.__name__, (cls,), {'__call__': call}, pytree=pytree)


@functools.cache
def _evaluating(cls: type[nnx.Module]) -> type[nnx.Module]:
  """The class of a layer that always runs in evaluation mode."""

  def __call__(self, *args, **kwargs):
    args, kwargs = frozen.eval_arguments(cls.__call__, (self, *args), kwargs)
    return cls.__call__(*args, **kwargs)

  return _derived(cls, __call__)


@functools.cache
def _recomputing(cls: type[nnx.Module]) -> type[nnx.Module]:
  """The class of a layer that keeps nothing but its input for backward."""

  def __call__(self, *args, **kwargs):
    for _, inner in nnx.iter_modules(self):
      # A list has numbers for keys, which cannot be sorted with this name that
      # nnx.capture puts beside them. It has no output of its own.
      if isinstance(inner, nnx.List) and hasattr(inner, '__captures__'):
        del inner.__captures__
    # Flags stay as they are: Python cannot ask a traced one.
    flags = {name: x for name, x in kwargs.items() if isinstance(x, bool)}
    others = {name: x for name, x in kwargs.items() if name not in flags}

    def call(self, *arrays, **others):
      left = iter(arrays)
      whole = (x if isinstance(x, bool) else next(left) for x in args)
      return cls.__call__(self, *whole, **flags, **others)

    arrays = (x for x in args if not isinstance(x, bool))
    return nnx.remat(call)(self, *arrays, **others)

  return _derived(cls, __call__)


@functools.cache
def _switched(cls: type[nnx.Module]) -> type[nnx.Module]:
  """The class of a layer that is called with what its own switch says."""
  called_with = switch.caller(cls, draws=_DRAWS)

  def __call__(self, inputs):
    args, kwargs = called_with(inputs, self.training)
    return cls.__call__(self, *args, **kwargs)

  return _derived(cls, __call__)


@functools.cache
def _taking(cls: type[nnx.Module], function: Callable) -> type[nnx.Module]:
  """The class of a layer whose input a function changes."""

  def __call__(self, x, *args, **kwargs):
    return cls.__call__(self, function(x), *args, **kwargs)

  return _derived(cls, __call__)


@functools.cache
def _giving(cls: type[nnx.Module], function: Callable) -> type[nnx.Module]:
  """The class of a layer whose output a function changes."""

  def __call__(self, *args, **kwargs):
    return jax.tree.map(function, cls.__call__(self, *args, **kwargs))

  return _derived(cls, __call__)


@functools.cache
def _sowing(cls: type[nnx.Module]) -> type[nnx.Module]:
  """The class of a layer whose outputs are kept.

  (``nnx.capture(..., method_outputs=...)`` patches the methods of every class
  in the model, misses inherited ones and breaks static ones.)
  """

  def __call__(self, *args, **kwargs):
    output = cls.__call__(self, *args, **kwargs)
    self.sow(nnx.Intermediate, '__call__', output)
    return output

  return _derived(cls, __call__)


def _name(path: tuple) -> str:
  return '/'.join(map(str, path))


def _variables(leaves: Iterable[tuple[tuple, Any]]) -> dict:
  """Parameters and state, without the random number generators."""
  variables: dict[str, dict] = {'params': {}, 'state': {}}
  for path, leaf in leaves:
    if not isinstance(leaf, nnx.RngState):
      kind = 'params' if isinstance(leaf, nnx.Param) else 'state'
      *parents, last = map(str, path)
      node = functools.reduce(
        lambda node, key: node.setdefault(key, {}), parents, variables[kind]
      )
      node[last] = leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
  return variables


def _value(path: tuple, leaf: Any, variables: dict, key: Array | None) -> Array:
  """The value of one of a module's arrays."""
  if isinstance(leaf, nnx.RngCount):
    return jnp.zeros(leaf.shape, leaf.dtype)
  if isinstance(leaf, nnx.RngKey):
    # A layer's draws depend on key and its path, not on the layers before it.
    key = keys.fold(jax.random.key(0) if key is None else key, _name(path[:-1]))
    return jax.random.split(key, leaf.shape) if leaf.shape else key
  kind = 'params' if isinstance(leaf, nnx.Param) else 'state'
  return functools.reduce(
    lambda node, key: node[key], map(str, path), variables[kind]
  )


def _linen(module: linen.Module, inputs: PyTree, freeze: str = '') -> Adapter:
  kind = type(module)
  called_with = switch.caller(
    kind, draws="draw with self.make_rng('dropout'), as linen.Dropout does"
  )
  attributes = {
    field.name
    for field in dataclasses.fields(module)
    if field.name in switch.flags(True)
    and field.name not in inspect.signature(kind.__call__).parameters
    and isinstance(getattr(module, field.name), bool | None)
  }

  def switched(train):
    """The module with its train switches set."""
    flags = switch.flags(train)
    own = {name: flags[name] for name in attributes}
    return module.clone(**own) if own else module

  def initial(key):
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
    args, kwargs = called_with(zeros, False)
    return dict(switched(False).init(key, *args, **kwargs))

  def call(variables, inputs, train, **options):
    args, kwargs = called_with(inputs, train)
    return switched(train).apply(variables, *args, **kwargs, **options)

  sown = _sown(jax.eval_shape(initial, jax.random.key(0)), call, inputs)

  def init(key):
    kept = {k: v for k, v in initial(key).items() if k not in sown}
    return {'params': kept.pop('params', {}), 'state': kept}

  shapes = jax.eval_shape(init, jax.random.key(0))
  is_frozen = frozen.layers(by_path(shapes['params']), freeze)

  def evaluating(call, args, kwargs, context):
    """Calls a method of a layer; of a frozen one, in evaluation mode."""
    layer = context.module
    if is_frozen(_name(layer.path)):
      own = {
        name: flag
        for name, flag in switch.flags(train=False).items()
        if getattr(layer, name, None) is not None
        and name in type(layer).__dataclass_fields__
      }
      for name, flag in own.items():
        object.__setattr__(layer, name, flag)
      # Flax refuses a switch that is given both to the layer and to its call.
      args, kwargs = frozen.eval_arguments(
        context.orig_method, args, kwargs, but=own
      )
    return call(*args, **kwargs)

  def forward(wanted):
    def captured(layer, method):
      called = bool(layer.path) and method == '__call__'
      return called and wanted(_name(layer.path))

    def run(variables, inputs, *, key, train):
      state = variables['state']
      still = train and is_frozen
      try:
        with linen.intercept_methods(evaluating) if still else nullcontext():
          result, changed = call(
            {'params': variables['params'], **state},
            inputs,
            train,
            rngs=_streams(key, train),
            mutable=[*(state if train else ()), 'intermediates'],
            capture_intermediates=wanted is not None and captured,
          )
      except flax.errors.InvalidRngError as error:
        todo = ': give apply a key' if train else f' in evaluation; {quiet}'
        raise UserError(
          f'the model {kind.__name__} draws random numbers ({_short(error)})'
          f'{todo}'
        ) from error
      except flax.errors.ModifyScopeVariableError as error:
        if train:
          raise UserError(
            f'the model {kind.__name__} changes a state in training that it '
            f'does not have otherwise ({_short(error)}); let it make the '
            'variable in every call'
          ) from error
        raise UserError(
          f'the model {kind.__name__} changes its state in evaluation '
          f'({_short(error)}); {quiet}'
        ) from error
      captures = changed.get('intermediates', {})
      calls = {
        _name(path[:-1]): tuple(map(_leaves, outputs))
        for path, outputs in flax.traverse_util.flatten_dict(captures).items()
        if path[-1] == '__call__'
      }
      state = {name: changed.get(name, state[name]) for name in state}
      if still:
        state = frozen.still(variables['state'], state, is_frozen, skip=1)
      return result, calls, {**variables, 'state': state}, ()

    return run

  quiet = (
    'let __call__ take the argument train and pass it on, e.g. as '
    'deterministic=not train and use_running_average=not train'
  )

  def dropout():
    found = {}

    def note(method, args, kwargs, context):
      if _drops(context.module):
        found[_name(context.module.path) or kind.__name__] = None
      return method(*args, **kwargs)

    with linen.intercept_methods(note):
      jax.eval_shape(
        functools.partial(forward(None), key=jax.random.key(0), train=True),
        shapes,
        inputs,
      )
    return list(found)

  return Adapter(
    kind.__name__,
    init,
    shapes,
    forward,
    tuple(p for p in by_path(shapes['state']) if p.startswith(STATISTICS)),
    dropout,
    is_frozen,
    quiet,
  )


def _short(error: flax.errors.FlaxError) -> str:
  """What Flax says, without the address of its documentation."""
  return str(error).partition(' (http')[0].rstrip('.')


def _streams(key: Array | None, train: bool) -> dict[str, Array]:
  """Streams of random numbers for a Linen module.

  Some modules see by the one called ``dropout`` whether they train.
  """
  if key is None or not train:
    return {}
  return {'dropout': key, 'params': keys.fold(key, 'params')}


def _sown(variables: dict, call: Callable, inputs: PyTree) -> set[str]:
  """The collections of a Linen module that nothing in it reads.

  What is sown is put behind what is there, so a call makes it longer.
  """
  found = {'intermediates', 'perturbations'}
  suspects = {
    name
    for name, tree in variables.items()
    for leaf in flax.traverse_util.flatten_dict(tree).values()
    if isinstance(leaf, tuple)
  }
  if suspects:
    rngs = {'params': jax.random.key(0)}
    run = functools.partial(call, train=False, mutable=True, rngs=rngs)
    _, after = jax.eval_shape(run, variables, inputs)
    size = lambda tree: len(jax.tree.leaves(tree))  # noqa: E731
    found |= {n for n in suspects if size(after[n]) > size(variables[n])}
  return found
