"""Teachers of which there are outputs and no net.

They have no weights here and nothing of them is in a training step: what they
give for an example is kept on disk and looked up, see
`jaxkd.run.cached_outputs`. In place of a net there is one that takes these
outputs and gives them back.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.errors import UserError
from jaxkd.types import Net


class External(Protocol):
  """What gives the outputs.

  Attributes:
    name: as the config has it.
    shapes: output -> its shape for one example, and its dtype.
    splits: of the data, of which there are outputs.
    checksum: SHA-256 of what they come from, as far as it is known.
    notes: sentences for the row.
  """

  name: str
  shapes: Mapping[str, jax.ShapeDtypeStruct]
  splits: frozenset[str]
  checksum: str
  notes: tuple[str, ...]

  def outputs(
    self, split: str, numbers: np.ndarray, inputs: Callable[[], Any]
  ) -> dict[str, np.ndarray]:
    """The outputs for some examples.

    Args:
      split: of the data.
      numbers: of the examples in it, int [B].
      inputs: gives what a view shows of them, [B, ...].

    Returns:
      float32 [B, ...] by output.
    """


def net(checksum: str) -> Net:
  """The net that is given the outputs, a dict of [B, ...], and gives them back.

  Its only variable is the checksum, by which cached outputs of others are told.
  """

  def init(key):
    del key
    state = {
      'checksum': jnp.asarray(np.frombuffer(bytes.fromhex(checksum), 'u1'))
    }
    return {'params': {}, 'state': state}

  def apply(variables, inputs, *, key=None, train=False):
    del key, train
    if not isinstance(inputs, Mapping):
      raise UserError('cached outputs are of the examples of the data only')
    return dict(inputs), variables['state']

  return Net(init, apply)


def check_logits(
  shape: tuple[int, ...], classes: int, each: tuple[int, ...], at: str
) -> None:
  """Refuses logits of one example that are not of the data's classes.

  Args:
    shape: of the logits of one example.
    classes: how many there should be.
    each: the shape of the labels of one example; () where it has one class.
    at: the config entry, for errors.

  Raises:
    UserError: other classes, or logits of more than one place.
  """
  if shape[-1:] != (classes,) or (not each and len(shape) != 1):
    raise UserError(
      f'{at}: the logits of an example are {list(shape)}, and there are '
      f'{classes} classes; give a logit for each, in their order, or set '
      f'{at.removesuffix("restore")}classes if it tells others apart'
    )


def checked(
  values: np.ndarray, numbers: np.ndarray, name: str, at: str
) -> np.ndarray:
  """Outputs as float32; refuses those that are not numbers.

  Minus infinity is the logit of a class that is ruled out.

  Args:
    values: [B, ...].
    numbers: of their examples, int [B].
    name: of the output.
    at: the config entry, and what they are read from, for errors.

  Raises:
    UserError: values of another kind, or NaN or infinity; it names the first
      example.
  """
  if not jnp.issubdtype(values.dtype, jnp.floating):
    raise UserError(
      f'{at}: the output {name} is {values.dtype}; give floating-point numbers'
    )
  with np.errstate(over='ignore'):  # infinite then, which is refused
    values = np.asarray(values, np.float32)
  fine = np.isfinite(values)
  if name == 'logits':
    fine |= np.isneginf(values) & np.isfinite(values).any(-1, keepdims=True)
  lost = ~fine.reshape(len(fine), -1).all(1)
  if lost.any():
    raise UserError(
      f'{at}: the output {name} of example {numbers[lost.argmax()]} is not a '
      f'number or is infinite ({lost.sum():,} such examples here); repair it'
    )
  return values
