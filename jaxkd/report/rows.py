"""Rows: the results of runs, as JSON.

One file holds one row. Rows that are kept live under ``benchmarks/rows/``,
and all tables are made from them. `SCHEMA` is the whole format; a key that
ends in ``?`` may be absent, ``'*'`` stands for any name, and a tuple lists
what a value may be. Values that are not finite are stored as null.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxkd import files
from jaxkd.errors import UserError, reading, said_of, unknown
from jaxkd.report import statistics

_NUMBER = (float, None)
_BY_NET = {'*': _NUMBER}
_COMPARISON = {
  'claim': str,
  'better': str,  # the arm that is claimed to be better
  'than': str,
  'mean_difference': _NUMBER,  # better - than, in the metric's own units
  'ci95': ([float], None),  # its 95 % interval; null with too few seeds
  'seeds': int,
  'holds': (bool, None),  # null where the interval spans zero
  'metric?': str,  # if not the row's own, and which way is up
  'higher_is_better?': bool,
}
SCHEMA = {
  'system': str,  # the config's name
  'survey': {  # where the system stands in the survey; all of it optional
    'work?': (int, str, None),
    'objective?': str,
    'data?': str,
    'teacher?': str,
    'knowledge?': str,
    'method?': str,
    'student?': str,
    'claim?': str,
    'cite?': str,
    'url?': str,
  },
  'dataset': str,
  'metric': str,
  'higher_is_better': bool,
  'arms': {'*': {'values': [_NUMBER]}},  # one value for each seed
  'comparison': _COMPARISON,  # the claim itself
  'comparisons?': {'*': _COMPARISON},  # controls
  'derived?': {'*': {'*': _NUMBER}},  # sums of arms that they name: factors
  'metrics?': {'*': {'*': [_NUMBER]}},  # arm -> other metric -> values
  'sweep?': [{'*': (float, str, bool, [_NUMBER], None)}],  # points
  'summary?': [  # whether early stopping would have helped, by metric
    {
      'metric': str,  # on a split, e.g. validation/top1
      'higher_is_better': bool,
      'step': [int],
      'arms': {'*': [_NUMBER]},  # the mean over the seeds at each step
    }
  ],
  'weights?': {'*': [[_NUMBER]]},  # of teachers, for each seed, on validation
  'notes?': [str],  # what the seeds share, what was tried
  'tuning?': {
    '*': {
      'grid': {'*': object},
      'trials': int,
      'chosen': {'*': object},
      'values?': object,  # of each trial
      'split': str,
    }
  },
  'best_steps?': {'*': [int]},  # of nets that are not of the last step, by arm
  'params': _BY_NET,
  'cost': {
    'step_ms?': _NUMBER,  # of all seeds together
    'teacher_share?': _NUMBER,  # of the FLOPs of a step
    'flops?': _BY_NET,
    'bytes?': _BY_NET,
    'bit_operations?': _BY_NET,  # where a net is quantised
    'latency_ms?': _BY_NET,
    'decoded_per_s?': {'*': _BY_NET},  # output -> of each net
    'step_flops?': _BY_NET,  # of a step of one seed, by arm
    'step_bytes?': _BY_NET,  # kept between its steps, with the teachers
    'train_s?': _BY_NET,
    'compile_s?': _NUMBER,  # of all that trains or tests
  },
  'wall_s': _NUMBER,
  'device': str,
  'versions': {'*': str},
  'commit': (str, None),
  'finished?': str,  # when
  'provenance?': {'*': str},  # what of data and code -> its SHA-256
  'config_sha256': str,
  'command': str,
}


def save(path: str | Path, row: Mapping[str, Any]) -> None:
  """Checks a row and writes it.

  Raises:
    UserError: an entry is missing, unknown or of a wrong type, or the file
      cannot be written.
  """
  row = plain(row)
  check(row, str(path))
  text = json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False)
  files.write_text(path, f'{text}\n')


def load(path: str | Path) -> dict:
  """Reads a row.

  Raises:
    UserError: the file is not a row; the entry at fault is named.
  """
  row = load_json(path)
  check(row, str(path))
  return row


def load_all(directory: str | Path) -> list[dict]:
  """All rows of a directory, those of the survey's works first, in order.

  Raises:
    UserError: there is no such directory, one of its files is not a row, or
      two are of one system.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise UserError(
      f'there is no directory {directory}; run this where the repository is, '
      'or say where the rows are with --rows'
    )
  rows = {path: load(path) for path in sorted(directory.glob('*.json'))}
  files = {}
  for path, row in rows.items():
    other = files.setdefault(row['system'], path)
    if other != path:
      raise UserError(
        f'{path}: {other.name} has the system {row["system"]!r} too; rename or '
        'remove one'
      )
  return sorted(rows.values(), key=_place)


