"""The command line of the scripts: flags, signals, and readable errors."""

import ast
import contextlib
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from jaxkd import options
from jaxkd.errors import UserError, unknown
from jaxkd.run import config as configs
from jaxkd.run import old_names
from jaxkd.train import hosts

FAILED = hosts.FAILED
CACHE = Path.home() / '.cache' / 'jaxkd'  # of compiled programs
STOPPED = 143  # what a shell reports of a program ended by SIGTERM

# Flags that differ between the hosts of a run, or say nothing of it.
_OF_HOSTS = 'hosts|host|coordinator|hosts_timeout'
_CONFIG = (
  'a config, FILE.py, FILE.py:tiny or FILE.py:paper; --config.ENTRY=VALUE '
  'changes any of its entries, see docs/config.md'
)
_ALL = 'all.train'  # stands for `train` and that of every group

FLAGS = flags.FLAGS
flags.DEFINE_string(
  'hosts', '', "how many hosts share the run, or 'auto' where a cluster tells"
)
flags.DEFINE_integer('host', None, 'which of the hosts this is: 0, 1, ...')
flags.DEFINE_string(
  'coordinator', '', 'HOST:PORT on which host 0 waits for the others'
)
flags.DEFINE_integer(
  'hosts_timeout', 300, 'seconds to wait until all are there', lower_bound=1
)


def main(
  function: Callable[[threading.Event | hosts.Preemption], None],
  *,
  config: bool = True,
  several: bool = False,
) -> None:
  """Runs a script's function; a `UserError` is one sentence and exit code 2.

  SIGTERM and SIGINT set the event that the function is given, so that it can
  save its state and leave; a second SIGINT ends it at once. An error on one of
  several hosts ends the script on all.

  Args:
    function: the script, given the event.
    config: whether the script takes ``--config FILE[:SIZE]`` and overrides
      ``--config.ENTRY=VALUE``.
    several: whether the script can run on several hosts.
  """
  stop, watch = threading.Event(), None
  if sys.stdout is not None:
    sys.stdout.reconfigure(errors='replace')  # a terminal may lack '±'

  def run(argv):
    nonlocal watch
    if len(argv) > 1:
      raise UserError(f'{argv[1]!r} is not a flag; write --NAME=VALUE')
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)  # Orbax tells all it does
    if jax.config.jax_compilation_cache_dir is None:
      jax.config.update('jax_compilation_cache_dir', str(CACHE))
    _join(several)
    if not jax.distributed.is_initialized() or hosts.count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _asks(stop))
      return function(stop)
    # SIGTERM is JAX's own there, which tells the other hosts.
    signal.signal(signal.SIGINT, _terminates(stop))
    watch = hosts.Watch()
    return function(hosts.Preemption())

  try:
    app.run(run, flags_parser=lambda argv: parse(argv, config=config))
  except KeyboardInterrupt:
    if watch:
      watch.fail('it was interrupted')
    sys.exit(130)  # asked twice: what was saved last is what there is
  except UserError as error:
    if logging.get_verbosity() > logging.INFO:
      traceback.print_exception(error)
    print(f'error: {_one_line(error)}', file=sys.stderr, flush=True)
    if watch:
      watch.fail(_one_line(error))
    sys.exit(FAILED)
  except Exception as error:
    if watch:
      watch.fail(_one_line(traceback.format_exception_only(error)[-1]))
    raise


def _join(several: bool) -> None:
  """Finds the other hosts that the flags name, if any."""
  given, host, coordinator = FLAGS.hosts, FLAGS.host, FLAGS.coordinator
  if not given and host is None and not coordinator:
    return
  if not several:
    raise UserError(
      '--hosts: this script uses one host; run each config on several with '
      'experiments/distill.py, or leave the flag out'
    )
  if given == 'auto':
    if host is not None or coordinator:
      raise UserError(
        '--hosts=auto: it finds --host and --coordinator by itself; leave them '
        'out, or write --hosts=N'
      )
    hosts.join(None, None, None, FLAGS.hosts_timeout)
    return
  if not given.isdecimal() or int(given) < 1:
    raise UserError(f"--hosts={given}: write how many there are, or 'auto'")
  if host is None or not 0 <= host < int(given):
    raise UserError(f'--host: say which one this is, 0 to {int(given) - 1}')
  if not re.fullmatch(r'.+:\d{1,5}', coordinator):
    raise UserError(
      '--coordinator: write HOST:PORT, the address of host 0 and a free port '
      'there'
    )
  hosts.join(int(given), host, coordinator, FLAGS.hosts_timeout)


