"""What the arguments of a loss are, read from its signature.

The rules are the same for losses, conditions, weights of examples and weights
of teachers; docs/terms.md has them as a table.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jaxkd import lookup, losses
from jaxkd.data.mixing import PROBABILITIES
from jaxkd.errors import UserError, unknown
from jaxkd.types import Context

PLACES = ('batch', 'student', 'teacher')


class Arguments:
  """Where each argument of a function comes from.

  `key`, when first, is drawn; the arguments up to the one whose name begins
  with `teacher` are the student's, that one is the teacher's, and the rest
  are fields of the batch by name. Without a `teacher` only the first is the
  student's. A loss that takes `teachers` gets all of them at once, a tuple.
  Arguments for which `inputs` names a place come from there instead, and are
  in none of the attributes but `names`.

  Attributes:
    names: of the positional arguments, in order.
    draws: whether the function takes a random key.
    student: names of the arguments that are the student's.
    teacher: whether it looks at a teacher.
    together: whether it looks at all teachers at once.
    fields: names of the batch's fields that it wants.
    coupled: whether the loss of an example depends on the others of the batch;
      such functions take a mask of examples, `where`.
    masked: whether it combines the positions of an example and can leave some
      out; such functions take a mask of positions by keyword, `valid`.
  """

  def __init__(self, function: Callable, inputs: Collection[str] = ()):
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    self.draws = names[:1] == ['key'] and 'key' not in inputs
    names = names[self.draws :]
    at = [i for i, name in enumerate(names) if name.startswith('teacher')]
    # The prediction itself comes first, whatever it is called.
    at = [i for i in at if i > 0]
    own = lambda names: [name for name in names if name not in inputs]  # noqa: E731
    taught = own(names[at[0] : at[0] + 1] if at else [])
    self.student = own(names[: at[0]] if at else names[:1])
    self.teacher = bool(taught)
    self.together = taught == ['teachers']
    self.fields = own(names[at[0] + 1 if at else 1 :])
    self.names = ['key'] * self.draws + own(names)
    self.coupled = any(p.name == 'where' for p in parameters)
    self.masked = any(
      p.name == 'valid' and p.kind is p.KEYWORD_ONLY for p in parameters
    )


def looks_at_context(function: Callable) -> bool:
  """Whether a function takes the whole context, as its argument `context`."""
  return first_argument(function) == 'context'


def first_argument(function: Callable) -> str:
  """The name of a function's first argument; empty if it has none."""
  return next(iter(inspect.signature(function).parameters), '')


def name_of(function: Any) -> str:
  """The name of a function, for error messages; a name is returned as it is."""
  if isinstance(function, str):
    return function
  return getattr(function, '__name__', str(function))


def find_loss(name: str | Callable, *, at: str) -> Callable:
  """A loss of `jaxkd.losses`, or a user's own, by name; or the loss itself."""
  return lookup.find(name, [losses], kind='loss', at=at)


def places(
  function: Callable, inputs: Mapping[str, str], entry: str
) -> dict[str, tuple[str, str]]:
  """For each argument in `inputs`, one of `PLACES` and the name there.

  Args:
    function: a loss.
    inputs: argument -> 'batch.FIELD', 'student.OUTPUT' or 'teacher.OUTPUT'.
    entry: the config entry of the term, for error messages.

  Raises:
    UserError: an argument that the function does not have, or no such place.
  """
  parameters = inspect.signature(function).parameters.values()
  named = [
    p.name
    for p in parameters
    if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
  ]
  found = {}
  for argument, text in inputs.items():
    if argument not in named:
      kind = f'argument of {name_of(function)}'
      raise unknown(kind, argument, named, f'{entry}.inputs')
    place, _, name = str(text).partition('.')
    if place not in PLACES or not name:
      raise UserError(
        f'{entry}.inputs.{argument}: write batch.FIELD, student.OUTPUT or '
        f'teacher.OUTPUT, not {text!r}'
      )
    found[argument] = place, name
  return found


def field_of(
  context: Context, field: str, who: str, *, mixtures: bool = False
) -> Any:
  """A field of the batch, by name; `inputs` is what the student sees.

  Args:
    context: has the batch.
    field: the name.
    who: the function that takes it, for error messages.
    mixtures: whether it takes class probabilities for `labels`, as mixtures of
      two examples have.

  Raises:
    UserError: there is no such field, or it holds class probabilities.
  """
  batch = context.batch
  if field == 'inputs':
    return context.inputs
  if field == 'labels' and PROBABILITIES in batch:
    if mixtures:
      return batch[PROBABILITIES]
    raise UserError(
      f'{who} takes one class for each example, and data.augment mixes two '
      "examples; leave that empty ('none' in teachers.NAME.data.augment), or "
      'choose what takes probabilities, as losses.cross_entropy does'
    )
  if field not in batch:
    raise unknown('field of the batch', field, batch)
  return batch[field]
