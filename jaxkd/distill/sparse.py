"""Terms whose teacher has sparse logits: its k largest, and the others' mass.

They come from a cache, or from a batch of one's own, or a term makes them of a
teacher that runs (`top`). Both sides are then taken over k + 1 classes before
the loss sees them; see `jaxkd.logits.sparse`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array

from jaxkd import losses
from jaxkd.distill.arguments import name_of
from jaxkd.errors import UserError
from jaxkd.logits import SparseLogits, sparse

_ALONE = tuple(tail for tail in sparse.TAILS if tail not in sparse.OF_ANY)


class Tail(NamedTuple):
  """How a term compares its student with sparse logits.

  Attributes:
    top: how many classes to take of a teacher that gives all; 0 for all.
    name: one of `sparse.TAILS`; 'bucket' if empty.
  """

  top: int = 0
  name: str = ''


DEFAULT = Tail()


def check(tail: Tail, loss: Callable, *, entry: str) -> None:
  """Refuses a tail that is none, or that the loss cannot have.

  Args:
    tail: of the term.
    loss: of the term.
    entry: its config entry, for error messages.

  Raises:
    UserError: naming the entry.
  """
  top, name = tail
  if isinstance(top, bool) or not isinstance(top, int) or top < 0:
    raise UserError(
      f'{entry}.top: {top!r} should be how many of the largest probabilities '
      'of the teacher to compare, or 0 for all'
    )
  if name and name not in sparse.TAILS:
    raise UserError(
      f'{entry}.tail: {name!r} should be one of {", ".join(sparse.TAILS)}, or '
      'empty for bucket'
    )
  if (top or name) and not _takes(loss, name):
    raise UserError(_refused(loss, entry, f'set {entry}.top to 0, and no tail'))
  if name in _ALONE and loss is not losses.kl:
    raise UserError(
      f'{entry}.tail: {name} is of the loss kl alone, not of {name_of(loss)}; '
      f'choose {" or ".join(sparse.OF_ANY)}'
    )


def compared(
  loss: Callable[..., Array],
  student: tuple,
  teacher: tuple,
  tail: Tail,
  *,
  temperature: float | Array,
  teachers: tuple[str, ...],
  entry: str,
) -> tuple[Callable[..., Array], tuple, tuple]:
  """The loss and both its sides, over the classes that are compared.

  Args:
    loss: of the term.
    student: the arguments of the student's side.
    teacher: those of the teacher's.
    tail: of the term.
    temperature: at which the loss looks at logits.
    teachers: the groups of the term, for error messages.
    entry: the config entry, for error messages.

  Returns:
    All three as they are, where nothing is sparse.

  Raises:
    UserError: the loss would need the teacher's whole logits, or those of
      another temperature; or there is a tail and nothing is sparse.
  """
  found = any(map(is_sparse, (*student, *teacher)))
  if not found and not tail.top:
    if tail.name:
      raise UserError(
        f'{entry}.tail: all logits are compared, so {tail.name} would change '
        f'nothing; set {entry}.top, or cache.top of the teacher, or leave the '
        'tail empty'
      )
    return loss, student, teacher
  cache = ' and '.join(f'teachers.{name}.cache' for name in teachers)
  if loss is losses.top_k_kl and found and not tail.top:
    return loss, student, teacher  # it takes them as they are
  if found and not _takes(loss, tail.name):
    raise UserError(_refused(loss, entry, f'keep all logits ({cache}.top=0)'))
  if len(student) != 1 or len(teacher) != 1 or is_sparse(student[0]):
    raise UserError(
      f'{entry}.at: sparse logits are compared with one output of the student; '
      "name 'logits' of both"
    )
  (z,), (v,), name = student, teacher, tail.name or sparse.TAILS[0]
  if tail.top and found:
    raise UserError(
      f'{entry}.top: what {" and ".join(teachers)} gives is the {v.k} largest '
      f'already ({cache}.top); leave it 0'
    )
  if z.shape != v.shape:
    raise UserError(
      f'{entry}: {list(z.shape[-1:])} of the student and {list(v.shape[-1:])} '
      f'of {" and ".join(teachers)} are of different classes or positions; '
      'give both the same'
    )
  if tail.top:
    classes = v.shape[-1]
    if tail.top > classes:
      raise UserError(
        f'{entry}.top: there are {classes} classes and not {tail.top}; use '
        f'{classes} or fewer, or 0 for all'
      )
    v = SparseLogits.of(v, tail.top, temperature=temperature)
  if not v.fits(temperature, name):
    traced = isinstance(temperature, jax.core.Tracer)
    wanted = 'several numbers' if traced else f'{float(temperature):g}'
    remedy = 'give one' if traced else f'set {cache}.temperature={wanted}'
    raise UserError(
      f'{entry}.kw.temperature: it is {wanted}, and the mass of the classes '
      f'that are not kept is known at {v.temperature:g} alone; {remedy}, or '
      f"{entry}.tail='renormalize'"
    )
  if name in _ALONE:
    return functools.partial(losses.top_k_kl, tail=name), student, (v,)
  z, v = sparse.both(z, v, temperature=temperature, tail=name)
  return loss, (z,), (v,)


def is_sparse(x: Any) -> bool:
  """Whether it is `SparseLogits`, of arrays or of shapes."""
  return isinstance(x, SparseLogits)


def refuse(outputs: Any, *, entry: str, by: str) -> None:
  """Refuses sparse logits for what takes whole arrays alone.

  Args:
    outputs: of one or several nets, a tree.
    entry: the config entry at fault.
    by: what would take them, e.g. 'an adapter'.

  Raises:
    UserError: some are sparse.
  """
  if any(map(is_sparse, jax.tree.leaves(outputs, is_leaf=is_sparse))):
    raise UserError(
      f'{entry}: {by} takes all logits, and of the teacher only the largest '
      'are cached; set teachers.NAME.cache.top to 0'
    )


def _takes(loss: Callable, tail: str) -> bool:
  """Whether a loss looks at softmaxes alone, or is said to by its tail."""
  ours = getattr(losses, name_of(loss), None) is loss
  return loss in losses.OF_SPARSE or (not ours and bool(tail))


def _refused(loss: Callable, entry: str, otherwise: str) -> str:
  known = ', '.join(map(name_of, losses.OF_SPARSE))
  if getattr(losses, name_of(loss), None) is not loss:
    return (
      f'{entry}.tail: {name_of(loss)} is given the largest probabilities of '
      "the teacher alone; write 'bucket' if it looks at nothing but softmaxes "
      f'over the classes, or {otherwise}'
    )
  return (
    f'{entry}.loss: {name_of(loss)} looks at more than the largest '
    f'probabilities of the teacher; choose one of {known}, or {otherwise}'
  )
