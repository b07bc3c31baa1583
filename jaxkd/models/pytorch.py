"""Weights that were trained in PyTorch, as variables of our models.

There, layers have other names and other layouts. A family says in its file
which of theirs is which of ours: ``PYTORCH`` is a dict of regular expressions,
of which one matches the whole name of a layer, to functions of what its groups
match, digits as integers and ``bn`` as ``norm``, as we call it. What a layer
holds is the same in all families:

    weight [O, I, H, W]          kernel [H, W, I, O]
    weight [O, I]                kernel [I, O]
    weight [C]                   scale [C]
    bias                         bias
    a parameter by itself        the same
    running_mean, running_var    mean, var

A rule for a parameter that is in no layer matches its whole name. Maps that are
one of ours and several of theirs, as those of queries, keys and values, have
``#0``, ``#1``... after the name of ours, and are concatenated in that order.

Every tensor must find its place and every variable its values, all but counts
such as ``num_batches_tracked``, which have no part in what a net computes. What
trainers wrap around a net and its layers is left out of the names.
"""

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from jaxkd import files, models, registry
from jaxkd.errors import UserError
from jaxkd.paths import by_path

PREFIX = 'pytorch:'  # of the path of such a file, in a config

_REMEDY = 'name the model that the file is of'
_KINDS: dict[tuple[str, int], tuple[str, str, tuple[int, ...]]] = {
  ('weight', 4): ('params', 'kernel', (2, 3, 1, 0)),
  ('weight', 2): ('params', 'kernel', (1, 0)),
  ('weight', 1): ('params', 'scale', (0,)),
  ('bias', 1): ('params', 'bias', (0,)),
  ('running_mean', 1): ('state', 'mean', (0,)),
  ('running_var', 1): ('state', 'var', (0,)),
}
# What torch.nn.MultiheadAttention calls the map of queries, keys and values.
_IN_PROJ = re.compile(r'(in_proj)_(weight|bias)$')
# Counts of BatchNorm, of torch.optim.swa_utils, and of the profiler thop.
_UNUSED = {'num_batches_tracked', 'n_averaged', 'total_ops', 'total_params'}
# What PyTorch's wrappers put into names, before a whole net or a layer of it:
# DataParallel, torch.compile, FSDP and activation checkpointing.
_WRAPPERS = {
  *('module', '_orig_mod'),
  *('_fsdp_wrapped_module', '_checkpoint_wrapped_module'),
}
# What people's own modules call the net in them, and its parts.
_HOLDERS = {
  *('model', 'net', 'network', 'student', 'ema_model'),
  *('backbone', 'encoder', 'base_model', 'features_extractor', 'head'),
}
# What a checkpoint calls the state dict in it.
_NESTED = (
  *('state_dict', 'model_state_dict', 'model', 'net'),
  *('network', 'student', 'module', 'weights', 'params'),
  *('state_dict_ema', 'model_ema'),
)
# PyTorch's reader of weights runs no code of a file and refuses whatever else
# a file holds, such as the options of its training. Here empty objects take
# the place of these: dicts, and for NumPy's numbers, which a tuple fills,
# objects that ignore it. The names in files from before PyTorch 1.6 cannot be
# listed. A tensor that shares memory with another, or is not laid out row by
# row, is copied, as safetensors asks.
_CONVERT = (
  'import collections, torch, zipfile; from safetensors.torch import save_file'
  '; from torch import serialization as t; file = {0!r}',
  'a = type("Left", (), dict(__new__=lambda *_: collections.OrderedDict())); '
  'b = type("Out", (), dict(__new__=lambda c, *_: object.__new__(c), '
  '__setstate__=lambda *_: None))',
  'other = t.get_unsafe_globals_in_checkpoint(file) '
  'if zipfile.is_zipfile(file) else ["argparse.Namespace"]; '
  't.add_safe_globals([(b if n.startswith("numpy") else a, n) for n in other])',
  's = torch.load(file, "cpu", weights_only=True); '
  'print("taken of", list(s)[:9], "is", [k for k in {2!r} * 2 '
  'if isinstance(s.get(k), dict) and (s := s[k])] or "all")',
  'save_file(dict((k, v.clone(memory_format=torch.contiguous_format)) '
  'for k, v in s.items() if torch.is_tensor(v)), {1!r})',
)