def parse(
  argv: list[str],
  *,
  config: bool = True,
  values: flags.FlagValues = flags.FLAGS,
) -> list[str]:
  """Parses a command line; returns the arguments that are no flags.

  Args:
    argv: the script and its arguments.
    config: whether ``--config`` must be among them.
    values: where the flags are.

  Raises:
    UserError: a flag or an entry that does not exist, or a wrong value.
  """
  try:
    asked = [*filter(_asks_for_help, argv[1:])]
    if asked:
      argv = [argv[0], '--help' if asked[0].endswith('-h') else asked[0]]
      if config:
        _tell_of_config(argv[0], values)
    elif config:
      argv = _with_config(argv, values)
    left = values(list(argv))
  except UserError:
    raise
  except flags.UnrecognizedFlagError as error:
    known = [f'--{name}' for name in values if '.' not in name]
    raise unknown('flag', f'--{error.flagname}', known) from error
  except (flags.Error, TypeError, ValueError, AttributeError, KeyError) as e:
    raise UserError(_one_line(e)) from e
  for text in _of_students_alone(_given(argv), values) if config else ():
    print(text, file=sys.stderr)
  return left


def config(values: flags.FlagValues = FLAGS) -> dict:
  """The complete config that flags name and change, as plain dicts.

  Completed once more: a flag may have replaced an entry of many.
  """
  return configs.plain(configs.complete(values['config'].value))


def command() -> str:
  """The command that was given, quoted for a shell.

  The flags that tell hosts apart are left out: each host was given its own.
  """
  arguments, given = sys.argv[1:], sys.orig_argv
  start = len(given) - len(arguments)
  # What has set its own arguments, as a notebook does, was not given them.
  known = given[start:] == arguments
  kept = given[:start] if known else ['python', os.path.relpath(sys.argv[0])]
  skip = False
  for argument in arguments:
    if not skip and not re.fullmatch(f'--?({_OF_HOSTS})(=.*)?', argument):
      kept.append(argument)
    skip = bool(re.fullmatch(f'--?({_OF_HOSTS})', argument))
  return shlex.join(kept)


def _asks(stop):
  def handler(number, frame):
    if stop.is_set() and number == signal.SIGINT:
      raise KeyboardInterrupt
    stop.set()

  return handler


def _terminates(stop):
  """SIGINT as SIGTERM, the second time as it is."""

  def handler(number, frame):
    if stop.is_set():
      raise KeyboardInterrupt
    stop.set()
    os.kill(os.getpid(), signal.SIGTERM)

  return handler


def _asks_for_help(argument: str) -> bool:
  return bool(re.fullmatch(r'--?(help(short|full|xml)?|h|\?)', argument))


def _tell_of_config(script: str, values: flags.FlagValues) -> None:
  """Has ``--config`` among the flags of the script that --help tells of."""
  flag = flags.Flag(flags.ArgumentParser(), None, 'config', None, _CONFIG)
  flags.DEFINE_flag(flag, values, module_name=script)


def _with_config(argv: list[str], values: flags.FlagValues) -> list[str]:
  """Takes ``--config FILE`` out and makes flags of all its entries."""
  named, argv = [], _spelled(argv)
  for argument in [a for a in argv if a.startswith('--config=')]:
    named.append(argument.partition('=')[2])
    argv.remove(argument)
  if not any(named):
    raise UserError('--config: name a config file, e.g. --config configs/X.py')
  if len(named) > 1:
    raise UserError('--config: it is given twice; name one config file')
  given = _given(argv)
  names = (*configs.OPTIONS, 'task')
  config = configs.load(
    named[0], {k: v for k, v in given.items() if k.split('.')[-1] in names}
  )
  argv = _for_all(argv, config.teachers)
  _make_room(config, _given(argv))
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


def _given(argv: list[str]) -> dict[str, str]:
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


def _of_students_alone(
  given: Iterable[str], values: flags.FlagValues
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
  for entry in given:
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
            f'note: --config.{entry} is for the students; {there} is {own} '
            f'(--config.{_ALL}.{name} is for all)'
          )


def _make_room(config: ConfigDict, given: dict[str, str]) -> None:
  """Adds the entries to the config that the flags are going to set.

  What is named anew brings its own options, whatever the order of the flags,
  and a ``kw`` may be given options that it does not name yet.
  """
  names_first = sorted(
    given.items(),
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


def _one_line(error: BaseException) -> str:
  return ' '.join(str(error).split())
