"""Optimisers and schedules of optax, by name."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
import optax.contrib

from jaxkd import lookup, paths
from jaxkd import options as options_lib
from jaxkd.errors import UserError, blamed, unknown
from jaxkd.train import trainable

# Entries of `train` that parameters in `train.by_path` may override.
BY_PATH = (
  'optimizer',
  'learning_rate',
  'schedule',
  'schedule_kw',
  'weight_decay',
  'clip',
)
_OTHERS = 'others'
# Of options of optax's optimisers, what makes sense.
_NOT_NEGATIVE = lambda x: 0 <= x < math.inf, '0 or more, and finite'
_SHARE = lambda x: 0 <= x < 1, 'from 0 to below 1'
_CONSTANTS = {
  'weight_decay': _NOT_NEGATIVE,
  'weight_decay_rate': _NOT_NEGATIVE,
  'eps': _NOT_NEGATIVE,
  'eps_root': _NOT_NEGATIVE,
  'initial_accumulator_value': _NOT_NEGATIVE,
  'b1': _SHARE,
  'b2': _SHARE,
  'b3': _SHARE,
  'decay': _SHARE,
  'rho': _SHARE,
  'decay_rate': (lambda x: 0 < x <= 1, 'above 0 and at most 1'),
  'momentum': (lambda x: -1 < x < 1, 'above -1 and below 1'),
}
# Optimisers of optax that take a number as learning rate, and no schedule.
_WITHOUT_SCHEDULE = ('rprop', 'sm3')
# Optimisers, by their states, that train other parameters than their result.
_OTHER_RESULTS = {
  optax.contrib.ScheduleFreeState: (
    'a schedule-free optimiser ends with other parameters than those that it '
    'trains, and those would be evaluated and kept; take another, and '
    'train.average for a mean of the parameters'
  ),
  optax.contrib.SAMState: (
    'sharpness-aware minimisation (SAM) shifts the parameters uphill in every '
    'other step, and these would be evaluated and kept; take another optimiser'
  ),
}


def schedule(
  name: str, value: Any, steps: int, options: Mapping[str, Any], *, at: str
) -> optax.Schedule:
  """The schedule of the learning rate.

  The learning rate and the number of steps fill the arguments for them, unless
  the options set those.

  Args:
    name: as `find_schedule` takes it.
    value: the learning rate, i.e. the peak of the schedule.
    steps: its length.
    options: keyword arguments of the function.
    at: the config entry of `name`.

  Raises:
    UserError: no such schedule or option, or a warm-up that does not end
      before the last step.
  """
  warm_up = options.get('warmup_steps', 0)
  if isinstance(warm_up, int | float) and warm_up >= steps:
    raise UserError(
      f'{at}_kw.warmup_steps: the rate would still be rising after the last of '
      f'{steps} steps; make {warm_up} smaller, or train for longer'
    )
  function = find_schedule(name, at=at)
  given = filled(function, value, steps)
  with blamed(f'{at}_kw: {_shown(function, name)}'):
    return function(**{**given, **options})


def filled(function: Callable, value: Any, steps: int) -> dict[str, Any]:
  """The arguments that a schedule is given unless its options set them.

  Args:
    function: makes the schedule.
    value: the learning rate.
    steps: how many there are.
  """
  parameters = inspect.signature(function).parameters
  given = {
    'value': value,
    'peak_value': value,
    'init_value': 0.0 if 'peak_value' in parameters else value,
    'decay_steps': steps,
    'transition_steps': steps,
  }
  return {key: given[key] for key in given if key in parameters}


def find_schedule(name: str, *, at: str) -> Callable[..., optax.Schedule]:
  """The function that makes a schedule: of optax, or one of your own.

  Args:
    name: of a function of optax, with or without its suffix: `cosine` is
      `optax.cosine_decay_schedule` and `exponential` is
      `optax.exponential_decay`; or 'package.module:function'.
    at: the config entry of the name.

  Raises:
    UserError: there is no such function.
  """
  if ':' in name:
    return lookup.attribute(name, kind='schedule', at=at)
  known = schedules()
  for end in ('', '_schedule', '_decay_schedule', '_decay'):
    full = f'{name}{end}'
    if full in known:
      return getattr(optax, full)
  raise unknown('schedule', name, known, at)


def schedules() -> list[str]:
  """The functions of optax that make a schedule."""
  return [
    name
    for name in dir(optax)
    if name == 'exponential_decay'
    or (name.endswith('_schedule') and not name.startswith('scale_by'))
  ]


def _shown(function: Callable, name: str) -> str:
  """What a function is called in messages."""
  return name if ':' in name else f'optax.{function.__name__}'


def optimizer(train: Mapping[str, Any]) -> optax.GradientTransformation:
  """The optimiser of a complete ``train`` section of a config.

  The learning rate and numbers among the options may be traced values.
  Parameters in ``train['by_path']`` have an optimiser of their own, made of
  their entries and, for what these leave out, of those of ``train``. Then
  ``clip`` is by the global norm of the gradients of each optimiser.

  Raises:
    UserError: a name that optax does not have, or options it does not take;
      from ``init``, a path without parameters, or two for one parameter.
  """
  if not train['by_path']:
    return _alone(train, 'train')
  made = {_OTHERS: _alone(train, 'train')}
  for path, entry in train['by_path'].items():
    at = f'train.by_path.{path}'
    for name in entry:
      if name not in BY_PATH:
        raise unknown('entry', name, BY_PATH, at)
    # The options of another schedule do not fit this one.
    renamed = {'schedule_kw': {}} if 'schedule' in entry else {}
    made[path] = _alone({**train, **renamed, **entry}, at)
  return optax.partition(
    {name: _with_own_parts(one) for name, one in made.items()},
    functools.partial(_labels, patterns=tuple(train['by_path'])),
  )


def takes_traced_rate(train: Mapping[str, Any]) -> bool:
  """Whether the learning rate of a ``train`` section may be a traced value.

  Optax's functions mostly take one, but `warmup_cosine_decay_schedule` compares
  it with 0 in Python. One's own function may do anything, so that it is given
  the number.
  """
  sections = [train, *({**train, **own} for own in train['by_path'].values())]
  for own in sections:
    if ':' in own['optimizer']['name'] or ':' in own['schedule']:
      return False

  def made(rate):
    optimizer({**train, 'learning_rate': rate})

  try:
    jax.eval_shape(made, jax.ShapeDtypeStruct((), 'float32'))
  except UserError:
    return False
  return True


def _labels(tree: Any, patterns: Sequence[str]) -> Any:
  """The pattern that matches each trainable leaf, or `_OTHERS`."""
  labels = dict.fromkeys(paths.by_path(tree), _OTHERS)
  there = paths.by_path(tree, trainable.is_hidden)
  for pattern in patterns:
    named = [path for path in there if paths.matches(path, pattern)]
    if not named:
      depth = pattern.count('/') + 1
      known = {'/'.join(path.split('/')[:depth]) for path in there}
      raise unknown('path', pattern, known, 'train.by_path')
    for path in filter(labels.__contains__, named):
      if labels[path] != _OTHERS:
        raise UserError(
          f'train.by_path: {labels[path]} and {pattern} both match {path}; let '
          'only one match it'
        )
      labels[path] = pattern
  return jax.tree.unflatten(jax.tree.structure(tree), list(labels.values()))


def _with_own_parts(
  made: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Masks the parts of a gradient as optax masks their sum."""
  made = optax.with_extra_args_support(made)

  def update(updates, state, params=None, *, parts=None, **extra):
    if parts is not None:
      extra['parts'] = {
        name: jax.tree.map(
          lambda seen, x: seen if trainable.is_hidden(seen) else x,
          updates,
          part,
          is_leaf=trainable.is_hidden,
        )
        for name, part in parts.items()
      }
    return made.update(updates, state, params, **extra)

  return optax.GradientTransformationExtraArgs(made.init, update)


