"""Reads texts of calls, such as ``'pad_and_crop(4)|flip|noise(std=0.1)'``."""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from jaxkd import options
from jaxkd.errors import UserError


def split(text: str, *, kind: str, like: str, at: str) -> Iterator[tuple]:
  """The name and the literal arguments of each call: (name, args, kwargs).

  Args:
    text: calls separated by ``|``; empty for none.
    kind: what the text is, for errors, e.g. 'view'.
    like: an example of one.
    at: the config entry.

  Raises:
    UserError: something else stands there.
  """
  # A | inside brackets belongs to an argument.
  steps = re.split(r'\|(?![^(]*\))', text) if text.strip() else []
  for step in steps:
    match = re.fullmatch(r'([\w.:]+)\s*(?:\((.*)\))?', step.strip(), re.DOTALL)
    try:
      name, arguments = match.groups(default='')
      call = ast.parse(f'f({arguments})', mode='eval').body
      if not isinstance(call.func, ast.Name):
        raise ValueError('more than one call')
      args = [ast.literal_eval(arg) for arg in call.args]
      kwargs = {kw.arg: ast.literal_eval(kw.value) for kw in call.keywords}
    except (AttributeError, SyntaxError, TypeError, ValueError) as error:
      raise UserError(
        f'{at}: cannot read {step.strip()!r} in the {kind} {text!r}; write ops '
        f'as in {like!r}, with plain numbers as arguments'
      ) from error
    yield name, args, kwargs


def bind(
  function: Callable,
  name: str,
  args: list,
  kwargs: dict,
  *,
  kind: str,
  at: str,
  skip: int = 0,
) -> dict[str, Any]:
  """All arguments of a function, defaults too, of the annotated types.

  Args:
    function: what is called.
    name: what it is called in the text.
    args: from `split`.
    kwargs: from `split`.
    kind: what the text is, for errors.
    at: the config entry.
    skip: how many first parameters are not for the text to give.

  Raises:
    UserError: arguments that it does not take.
  """
  signature = inspect.signature(function, eval_str=True)
  parameters = dict([*signature.parameters.items()][skip:])
  takes = ', '.join(map(str, parameters.values())) or 'no arguments'
  said = f'{at}: the {kind} {name} takes {takes}'
  try:
    bound = inspect.Signature(parameters.values()).bind(*args, **kwargs)
  except TypeError as error:
    raise UserError(f'{said}: {error}') from error
  bound.apply_defaults()
  arguments = dict(bound.arguments)
  for key, value in arguments.items():
    annotation = parameters[key].annotation
    if wrong := options.fault(value, annotation):
      raise UserError(f'{said}; for {key}, {wrong}')
    if type(value) is int and float in (annotation, *get_args(annotation)):
      arguments[key] = float(value)
  return arguments


def numbered(name: str, earlier: Iterable[str]) -> str:
  """A name to draw by: ``flip``, and ``flip#1`` where one came before.

  Args:
    name: of the function.
    earlier: what the calls before it are called.
  """
  count = [other.partition('#')[0] for other in earlier].count(name)
  return f'{name}#{count}' if count else name
