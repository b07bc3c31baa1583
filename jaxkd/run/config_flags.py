"""``--config FILE`` and ``--config.ENTRY=VALUE`` of a command line as flags."""

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxkd import options
from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.run import old_names

_ALL = 'all.train'  # stands for `train` and that of every group


def defined(argv: list[str], values: flags.FlagValues) -> list[str]:
  """Takes ``--config FILE`` out and makes flags of all its entries."""
  named, argv = [], _spelled(argv)
  for argument in [a for a in argv if a.startswith('--config=')]:
    named.append(argument.partition('=')[2])
    argv.remove(argument)
  if not any(named):
    raise UserError('--config: name a config file, e.g. --config configs/X.py')
  if len(named) > 1:
    raise UserError('--config: it is given twice; name one config file')
  changes = given(argv)
  names = (*configs.OPTIONS, 'task')
  config = configs.load(
    named[0], {k: v for k, v in changes.items() if k.split('.')[-1] in names}
  )
  argv = _for_all(argv, config.teachers)
  _make_room(config, given(argv))
  config_flags.DEFINE_config_dict(
    'config', config, 'the config', sys_argv=argv, flag_values=values
  )
  return argv


def _spelled(argv: list[str]) -> list[str]:
  """Flags of the config in one spelling, ``--config.ENTRY=VALUE``.

  They may also be written with one dash, with the value behind a space, without
  a value for what is true or false, and by a name of the release before.
  """
  found, left = [], list(argv)
  while left:
    argument = left.pop(0)
    matched = re.fullmatch(
      r'--?config(\.[\w.]+)?(?:=(.*))?', argument, re.DOTALL
    )
    if not matched:
      found.append(argument)
      continue
    entry, value = matched.groups()
    if value is None:
      # What follows is a value, a negative number too, or another flag.
      is_value = left and not re.match(r'-(?![\d.])', left[0])
      value = left.pop(0) if is_value else 'true' if entry else ''
    if entry:
      entry = f'.{old_names.current(entry[1:], configs.OLD)}'
    found.append(f'--config{entry or ""}={value}')
  return found


def given(argv: list[str]) -> dict[str, str]:
  """The entries that flags set, as `_spelled`, and what they are to be."""
  start = '--config.'
  pairs = (a.removeprefix(start).partition('=') for a in argv if start in a[:9])
  return {entry: value for entry, _, value in pairs}


def _for_all(argv: list[str], teachers: Iterable[str]) -> list[str]:
  """``--config.all.train.X`` as a flag for students and one for each group."""
  found, start = [], f'--config.{_ALL}.'
  sections = (*(f'teachers.{name}.train' for name in teachers), 'train')
  for argument in argv:
    if argument.startswith(start):
      rest = argument.removeprefix(start)
      found += [f'--config.{section}.{rest}' for section in sections]
    else:
      found.append(argument)
  return found


def of_students_alone(
  entries: Iterable[str], values: flags.FlagValues
) -> Iterator[str]:
  """Says which flags change only the students, as teachers have other values.

  Of several hosts, the first says it for all.
  """
  is_first = 'host' not in values or not values['host'].value
  if 'config' not in values or not is_first:
    return
  config = configs.plain(values['config'].value)
  training = {
    name: group
    for name, group in config['teachers'].items()
    if not group['restore'] and not group['made_of']
  }
  for entry in entries:
    section, _, name = entry.partition('.')
    if section != 'train':
      continue
    value = configs.get(config, entry)
    for group in training:
      there = f'teachers.{group}.{entry}'
      with contextlib.suppress(UserError):  # an entry that students alone have
        own = configs.get(config, there)
        if own != value:
          yield (
            f'note: --config.{entry} is for the students; {there} is {own!r} '
            f'(--config.{_ALL}.{name} is for all)'
          )


def _make_room(config: ConfigDict, changes: dict[str, str]) -> None:
  """Adds the entries to the config that the flags are going to set.

  What is named anew brings its own options, whatever the order of the flags,
  and a ``kw`` may be given options that it does not name yet.
  """
  names_first = sorted(
    changes.items(),
    key=lambda item: item[0].split('.')[-1] not in configs.OPTIONS,
  )
  for entry, value in names_first:
    parent, _, last = entry.rpartition('.')
    held = configs.plain(config)
    above = configs.get(held, parent, f'--config.{entry}') if parent else held
    if not isinstance(above, dict):
      raise UserError(
        f'--config.{entry}: {parent} is {above!r} and has no entries'
      )
    entries = above.get(last)
    free = any(name in configs.FREE for name in entry.split('.'))
    if isinstance(entries, dict) and entries and not free:
      named = [name for name in configs.OPTIONS if name in entries]
      raise UserError(
        f'--config.{entry}: it has entries of its own; set them one by one, '
        f'e.g. --config.{entry}.{(named or sorted(entries))[0]}'
      )
    kind = type(entries)
    if kind in (dict, int, float) and (
      wrong := options.fault(_literal(value), kind)
    ):
      like = ", e.g. {'width': 8}" if kind is dict else ''
      raise UserError(f'--config.{entry}: {wrong}{like}')
    with config.unlocked():
      if last in configs.OPTIONS and above.get(last) != value:
        changed = configs.options_after(above, last, value, parent)
        for option, new in changed.items():
          _at(config, parent)[option] = new
      if re.search(r'kw$', parent) and last not in above:
        _at(config, parent)[last] = _literal(value)
    configs.get(configs.plain(config), entry, f'--config.{entry}')


def _at(config, entry):
  for name in entry.split('.'):
    config = config[name]
  return config


def _literal(text):
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