def _alone(train: Mapping[str, Any], at: str) -> optax.GradientTransformation:
  """One optimiser for all parameters that it is given."""
  entry = train['optimizer']
  rate = schedule(
    train['schedule'],
    train['learning_rate'],
    train['steps'],
    dict(train['schedule_kw']),
    at=f'{at}.schedule',
  )
  name, options = entry['name'], dict(entry['kw'])
  if name in _WITHOUT_SCHEDULE:
    if train['schedule'] != 'constant':
      raise UserError(
        f'{at}.schedule: optax.{name} takes no schedule of its rate; set it to '
        "'constant', or take another optimiser"
      )
    rate = train['learning_rate']
  if ':' in name:
    make = lookup.attribute(name, kind='optimiser', at=f'{at}.optimizer.name')
  else:
    make = optimizers().get(name)
  if make is None:
    raise unknown('optimiser', name, optimizers(), f'{at}.optimizer.name')
  takes = options_lib.parameters_of(make)
  options_lib.check(
    options, takes, name=name, at=f'{at}.optimizer.kw', filled=takes
  )
  if ':' not in name:
    _check_constants(options, f'{at}.optimizer.kw')
  with blamed(f'{at}.optimizer.kw: {_shown(make, name)}'):
    made = make(rate, **options)
  check_result(made, f'{at}.optimizer.name')
  before = []
  if train['clip']:
    before.append(optax.clip_by_global_norm(train['clip']))
  if train['weight_decay']:
    before.append(optax.add_decayed_weights(train['weight_decay']))
  return optax.chain(*before, made) if before else made


def _check_constants(options: Mapping[str, Any], at: str) -> None:
  """Refuses what optax would take, and with which no optimiser can learn."""
  for name, (holds, should) in _CONSTANTS.items():
    value = options.get(name)
    if isinstance(value, (int, float)) and not holds(value):
      raise UserError(f'{at}.{name}: {value} should be {should}')


def check_result(made: optax.GradientTransformation, at: str) -> None:
  """Refuses an optimiser whose result is not what it trains.

  Raises:
    UserError: a schedule-free optimiser, which gives its result by
      `optax.contrib.schedule_free_eval_params`, or `optax.contrib.sam`, whose
      parameters are those of its result after some steps alone.
  """
  state = ()
  with contextlib.suppress(Exception):  # it wants parameters; told elsewhere
    state = made.init({})
  known = lambda node: type(node) in _OTHER_RESULTS  # noqa: E731
  for node in filter(known, jax.tree.leaves(state, is_leaf=known)):
    raise UserError(f'{at}: {_OTHER_RESULTS[type(node)]}')


@functools.cache
def optimizers() -> dict[str, Any]:
  """The functions of optax that make an optimiser of a learning rate."""
  return {
    name: function
    for name, function in vars(optax).items()
    if inspect.isfunction(function)
    and not name.startswith(('_', 'scale_by', 'lbfgs'))
    and next(iter(inspect.signature(function).parameters), '')
    == 'learning_rate'
  }
