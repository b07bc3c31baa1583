"""Refuses values of a config that make no sense, by the names of entries."""

import math
from collections.abc import Mapping
from typing import Any

from jaxkd import models
from jaxkd.errors import UserError, unknown
from jaxkd.models import hugging_face, precision
from jaxkd.run import config as configs
from jaxkd.train import population

_CACHE_DTYPES = ('float16', 'bfloat16', 'float32')  # of the largest logits


def check(config: Mapping[str, Any]) -> None:
  """Refuses values that make no sense, whatever the data and the nets are.

  Args:
    config: complete.

  Raises:
    UserError: naming the entry.
  """
  _at_least(1, config['train'], 'seeds', 'train')
  _at_least(1, config, 'tune_seeds')
  _at_least(0, config['train'], 'seed', 'train')
  if config['train']['seed'] + config['train']['seeds'] > 2**31:
    raise UserError(
      f'train.seed: {config["train"]["seed"]} should be below 2147483648'
    )
  for at, train in configs.trains(config):
    _check_train(train, at)
  for section in ('teachers', 'students'):
    for name, entry in config[section].items():
      _check_net(entry, f'{section}.{name}')
  for name, entry in config['teachers'].items():
    _check_teacher(entry, f'teachers.{name}')
  for at, term in _all_terms(config):
    _check_term(term, at)


def _check_train(train: Mapping, at: str) -> None:
  for name in ('steps', 'batch_size', 'accumulate'):
    _at_least(1, train, name, at)
  for name in (
    'eval_every',
    'save_every',
    'steps_per_execution',
    'weight_decay',
    'clip',
    'average',
  ):
    _at_least(0, train, name, at)
  _at_least(0, train, 'early_stopping.patience', at)
  stopping = train['early_stopping']
  if stopping['patience'] and not stopping['metric']:
    raise UserError(
      f'{at}.early_stopping.patience: name the metric that it waits for in '
      f'{at}.early_stopping.metric, or set it to 0'
    )
  known = ('auto', *population.MODES)
  if train['members'] not in known:
    raise unknown('way to run', train['members'], known, f'{at}.members')
  if train['dtype'] not in models.FLOATS:
    raise unknown(
      'floating-point type', train['dtype'], models.FLOATS, f'{at}.dtype'
    )
  if train['param_dtype'] not in precision.KNOWN:
    raise unknown(
      'type of parameters',
      train['param_dtype'],
      precision.KNOWN,
      f'{at}.param_dtype',
    )
  _check_rate(train, at)
  for path, entry in train['by_path'].items():
    here = f'{at}.by_path.{path}'
    _check_rate({**train, **entry}, here)
    for name in ('weight_decay', 'clip'):
      _at_least(0, {**train, **entry}, name, here)
  if train['average'] >= 1:
    raise UserError(f'{at}.average: {train["average"]} should be below 1')
  if train['batch_size'] % train['accumulate']:
    raise UserError(
      f'{at}.accumulate: {train["accumulate"]} parts do not divide a batch '
      f'of {train["batch_size"]}'
    )


def _check_net(entry: Mapping, at: str) -> None:
  _at_least(1, entry, 'count', at)
  if hugging_face.is_folder(entry['init']):
    raise UserError(
      f'{at}.init: {entry["init"]!r} is no group of teachers; write '
      f"teachers.base=dict(restore={entry['init']!r}), and {at}.init='base'"
    )
  _check_family(entry, at)
  dropout = entry['kw'].get('dropout', 0)
  if not (isinstance(dropout, int | float) and 0 <= dropout < 1):
    raise UserError(
      f'{at}.kw.dropout: {dropout!r} should be a number from 0 to below 1'
    )
  if len(entry['reads']) % 2:
    raise UserError(
      f'{at}.reads: {entry["reads"]!r} should be a group and '
      "one of its layers, e.g. ('main', 'stages/2'), or several such pairs "
      'one after another'
    )


