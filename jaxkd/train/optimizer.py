"""Optimisers and schedules of optax, by name."""

import inspect
from collections.abc import Mapping
from typing import Any

import optax

from jaxkd import lookup
from jaxkd.errors import blamed, unknown


def schedule(
  name: str, value: Any, steps: int, options: Mapping[str, Any], *, at: str
) -> optax.Schedule:
  """A schedule of optax, by its name with or without its last words.

  `cosine` is `optax.cosine_decay_schedule`. The rate and the number of steps
  go to the arguments that stand for them, unless the options set those.

  Args:
    name: e.g. 'cosine', 'constant', 'warmup_cosine'.
    value: the learning rate: the largest of the schedule.
    steps: how many steps it takes.
    options: keyword arguments of the optax function.
    at: the config entry of `name`.
  """
  for full in (name, f'{name}_schedule', f'{name}_decay_schedule'):
    if full.endswith('schedule') and hasattr(optax, full):
      function = getattr(optax, full)
      break
  else:
    known = [n for n in dir(optax) if n.endswith('_schedule')]
    raise unknown('schedule', name, known, at)
  parameters = inspect.signature(function).parameters
  given = {
    key: filling
    for key, filling in (
      ('value', value),
      ('peak_value', value),
      ('init_value', 0.0 if 'peak_value' in parameters else value),
      ('decay_steps', steps),
      ('transition_steps', steps),
    )
    if key in parameters
  }
  with blamed(f'{at}_kw: optax.{full}'):
    return function(**{**given, **options})


def optimizer(train: Mapping[str, Any]) -> optax.GradientTransformation:
  """The optimiser of a complete ``train`` section of a config.

  The learning rate and numbers among the options may be traced values.

  Raises:
    UserError: a name that optax does not have, or options it does not take.
  """
  entry = train['optimizer']
  rate = schedule(
    train['schedule'],
    train['learning_rate'],
    train['steps'],
    dict(train['schedule_kw']),
    at='train.schedule',
  )
  name, options = entry['name'], dict(entry['kw'])
  if ':' in name:
    make = lookup.attribute(name, kind='optimiser', at='train.optimizer.name')
  else:
    make = _optimizers().get(name)
  if make is None:
    raise unknown('optimiser', name, _optimizers(), 'train.optimizer.name')
  for option in options:
    parameters = inspect.signature(make).parameters
    if option not in parameters:
      raise unknown(
        f'option of {name}', option, parameters, 'train.optimizer.kw'
      )
  with blamed(f'train.optimizer.kw: optax.{name}'):
    made = make(rate, **options)
  before = []
  if train['clip']:
    before.append(optax.clip_by_global_norm(train['clip']))
  if train['weight_decay']:
    before.append(optax.add_decayed_weights(train['weight_decay']))
  return optax.chain(*before, made) if before else made


def _optimizers() -> dict[str, Any]:
  """The functions of optax that make an optimiser of a learning rate."""
  return {
    name: function
    for name, function in vars(optax).items()
    if inspect.isfunction(function)
    and not name.startswith(('_', 'scale_by', 'lbfgs'))
    and next(iter(inspect.signature(function).parameters), '')
    == 'learning_rate'
  }
