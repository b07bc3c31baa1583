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
    running_mean, running_var    mean, var

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
_KINDS = {
  ('weight', 4): ('params', 'kernel', (2, 3, 1, 0)),
  ('weight', 2): ('params', 'kernel', (1, 0)),
  ('weight', 1): ('params', 'scale', (0,)),
  ('bias', 1): ('params', 'bias', (0,)),
  ('running_mean', 1): ('state', 'mean', (0,)),
  ('running_var', 1): ('state', 'var', (0,)),
}
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
  rules, wanted = _rules(model), by_path(like)
  misfit, found, placed = f'{path} does not fit the model {model!r}: ', {}, {}
  tensors = _read(path)
  for name, layer in _layers(tensors, rules).items():
    leaf, tensor = name.rpartition('.')[2], tensors[name]
    shown, ours = f'{name} {list(tensor.shape)}', _ours(layer, rules)
    if not ours:
      raise UserError(f'{misfit}it has no layer for {shown}; {_REMEDY}')
    if (leaf, tensor.ndim) not in _KINDS:
      raise UserError(
        f'{misfit}its layer {ours} has no place for {shown}; save the net with '
        'plain weights, biases and running statistics'
      )
    kind, last, axes = _KINDS[leaf, tensor.ndim]
    target, value = f'{kind}/{ours}/{last}', tensor.transpose(axes)
    expected = wanted[target].shape if target in wanted else None
    if value.shape != expected:
      has = f'has {list(expected)} there' if expected else 'has no such layer'
      raise UserError(
        f'{misfit}{shown} would be {target} {list(value.shape)}, and the model '
        f'{has}; {_REMEDY}, on data of its classes'
      )
    if target in found:
      raise UserError(
        f'{misfit}{placed[target]} and {shown} would both be {target}; keep '
        'the tensors of one net'
      )
    value = _float32(value)
    if not np.isfinite(value).all():
      raise UserError(f'{misfit}{shown} has values that are not finite')
    found[target], placed[target] = jnp.asarray(value), shown
  for target, leaf in wanted.items():
    if target not in found:
      raise UserError(
        f'{misfit}no tensor there gives {target} {list(leaf.shape)}; {_REMEDY}'
      )
  return jax.tree.unflatten(jax.tree.structure(like), map(found.get, wanted))


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


def _layers(
  names: Iterable[str], rules: Mapping[str, Callable[..., str]]
) -> dict[str, str]:
  """Each tensor's name -> that of its layer in the net alone.

  A name that means something is taken as it is. Else all wrappers are left
  out, and then so many parts at the start, which all names share or of which
  each is known to hold a net, that what remains means something.
  """
  whole = {name: name.rpartition('.')[0] for name in names}
  parts = {
    name: [part for part in layer.split('.') if part not in _WRAPPERS]
    for name, layer in whole.items()
  }
  alike = (len(set(each)) == 1 for each in zip(*parts.values(), strict=False))
  shared = len(list(itertools.takewhile(bool, alike)))

  def layer_of(name):
    if _ours(whole[name], rules):
      return whole[name]
    for dropped in range(len(parts[name])):
      held = parts[name][shared:dropped]
      layer = '.'.join(parts[name][dropped:])
      if _HOLDERS.issuperset(held) and _ours(layer, rules):
        return layer
    return whole[name]

  return {name: layer_of(name) for name in parts}


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
    if name.rpartition('.')[2] not in _UNUSED
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