def _check_family(entry: Mapping, at: str) -> None:
  """Refuses weights of Hugging Face for a model of ours of another family."""
  model, weights = entry['model'], entry.get('restore', '')
  if ':' in model or not hugging_face.is_folder(weights):
    return
  here, _ = models.resolve(model, at=f'{at}.model')
  if here is not models.resolve(weights, at=f'{at}.restore')[0]:
    family = models.family_of(weights, at=f'{at}.restore')
    raise UserError(
      f'{at}.model: {model} is another family than the {family} in '
      f'{weights!r}; set {at}.model={weights!r} too'
    )


def _check_teacher(entry: Mapping, at: str) -> None:
  _at_least(0, entry, 'classes', at)
  _at_least(0, entry, 'cache.top', at)
  if not all(isinstance(name, str) for name in entry['cache']['outputs']):
    raise UserError(
      f'{at}.cache.outputs: {entry["cache"]["outputs"]!r} should '
      "be names of outputs, e.g. ('logits',)"
    )
  if entry['cache']['top'] and 'logits' not in entry['cache']['outputs']:
    raise UserError(
      f"{at}.cache.top: it is about the logits; add 'logits' to "
      f'{at}.cache.outputs, or set it to 0'
    )
  cache = entry['cache']
  for name, value in (('top_p', 1), ('temperature', 1), ('dtype', '')):
    if cache[name] != value and not cache['top']:
      raise UserError(
        f'{at}.cache.{name}: it is about the largest logits; say how many are '
        f'kept in {at}.cache.top, or leave it {value!r}'
      )
  if not 0 < cache['top_p'] <= 1:
    raise UserError(
      f'{at}.cache.top_p: {cache["top_p"]} should be above 0 and at most 1'
    )
  if not 0 < cache['temperature'] < math.inf:
    raise UserError(
      f'{at}.cache.temperature: {cache["temperature"]} should be above 0 and '
      'finite'
    )
  if cache['dtype'] not in ('', *_CACHE_DTYPES):
    raise UserError(
      f'{at}.cache.dtype: {cache["dtype"]!r} should be one of '
      f'{", ".join(_CACHE_DTYPES)}, or empty'
    )
  if not 0 < entry['specialize']['own'] < 1:
    raise UserError(
      f'{at}.specialize.own: {entry["specialize"]["own"]} should '
      'be above 0 and below 1'
    )


def _check_term(term: Mapping, at: str) -> None:
  if len(term['at']) != 2 or not _is_location(term['at']):
    raise UserError(
      f'{at}.at: {term["at"]!r} should be the output of the '
      "student and that of the teacher, e.g. ('logits', 'logits')"
    )
  weight = term['weight']
  if not 0 <= weight < math.inf:
    raise UserError(
      f'{at}.weight: {weight} should be a finite number, 0 or more'
    )
  if ':' in term['term']:  # whose options mean what they want
    return
  temperature = term['kw'].get('temperature', 1.0)
  number = isinstance(temperature, int | float)
  if not (number and 0 < temperature < math.inf):
    raise UserError(
      f'{at}.kw.temperature: {temperature!r} should be above 0 and finite'
    )


def _check_rate(train, at):
  rate = train['learning_rate']
  if not 0 < rate < math.inf:
    raise UserError(f'{at}.learning_rate: {rate} should be above 0 and finite')


def _is_location(at: Any) -> bool:
  if isinstance(at, tuple):
    return bool(at) and all(map(_is_location, at))
  return isinstance(at, str)


def _all_terms(config):
  for name, term in config['distill'].items():
    yield f'distill.{name}', term
  for group, teacher in config['teachers'].items():
    for name, term in teacher['distill'].items():
      yield f'teachers.{group}.distill.{name}', term


def _at_least(least, config, entry, at=''):
  value = configs.get(config, entry)
  if not least <= value < math.inf:
    here = f'{at}.{entry}' if at else entry
    raise UserError(f'{here}: {value} should be {least} or more, and finite')
