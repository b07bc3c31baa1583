"""A teacher that is a function on the host, from arrays of NumPy to outputs.

So any framework teaches, in this process or another one: the function is called
while outputs are written to disk, and never in a training step.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxkd import files, options
from jaxkd.data import array_files
from jaxkd.errors import UserError, blamed, within
from jaxkd.models import external as names
from jaxkd.tasks import mistaken
from jaxkd.teachers import external

_TOLERANCE = 1e-2  # of the largest output, for sums in half precision


class HostFunction:
  """See `jaxkd.teachers.external.External`.

  The function is tried at once, on a few examples.

  Args:
    restore: ``host:package.module:function``.
    kw: options of the function.
    inputs: what it is shown of four examples or more, [B, ...].
    splits: of the data.
    classes: of the logits.
    each: the shape of the labels of one example.
    at: the config entry of the group, as ``teachers.main``.
    kind: what logits are, see `jaxkd.tasks`.

  Raises:
    UserError: the function fails, gives something else than outputs, or its
      outputs depend on the batch.
  """

  def __init__(
    self,
    restore: str,
    kw: Mapping[str, Any],
    inputs: Any,
    *,
    splits: frozenset[str],
    classes: int,
    each: tuple[int, ...],
    at: str,
    kind: str = 'softmax',
  ):
    self.name, self._at, self.splits = restore, f'{at}.restore', splits
    function = names.function(restore, at=self._at)
    taken = dict(list(options.parameters_of(function).items())[1:])
    options.check(kw, taken, name=restore, at=f'{at}.kw')
    self._function = functools.partial(function, **kw)
    self.shapes: dict[str, jax.ShapeDtypeStruct] = {}
    size = len(jax.tree.leaves(inputs)[0])
    whole = self._called(inputs, np.arange(size))
    self.shapes = {
      name: jax.ShapeDtypeStruct(x.shape[1:], np.float32)
      for name, x in whole.items()
    }
    if 'logits' in self.shapes:
      external.check_logits(
        self.shapes['logits'].shape, classes, each, self._at
      )
      sign = mistaken.sign(kind)
      if sign and sign.holds(sign.sums(whole['logits']), size):
        raise UserError(
          f'{self._at}: the logits that {restore} gives {sign.said}'
        )
    self._check_alone(inputs, whole)
    self.checksum = _checksum(restore, kw, self._at)
    self.notes = ()

  def outputs(
    self, split: str, numbers: np.ndarray, inputs: Callable[[], Any]
  ) -> dict[str, np.ndarray]:
    """See `External`."""
    del split
    return self._called(inputs(), numbers)

  def _called(self, inputs: Any, numbers: np.ndarray) -> dict[str, np.ndarray]:
    with within(f'{self._at}: '), blamed(self._at):
      found = self._function(inputs)
      if not isinstance(found, Mapping):
        found = {'logits': found}
      found = {name: np.asarray(x) for name, x in found.items()}
    if not found:
      raise UserError(
        f'{self._at}: {self.name} gives no outputs; return logits, or a dict '
        'of arrays by name'
      )
    for name, x in found.items():
      if x.shape[:1] != numbers.shape:
        raise UserError(
          f'{self._at}: {self.name} gives {name} of shape {list(x.shape)} for '
          f'{len(numbers)} examples; give a row for each'
        )
    shapes = {name: x.shape[1:] for name, x in found.items()}
    known = {name: x.shape for name, x in self.shapes.items()}
    if known and shapes != known:
      raise UserError(
        f'{self._at}: {self.name} gives outputs of the shapes {shapes} for an '
        f'example, and gave {known} for others; give the same for all'
      )
    return {
      name: external.checked(x, numbers, name, self._at)
      for name, x in found.items()
    }

  def _check_alone(self, inputs: Any, whole: dict[str, np.ndarray]) -> None:
    """Refuses outputs that depend on the other examples, or that are drawn."""
    part = jax.tree.map(lambda x: x[:2], inputs)
    for name, x in self._called(part, np.arange(2)).items():
      like = whole[name]
      most = np.abs(like[np.isfinite(like)]).max(initial=0)
      if not np.allclose(x, like[:2], _TOLERANCE, _TOLERANCE * most):
        raise UserError(
          f'{self._at}: what {self.name} gives for an example depends on the '
          'other examples of its batch, or on a draw; call the net in '
          'evaluation mode, as by net.eval() in PyTorch'
        )


def _checksum(restore: str, kw: Mapping[str, Any], at: str) -> str:
  """SHA-256 of the name of a function, and of the files that options name.

  Its code is among what cached outputs are compared by anyway.
  """
  texts = [x for x in jax.tree.leaves(dict(kw)) if isinstance(x, str)]
  named = (Path(files.expanded(x)) for x in texts)
  paths = [path for path in named if os.path.isfile(path)]
  found = [restore, *(array_files.fingerprint(path, at=at) for path in paths)]
  return hashlib.sha256(repr(found).encode()).hexdigest()
