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

Every tensor must find its place and every variable its values, all but
``num_batches_tracked``, which has no part in what a net computes.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from jaxkd import files, models
from jaxkd.errors import UserError
from jaxkd.paths import by_path

PREFIX = 'pytorch:'  # of the path of such a file, in a config

_KINDS = {
  ('weight', 4): ('params', 'kernel', (2, 3, 1, 0)),
  ('weight', 2): ('params', 'kernel', (1, 0)),
  ('weight', 1): ('params', 'scale', (0,)),
  ('bias', 1): ('params', 'bias', (0,)),
  ('running_mean', 1): ('state', 'mean', (0,)),
  ('running_var', 1): ('state', 'var', (0,)),
}
_UNUSED = 'num_batches_tracked'
_CONVERT = (
  'import torch, safetensors.torch as st; s = torch.load({0!r}, "cpu")',
  'st.save_file(s.get("model", s.get("state_dict", s)), {1!r})',
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
  found, misfit = {}, f'{path} does not fit the model {model!r}: '
  for name, tensor in _read(path).items():
    layer, _, leaf = name.rpartition('.')
    if leaf == _UNUSED:
      continue
    shown = f'{name} {list(tensor.shape)}'
    ours = _ours(layer, rules)
    if not ours or (leaf, tensor.ndim) not in _KINDS:
      raise UserError(
        f'{misfit}there is no place for {shown}; it takes the weights, biases '
        f'and running statistics of the layers {", ".join(rules)}'
      )
    kind, last, axes = _KINDS[leaf, tensor.ndim]
    target, value = f'{kind}/{ours}/{last}', tensor.transpose(axes)
    expected = wanted[target].shape if target in wanted else None
    if value.shape != expected:
      has = f'has {list(expected)} there' if expected else 'has no such layer'
      raise UserError(
        f'{misfit}{shown} would be {target} {list(value.shape)}, and the model '
        f'{has}; name the model that the file is of, on data of its classes'
      )
    if target in found:
      raise UserError(f'{misfit}{shown} and another tensor are both {target}')
    if not np.isfinite(value).all():
      raise UserError(f'{misfit}{shown} has values that are not finite')
    found[target] = jnp.asarray(value, jnp.float32)
  for target, leaf in wanted.items():
    if target not in found:
      raise UserError(
        f'{misfit}no tensor there gives {target} {list(leaf.shape)}; name the '
        'model that the file is of'
      )
  return jax.tree.unflatten(jax.tree.structure(like), map(found.get, wanted))


def _rules(model: str) -> Mapping[str, Callable[..., str]]:
  constructor, _ = models.resolve(model)
  rules = getattr(inspect.getmodule(constructor), 'PYTORCH', None)
  if rules is None:
    known = [f for f, m in models.families().items() if hasattr(m, 'PYTORCH')]
    raise UserError(
      f'how PyTorch names the layers of the model {model!r} is not known; '
      f'take one of {", ".join(known)}, or put a dict PYTORCH as they have '
      "beside one's own model"
    )
  return rules


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
    first, second = (line.format(*names) for line in _CONVERT)
    raise UserError(
      f'{path} is not in the safetensors format; what torch.save wrote is a '
      'pickle, which can run any code as it is read, so convert it with these '
      f'two lines where PyTorch is: `{first}` and `{second}`'
    )
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except Exception as error:  # of many kinds
    raise UserError(
      f'{path} cannot be read ({error}); write it once more, in float32'
    ) from error
  for name, tensor in tensors.items():
    number = jnp.issubdtype(tensor.dtype, jnp.floating)
    if not number and not name.endswith(_UNUSED):
      raise UserError(
        f'{path} holds {tensor.dtype} in {name}; keep the weights there as '
        'floating-point numbers'
      )
  # What torch.nn.DataParallel and DistributedDataParallel put before names.
  prefix = 'module.'
  if tensors and all(name.startswith(prefix) for name in tensors):
    return {name.removeprefix(prefix): x for name, x in tensors.items()}
  return tensors