def load(path: str | Path, model: str, like: Any) -> dict:
  """The variables of a model from a state dict of PyTorch.

  Args:
    path: a safetensors file.
    model: a family or a published name, e.g. ``'resnet8x4'``, or a class of
      one's own in a file that has ``PYTORCH`` too.
    like: its variables or their shapes, as ``Net.init`` makes them.

  Returns:
    A tree like this one of float32 arrays.

  Raises:
    UserError: no such file or one of another kind, a model of which no names
      are known, a tensor without a place there, or a variable without values.

  Example::

    net = models.build('resnet56', num_classes=100, input_shape=(32, 32, 3))
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    variables = pytorch.load('resnet56.safetensors', 'resnet56', shapes)
  """
  path = files.path(path, at='path')
  rules = _rules(model)
  return _placed(_read(path), rules, model, like, path)


def placed(
  tensors: Mapping[str, np.ndarray], model: str, like: Any, path: Path
) -> dict:
  """The variables of a model from the tensors of a state dict, by name.

  Args:
    tensors: floating-point ones, by their names there.
    model: see `load`.
    like: see `load`.
    path: where they come from, for errors.

  Raises:
    UserError: as `load`.
  """
  kept = {k: x for k, x in tensors.items() if _leaf(k) not in _UNUSED}
  return _placed(kept, _rules(model), model, like, path)


def _placed(
  tensors: Mapping[str, np.ndarray],
  rules: Mapping[str, Callable[..., str]],
  model: str,
  like: Any,
  path: Path,
) -> dict:
  wanted = by_path(like)
  misfit = f'{path} does not fit the model {model!r}: '
  parts: dict[str, dict[int, tuple[str, np.ndarray]]] = {}
  for name, (ours, is_layer) in _places(tensors, rules).items():
    tensor = tensors[name]
    shown = f'{name} {list(tensor.shape)}'
    leaf = _leaf(_IN_PROJ.sub(r'\1.\2', name))
    if not ours:
      raise UserError(f'{misfit}it has no layer for {shown}; {_REMEDY}')
    layer, _, number = ours.partition('#')
    if not is_layer:
      target, value = f'params/{layer}', tensor
    elif (leaf, tensor.ndim) in _KINDS:
      kind, last, axes = _KINDS[leaf, tensor.ndim]
      target, value = f'{kind}/{layer}/{last}', tensor.transpose(axes)
    else:
      raise UserError(
        f'{misfit}its layer {layer} has no place for {shown}; save the net '
        'with plain weights, biases and running statistics'
      )
    own = parts.setdefault(target, {})
    if int(number or 0) in own:
      raise UserError(
        f'{misfit}{own[int(number or 0)][0]} and {shown} would both be '
        f'{target}; keep the tensors of one net'
      )
    own[int(number or 0)] = shown, value
  found = {}
  for target, own in parts.items():
    shown = ' and '.join(own[number][0] for number in sorted(own))
    value = _joined([own[number][1] for number in sorted(own)])
    expected = wanted[target].shape if target in wanted else None
    if value is None or value.shape != expected:
      has = f'has {list(expected)} there' if expected else 'has no such layer'
      sizes = '' if value is None else f' {list(value.shape)}'
      raise UserError(
        f'{misfit}{shown} would be {target}{sizes}, and the model {has}; '
        f'{_REMEDY}, on data of its classes and of its size'
      )
    value = _float32(value)
    if not np.isfinite(value).all():
      raise UserError(f'{misfit}{shown} has values that are not finite')
    if target.endswith('/var') and (value < 0).any():
      raise UserError(f'{misfit}{shown} has variances below 0; save it again')
    found[target] = jnp.asarray(value)
  for target, leaf in wanted.items():
    if target not in found:
      raise UserError(
        f'{misfit}no tensor there gives {target} {list(leaf.shape)}; {_REMEDY}'
      )
  return jax.tree.unflatten(jax.tree.structure(like), map(found.get, wanted))


