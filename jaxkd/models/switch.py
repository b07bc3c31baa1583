"""How a module is called: with its inputs, and perhaps a train switch.

The train switch is an argument of the call that says whether the module trains,
under any of several usual names. Every further argument must have a default,
since it is not given.
"""

import inspect
import typing
from collections.abc import Callable
from typing import Any

from jaxkd.errors import UserError

ON = ('train', 'training', 'is_training', 'is_train', 'enable_dropout')
OFF = (
  'deterministic', 'use_running_average', 'inference', 'eval', 'eval_mode',
  'is_eval',
)  # fmt: skip

Arguments = tuple[tuple, dict[str, Any]]  # positional ones, and those by name


def flags(train: bool) -> dict[str, bool]:
  """The value of the train switch under each of its names."""
  return dict.fromkeys(ON, train) | dict.fromkeys(OFF, not train)


def caller(kind: type, *, draws: str) -> Callable[[Any, bool], Arguments]:
  """A function that gives the arguments of a module's call.

  Args:
    kind: its class.
    draws: how a module of its kind draws random numbers, for an error.

  Returns:
    ``(inputs, train) -> (args, kwargs)``.

  Raises:
    UserError: the call takes no inputs, or has another required argument.
  """
  signature = inspect.signature(kind.__call__)
  own = list(signature.parameters.values())
  if own and own[0].kind is not inspect.Parameter.VAR_POSITIONAL:
    own = own[1:]  # self
  signature = signature.replace(parameters=own)
  switches = [p for p in own if p.name in flags(True) and _named(p)]
  others = [p for p in own if p not in switches and p.kind is not p.VAR_KEYWORD]
  at = f'the __call__ of the model {kind.__name__}'
  for parameter in switches:
    default = parameter.default
    if not (isinstance(default, bool | None) or default is parameter.empty):
      raise UserError(
        f'{at} takes {parameter}, and {parameter.name} is how a model is told '
        'whether it trains, True or False: give the argument another name'
      )
  if not others:
    raise UserError(
      f'{at} takes no inputs: give it an argument for them, as in '
      '__call__(self, x, train=False)'
    )
  inputs, *others = others
  for parameter in others:
    if parameter.default is parameter.empty and _named(parameter):
      raise UserError(f'{at} needs {_missing(parameter, draws)}')

  def arguments(x, train):
    set_to = flags(train)
    given = {p.name: set_to[p.name] for p in switches}
    several = inputs.kind is inputs.VAR_POSITIONAL
    given[inputs.name] = (x,) if several else x
    # In the order of the call: an argument before the inputs goes by position.
    given = {p.name: given[p.name] for p in own if p.name in given}
    bound = inspect.BoundArguments(signature, given)
    return bound.args, bound.kwargs

  return arguments


def _named(parameter: inspect.Parameter) -> bool:
  """Whether it is a single argument, not ``*args`` or ``**kwargs``."""
  return parameter.kind not in (
    parameter.VAR_POSITIONAL,
    parameter.VAR_KEYWORD,
  )


def _missing(parameter: inspect.Parameter, draws: str) -> str:
  """Says which argument is not given, and what to write instead."""
  name = parameter.name
  if name in ('rngs', 'rng', 'key'):
    return (
      f'{name!r}, and a model is given its inputs and whether it trains: drop '
      f'the argument and {draws}'
    )
  if _is_boolean(parameter.annotation):
    return (
      f'the boolean {name!r}, which may mean that it trains or something '
      "else: call it 'train' or 'deterministic' if it says whether the model "
      'trains, or give it a default'
    )
  return (
    f'{name!r} beside its inputs: give it a default, or take it from the '
    'inputs, which may be a dict of arrays'
  )


def _is_boolean(annotation: Any) -> bool:
  if isinstance(annotation, str):
    return 'bool' in annotation
  return bool in (annotation, *typing.get_args(annotation))
