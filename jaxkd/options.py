"""Options that a config gives to a function: their names and their types.

A whole number is also a number, a list also a tuple, and True is no number.
Arrays and classes of other packages are for the function itself to judge.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter
from numbers import Integral, Real
from typing import Any

import jax
import numpy as np

from jaxkd.errors import UserError, unknown

_WORDS = {  # one of it, and many
  int: ('a whole number', 'whole numbers'),
  float: ('a number', 'numbers'),
  bool: ('True or False', 'values that are True or False'),
  str: ('a text', 'texts'),
  types.NoneType: ('None', 'None'),
}
_LISTS = (tuple, list, Sequence)
_DICTS = (dict, Mapping)


def parameters_of(function: Callable) -> dict[str, Parameter]:
  """What a function or a class is called with, its annotations evaluated.

  Annotations that name what is not there stay as they are written.
  """
  # The signature of an NNX class is hidden by its metaclass.
  is_class = inspect.isclass(function)
  called = function.__init__ if is_class else function
  try:
    signature = inspect.signature(called, eval_str=True)
  except NameError:
    signature = inspect.signature(called)
  found = dict(signature.parameters)
  if is_class:  # without self, whatever it is called
    del found[next(iter(found))]
  return found


def check(
  given: Mapping[str, Any],
  takes: Mapping[str, Parameter],
  *,
  name: str,
  at: str,
  filled: Collection[str] = (),
  positive: Collection[str] = (),
) -> None:
  """Refuses options that a function does not take, or not of such a type.

  Args:
    given: the options.
    takes: the parameters that they may set; see `parameters_of`. One of
      ``**kwargs`` among them lets options have any name.
    name: what the function is called, for errors.
    at: the config entry that holds the options, e.g. ``'distill.soft.kw'``.
    filled: parameters without a default that are set elsewhere.
    positive: parameters whose numbers must be above 0.

  Raises:
    UserError: an option that is not there, is missing, or has another type.
  """
  named = {
    key: parameter
    for key, parameter in takes.items()
    if parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
  }
  is_open = any(p.kind is Parameter.VAR_KEYWORD for p in takes.values())
  for option, value in given.items():
    if option in named:
      annotation = named[option].annotation
      check_type(
        value, annotation, at=f'{at}.{option}', positive=option in positive
      )
    elif not is_open:
      raise unknown(f'option of {name}', option, named, at)
  for option, parameter in named.items():
    missing = parameter.default is Parameter.empty and option not in filled
    if missing and option not in given:
      raise UserError(f'{name} needs the option {option!r}; set it', entry=at)


def check_type(
  value: Any, annotation: Any, *, at: str, positive: bool = False
) -> None:
  """Refuses a value that is not of the type that an annotation asks for.

  Args:
    value: of an option.
    annotation: of its parameter.
    at: the config entry.
    positive: whether its numbers must be above 0.

  Raises:
    UserError: it is of another type, or a number that is not finite.
  """
  if wrong := fault(value, annotation, positive=positive):
    raise UserError(wrong, entry=at)


def fault(value: Any, annotation: Any, *, positive: bool = False) -> str:
  """What is wrong with the type of a value; empty if nothing is."""
  if _fits(value, annotation, positive):
    return ''
  least = ' above 0' if positive else ''
  one = (value,)  # what is meant where one value is given for a list
  like = f', as in {one!r}' if _fits(one, annotation, positive) else ''
  return f'{value!r} should be {_said(annotation)}{least}{like}'


def _fits(value: Any, annotation: Any, positive: bool) -> bool:
  if isinstance(annotation, types.UnionType) or (
    typing.get_origin(annotation) is typing.Union
  ):
    kinds = typing.get_args(annotation)
    return any(_fits(value, kind, positive) for kind in kinds)
  kind = typing.get_origin(annotation) or annotation
  if kind is typing.Literal:
    return value in typing.get_args(annotation)
  if kind in (int, float):
    return _is_number(value, kind) and (not positive or bool(value > 0))
  if kind is bool:
    return isinstance(value, bool | np.bool_)
  if kind is str:
    return isinstance(value, str)
  if kind in (None, types.NoneType):
    return value is None
  if kind in _DICTS:
    return isinstance(value, Mapping)
  if kind in _LISTS:
    return isinstance(value, Sequence | np.ndarray) and (
      not isinstance(value, str | bytes)
      and _each_fits(value, typing.get_args(annotation), positive)
    )
  if kind in (jax.Array, np.ndarray):
    return isinstance(value, jax.Array | np.ndarray)
  return True


def _is_number(value: Any, kind: type) -> bool:
  if isinstance(value, jax.Array):  # one that members have each their own of
    return value.ndim == 0 and kind is float
  if isinstance(value, bool | np.bool_):
    return False
  if not isinstance(value, Integral if kind is int else Real):
    return False
  return math.isfinite(value)


def _each_fits(values: Sequence, kinds: tuple, positive: bool) -> bool:
  if not kinds:
    return True
  if len(kinds) == 1 or kinds[1:] == (...,):
    kinds = (kinds[0],) * len(values)
  return len(values) == len(kinds) and all(
    _fits(value, kind, positive)
    for value, kind in zip(values, kinds, strict=True)
  )


def _said(annotation: Any, many: bool = False) -> str:
  """A type in words."""
  if isinstance(annotation, types.UnionType) or (
    typing.get_origin(annotation) is typing.Union
  ):
    kinds = typing.get_args(annotation)
    if float in kinds:  # it has the whole ones
      kinds = [kind for kind in kinds if kind is not int]
    return ' or '.join(_said(kind, many) for kind in kinds)
  kind, inner = typing.get_origin(annotation) or annotation, ()
  if kind is typing.Literal:
    return ' or '.join(map(repr, typing.get_args(annotation)))
  if kind in _DICTS:
    return 'dicts' if many else 'a dict'
  if kind in _LISTS:
    inner = typing.get_args(annotation)
    count = ''
    if len(inner) > 1 and inner[1:] != (...,):
      count = f'{len(inner)} '
    of = f' of {count}{_said(inner[0], many=True)}' if inner else ''
    return f'lists{of}' if many else f'a list{of}'
  if kind in (jax.Array, np.ndarray):
    return 'arrays' if many else 'an array'
  if kind is None:
    kind = types.NoneType
  if kind in _WORDS:
    return _WORDS[kind][many]
  return getattr(kind, '__name__', str(kind))