def _joined(values: list[np.ndarray]) -> np.ndarray | None:
  """Values one after another in the last axis; None where others differ."""
  if len({value.shape[:-1] for value in values}) > 1:
    return None
  return np.concatenate(values, -1) if len(values) > 1 else values[0]


def _leaf(name: str) -> str:
  return name.rpartition('.')[2]


def _float32(value: np.ndarray) -> np.ndarray:
  with np.errstate(over='ignore'):  # infinite then, which is refused
    return value.astype(np.float32)


def _rules(model: str) -> Mapping[str, Callable[..., str]]:
  constructor, _ = models.resolve(model)
  rules = getattr(inspect.getmodule(constructor), 'PYTORCH', None)
  if rules is None:
    known = registry.Files(models.__name__, defines='PYTORCH')
    raise UserError(
      f'how PyTorch names the layers of the model {model!r} is not known; '
      f'take one of {", ".join(known)}, or put a dict PYTORCH as they have '
      "beside one's own model"
    )
  return rules


def _places(
  names: Iterable[str], rules: Mapping[str, Callable[..., str]]
) -> dict[str, tuple[str, bool]]:
  """Each tensor's name -> what of ours has it, and whether that is a layer.

  A name that means something is taken as it is. Else all wrappers are left
  out, and then so many parts at the start, which all names share or of which
  each is known to hold a net, that what remains means something.
  """
  names = {name: _IN_PROJ.sub(r'\1.\2', name) for name in names}
  parts = {
    name: [part for part in own.split('.') if part not in _WRAPPERS]
    for name, own in names.items()
  }
  alike = (len(set(each)) == 1 for each in zip(*parts.values(), strict=False))
  shared = len(list(itertools.takewhile(bool, alike)))

  def place(name):
    own = parts[name]
    layer = names[name].rpartition('.')[0]
    for whole, end in ((names[name], len(own)), (layer, len(own) - 1)):
      shorter = (
        '.'.join(own[dropped:end])
        for dropped in range(end)
        if _HOLDERS.issuperset(own[shared:dropped])
      )
      for text in (whole, *shorter):
        if ours := _ours(text, rules):
          return ours, end < len(own)
    return '', True

  return {name: place(name) for name in names}


def _ours(layer: str, rules: Mapping[str, Callable[..., str]]) -> str:
  """Our name of a layer of theirs; empty where there is none."""
  for pattern, name in rules.items():
    if match := re.fullmatch(pattern, layer):
      return name(*map(_argument, match.groups()))
  return ''


def _argument(text: str) -> int | str:
  return int(text) if text.isdecimal() else text.replace('bn', 'norm')


def _read(path: Path) -> dict[str, np.ndarray]:
  """The tensors of a safetensors file by name, as they are called alone."""
  if not path.is_file():
    raise UserError(f'there is no file {path}')
  files.refuse_pointer(path)
  with path.open('rb') as file:
    start = file.read(9)  # the length of a header in JSON, and its brace
  if start[8:] != b'{':
    names = str(path), str(path.with_suffix('.safetensors'))
    lines = ' and '.join(
      f'`{line.format(*names, _NESTED)}`' for line in _CONVERT
    )
    raise UserError(
      f'{path} is not in the safetensors format; what torch.save wrote is a '
      'pickle, which can run any code as it is read, so convert it with these '
      f'lines, which run none of it, where PyTorch 2.6 or later is: {lines}'
    )
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except Exception as error:  # of many kinds
    raise UserError(
      f'{path} cannot be read ({error}); write it once more, in float32'
    ) from error
  tensors = {
    name: tensor
    for name, tensor in tensors.items()
    if _leaf(name) not in _UNUSED
  }
  if not tensors:
    raise UserError(
      f'{path} holds no weights; save the state dict of the net there, '
      'net.state_dict()'
    )
  for name, tensor in tensors.items():
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
      raise UserError(
        f'{path} holds {tensor.dtype} in {name}; keep the weights there as '
        'floating-point numbers'
      )
  return tensors