def load_json(path: str | Path) -> Any:
  """Reads a JSON file.

  Raises:
    UserError: it cannot be read, or is not valid JSON.
  """
  path = files.path(path, at='row', remote=True)
  try:
    with reading(path):
      text = path.read_text(encoding='utf-8')
    held = json.loads(text)
    # Refuses NaN and half a surrogate pair, which Python reads as they are.
    json.dumps(held, ensure_ascii=False, allow_nan=False).encode()
  except UserError:
    raise
  except OSError as error:
    why = error.strerror or said_of(error)
    raise UserError(f'{path} cannot be read: {why}') from error
  except RecursionError as error:
    raise UserError(
      f'{path} is nested too deeply; restore it or remove it'
    ) from error
  except ValueError as error:
    raise UserError(
      f'{path} is not JSON ({error}); restore it or remove it'
    ) from error
  return held


def plain(value: Any) -> Any:
  """A value in JSON's types: arrays as lists, what is not finite as None."""
  if isinstance(value, Mapping):
    return {str(name): plain(entry) for name, entry in value.items()}
  if hasattr(value, 'tolist'):  # numpy and jax
    return plain(value.tolist())
  if isinstance(value, list | tuple):
    return [plain(entry) for entry in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def check_name(name: str, at: str) -> None:
  """Refuses a name of a row that files and folders cannot have.

  Args:
    name: of the system.
    at: what to call it in a message.

  Raises:
    UserError: it has a slash, or begins with a dot.
  """
  if name.startswith('.') or set(name) & {'/', '\\', '\0'}:
    raise UserError(
      f'{at}: {name!r} names files; let it have no slash, and no dot at the '
      'beginning'
    )


def check(row: Any, at: str) -> None:
  """Checks a row against `SCHEMA`, and that it agrees with itself.

  Args:
    row: in JSON's types.
    at: what to call the row in a message, e.g. its file.

  Raises:
    UserError: the first entry at fault, and what should be there.
  """
  check_shape(row, SCHEMA, at)
  check_name(row['system'], f'{at}: system')
  for name, arm in row['arms'].items():
    if not arm['values']:
      raise UserError(f'{at}: arms.{name}.values is empty; give one a seed')
  derived = row.get('derived', {})
  for name, factors in derived.items():
    for arm in factors:
      if arm not in row['arms']:
        raise unknown('arm', arm, row['arms'], f'{at}: derived.{name}')
  known = {**row['arms'], **derived}
  pairs = {'comparison': row['comparison']} | {
    f'comparisons.{name}': pair
    for name, pair in row.get('comparisons', {}).items()
  }
  for name, pair in pairs.items():
    for side in ('better', 'than'):
      if pair[side] not in known:
        raise unknown('arm', pair[side], known, f'{at}: {name}.{side}')
  for name, metrics in row.get('metrics', {}).items():
    if name not in row['arms']:
      raise unknown('arm', name, row['arms'], f'{at}: metrics')
    seeds = len(row['arms'][name]['values'])
    for metric, values in metrics.items():
      if len(values) != seeds:
        raise UserError(
          f'{at}: metrics.{name}.{metric} has {len(values)} values for '
          f'{seeds} seeds; give one a seed'
        )
  for name, pair in pairs.items():
    _check_holds(pair, is_up(pair, row), f'{at}: {name}')
    _check_figures(pair, row, f'{at}: {name}')
  for i, summary in enumerate(row.get('summary', [])):
    _check_summary(summary, f'{at}: summary[{i}]')


def metric_of(pair: Mapping[str, Any], row: Mapping[str, Any]) -> str:
  """The metric of a comparison: its own, or else that of the row."""
  return pair.get('metric', row['metric'])


def is_up(pair: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
  """Whether more of that metric is better."""
  return pair.get('higher_is_better', row['higher_is_better'])


def values_of(row: Mapping[str, Any], arm: str, metric: str) -> list:
  """One value a seed; empty where the arm has no such metric."""
  if factors := row.get('derived', {}).get(arm):
    values = {name: values_of(row, name, metric) for name in factors}
    return statistics.combination(factors, values)
  if metric == row['metric']:
    return row['arms'][arm]['values']
  return row.get('metrics', {}).get(arm, {}).get(metric, [])


def step_ms(row: Mapping[str, Any], arm: str) -> float | None:
  """Milliseconds of a step of one seed of an arm; None if that is not known.

  Without compilation and evaluation, on the row's device.
  """
  seconds = row['cost'].get('train_s', {}).get(arm)
  seen = row.get('summary') or [{'step': [], 'arms': {}}]
  if not seconds or arm not in seen[0]['arms'] or not seen[0]['step']:
    return None
  return 1e3 * seconds / seen[0]['step'][-1] / len(row['arms'][arm]['values'])


def check_shape(value: Any, schema: Any, at: str, path: str = '') -> None:
  """Checks a value against a schema of the sort of `SCHEMA`.

  Raises:
    UserError: the first entry at fault, and what should be there.
  """
  if isinstance(schema, tuple):
    if not any(_has_kind(value, option) for option in schema):
      raise _wrong(value, schema, at, path)
    schema = next(option for option in schema if _has_kind(value, option))
  if not _has_kind(value, schema):
    raise _wrong(value, schema, at, path)
  if isinstance(schema, list):
    for i, entry in enumerate(value):
      check_shape(entry, schema[0], at, f'{path}[{i}]')
  elif isinstance(schema, dict) and '*' in schema:
    for name, entry in value.items():
      check_shape(entry, schema['*'], at, _join(path, name))
  elif isinstance(schema, dict):
    known = {name.removesuffix('?'): name for name in schema}
    for name in value:
      if name not in known:
        raise unknown('entry', _join(path, name), known, at)
    for name, key in known.items():
      if name in value:
        check_shape(value[name], schema[key], at, _join(path, name))
      elif not key.endswith('?'):
        raise UserError(f'{at}: {_join(path, name)} is missing; add it')


def _check_holds(pair: dict, higher_is_better: bool, at: str) -> None:
  """Checks that `holds` agrees with the interval."""
  if pair['ci95'] is None:
    says = None
  elif len(pair['ci95']) != 2 or pair['ci95'][0] > pair['ci95'][1]:
    raise UserError(f'{at}.ci95 is {pair["ci95"]}; it must be [low, high]')
  else:
    low, high = pair['ci95']
    says = higher_is_better if low > 0 else not higher_is_better
    says = None if low <= 0 <= high else says
  if pair['holds'] is not says:
    raise UserError(
      f'{at}.holds is {json.dumps(pair["holds"])} where ci95 '
      f'{pair["ci95"]} says {json.dumps(says)}; run the config again'
    )


def _check_figures(pair: dict, row: dict, at: str) -> None:
  """Checks that a comparison agrees with the values of its arms."""
  metric = metric_of(pair, row)
  better, than = (
    values_of(row, pair[side], metric) for side in ('better', 'than')
  )
  if not better or not than:
    raise UserError(
      f'{at}.metric: {pair["better"]} and {pair["than"]} have no {metric}'
    )
  if len(better) != len(than):
    raise UserError(
      f'{at} has {len(better)} values of {pair["better"]} and {len(than)} of '
      f'{pair["than"]}; compare arms that ran with the same seeds'
    )
  for name, says in statistics.paired(better, than).items():
    if name != 'holds' and not _alike(pair[name], says):
      raise UserError(
        f'{at}.{name} is {json.dumps(pair[name])} where the values of '
        f'{pair["better"]} and {pair["than"]} say {json.dumps(says)}; run the '
        'config again'
      )


def _alike(a: Any, b: Any) -> bool:
  """Whether numbers, or lists of them, differ by rounding alone."""
  if isinstance(a, list) and isinstance(b, list):
    return all(map(_alike, a, b))
  if a is None or b is None or isinstance(a, list) or isinstance(b, list):
    return a is b
  return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def _check_summary(summary: dict, at: str) -> None:
  """Checks that it has a value for each step."""
  for name, values in summary['arms'].items():
    if len(values) != len(summary['step']):
      raise UserError(
        f'{at}.arms.{name} has {len(values)} values for '
        f'{len(summary["step"])} steps; give one a step'
      )


def _place(row: dict) -> tuple:
  """Where a row stands among the others."""
  work = row['survey'].get('work')
  numbered = isinstance(work, int) and work > 0
  return (not numbered, work if numbered else 0, row['system'])


def _join(path: str, name: str) -> str:
  return f'{path}.{name}' if path else name


def _has_kind(value: Any, schema: Any) -> bool:
  if schema is None:
    return value is None
  if isinstance(schema, list | dict):
    return isinstance(value, type(schema))
  if schema in (float, int):
    number = isinstance(value, int | schema) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max
  return isinstance(value, schema)


def _wrong(value: Any, schema: Any, at: str, path: str) -> UserError:
  names = {None: 'null', float: 'a number', int: 'a whole number', str: 'text',
           bool: 'true or false'}  # fmt: skip
  options = schema if isinstance(schema, tuple) else (schema,)
  wanted = ' or '.join(
    'a list'
    if isinstance(option, list)
    else 'a mapping'
    if isinstance(option, dict)
    else names[option]
    for option in options
  )
  shown = json.dumps(value)
  shown = shown if len(shown) < 60 else f'{shown[:57]}...'
  return UserError(f'{at}: {path or "the file"} must be {wanted}, not {shown}')
