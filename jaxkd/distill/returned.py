"""Checks of what the loss of a term is given and returns, while it is traced.

Shapes and dtypes are known when a step is compiled, so that these checks cost
nothing in the steps themselves.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.distill import masks
from jaxkd.distill.location import Sides
from jaxkd.errors import UserError
from jaxkd.logits import factored


class Checks(NamedTuple):
  """The checks of one term.

  Attributes:
    entry: its config entry, for error messages.
    loss: the name of its loss.
    both: what the loss compares.
    mask: what counts, as `masks.find` takes it.
    takes_mask: whether the loss itself is given the mask.
    named: whether arguments of the loss come from `inputs`.
  """

  entry: str
  loss: str
  both: Sides
  mask: masks.Name
  takes_mask: bool
  named: bool

  def result(
    self, result: Array, counts: Array | None, size: int, layers: Any
  ) -> None:
    """Refuses a value that is not a loss, or that the mask does not fit.

    Args:
      result: what the loss returned.
      counts: the mask, [B] or [B, positions]; None where everything counts.
      size: B, how many examples the batch has.
      layers: the student's outputs that the loss was given.
    """
    if not jnp.issubdtype(result.dtype, jnp.floating):
      raise UserError(
        f'{self.entry}: the loss {self.loss} returns {result.dtype}, which has '
        'no gradient; return floats'
      )
    shape = list(result.shape)
    if shape and shape[0] != size:
      raise UserError(
        f'{self.entry}: the loss {self.loss} returns the shape {shape} for a '
        f'batch of {size}; return one value per example, [{size}]'
      )
    if counts is None or counts.ndim == 1 or result.shape == counts.shape:
      return
    if len(shape) > 1:
      raise UserError(
        f'{self.entry}.mask: {self.mask!r} is {list(counts.shape)} and the '
        f'loss {shape}; they must be equal'
      )
    self.positions(counts, layers)
    if not self.takes_mask:
      raise UserError(
        f'{self.entry}.mask: the loss {self.loss} puts the positions of an '
        'example together and cannot leave out those that do not count in '
        f'{self.mask!r}; choose a loss that takes `valid`, or write '
        "'all' to take everything"
      )
    if jnp.issubdtype(counts.dtype, jnp.floating):
      raise UserError(
        f'{self.entry}.mask: {self.mask!r} is {counts.dtype}, and the loss '
        f'{self.loss}, which puts positions together, takes or leaves each; '
        'make it a bool'
      )

  def packed(self, result: Array, inputs: Any) -> None:
    """Refuses one value for a row that holds several texts.

    It would depend on which texts were packed together, and weigh rows and not
    tokens.

    Args:
      result: what the loss returned.
      inputs: what the net sees; packed rows have `masks.SEGMENTS`.
    """
    if result.ndim < 2 and masks.SEGMENTS in (
      inputs if isinstance(inputs, Mapping) else ()
    ):
      raise UserError(
        f'{self.entry}.loss: {self.loss} gives one value for a row and rows '
        'are packed with several texts, so it would depend on the packing; '
        "choose a loss of single tokens with mask='valid', or data with one "
        'text in a row'
      )

  def positions(self, counts: Array | None, layers: Any) -> None:
    """Refuses a mask of positions where the student's outputs have none."""
    if counts is None or counts.ndim == 1:
      return
    shapes = [x.shape[: counts.ndim] for x in factored.leaves(layers)]
    if counts.shape not in shapes:
      raise UserError(
        f'{self.entry}.mask: {self.mask!r} is {list(counts.shape)}, and '
        f'{self.both.at[0]!r} of the student has no such positions; leave it '
        'empty'
      )

  def mismatch(
    self,
    error: Exception,
    student: tuple,
    teacher: tuple,
    value: Callable[[tuple], Array],
  ) -> str:
    """What an error of the loss means to the user.

    Args:
      error: what the loss raised.
      student: the arrays of the student's side.
      teacher: those of the teacher's side; empty for a loss without.
      value: the loss, of other arrays in place of the student's.
    """
    entry, at, loss = self.entry, self.both.at, self.loss
    if not teacher or self.named or _shapes(student) == _shapes(teacher):
      return f'{entry}: the loss {loss}: {error}'
    sentence = (
      f'{entry}: {at[0]!r} of the student is {_shapes(student)} and '
      f'{at[1]!r} of teacher {" and ".join(self.both.teachers)} is '
      f'{_shapes(teacher)}, which the loss {loss} cannot compare'
    )
    if 'logits' in at and _shapes(student, 1) == _shapes(teacher, 1):
      return f'{sentence}; choose outputs of one size'
    if 'logits' in at:
      todo = 'give both the same number of classes'
      if all(x.ndim == 3 for x in jax.tree.leaves((student, teacher))):
        todo += (
          ', or, of vocabularies that differ, choose universal_logit_distance '
          'or let the student learn texts that the teacher has written'
        )
      return f'{sentence}; {todo}'
    if self.both.adapted[0]:
      return f'{sentence}: {error}'
    try:
      value(teacher)  # which 'linear' would bring the student to
    except Exception:
      return f'{sentence} ({error}); choose other layers'
    return f"{sentence}; set {entry}.adapter='linear' or choose other layers"


def _shapes(tree: Any, last: int = 0) -> str:
  """The shapes of arrays, of all axes or so many of the last ones."""
  leaves = [f'{x.dtype}{list(x.shape[-last:])}' for x in factored.leaves(tree)]
  return ', '.join(leaves)
