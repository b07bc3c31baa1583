"""What the scripts share: flags, signals, and errors a person can read."""

import ast
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from jaxkd import config as configs
from jaxkd.errors import UserError, unknown

FAILED = 2
CACHE = Path.home() / '.cache' / 'jaxkd'  # of compiled programs
STOPPED = 143  # what a shell reports of a program ended by SIGTERM


def main(
  function: Callable[[threading.Event], None], *, config: bool = True
) -> None:
  """Runs a script's function; a `UserError` is one sentence and exit code 2.

  SIGTERM and SIGINT set the event that the function is given, so that it can
  save its state and leave; a second SIGINT ends it at once.

  Args:
    function: the script, given the event.
    config: whether the script takes ``--config FILE[:SIZE]`` and overrides
      ``--config.ENTRY=VALUE``.
  """
  stop = threading.Event()
  if sys.stdout is not None:
    sys.stdout.reconfigure(errors='replace')  # a terminal may lack '±'

  def run(argv):
    if len(argv) > 1:
      raise UserError(f'{argv[1]!r} is not a flag; write --NAME=VALUE')
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)  # Orbax tells all it does
    if jax.config.jax_compilation_cache_dir is None:
      jax.config.update('jax_compilation_cache_dir', str(CACHE))
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, _asks(stop))
    function(stop)

  try:
    app.run(run, flags_parser=lambda argv: parse(argv, config=config))
  except KeyboardInterrupt:
    sys.exit(130)  # asked twice: what was saved last is what there is
  except UserError as error:
    if logging.get_verbosity() > logging.INFO:
      traceback.print_exception(error)
    print(f'error: {_one_line(error)}', file=sys.stderr)
    sys.exit(FAILED)


def parse(
  argv: list[str],
  *,
  config: bool = True,
  values: flags.FlagValues = flags.FLAGS,
) -> list[str]:
  """Parses a command line; gives what is left of it.

  Args:
    argv: the script and its arguments.
    config: whether ``--config`` must be among them.
    values: where the flags are.

  Raises:
    UserError: a flag or an entry that does not exist, or a wrong value.
  """
  try:
    argv = _with_config(argv, values) if config else list(argv)
    return values(argv)
  except UserError:
    raise
  except flags.UnrecognizedFlagError as error:
    known = [f'--{name}' for name in values if '.' not in name]
    raise unknown('flag', f'--{error.flagname}', known) from error
  except (flags.Error, TypeError, ValueError, AttributeError, KeyError) as e:
    raise UserError(_one_line(e)) from e


def command(workdir: str) -> str:
  """The command that runs this again elsewhere, as one would type it."""
  script = os.path.relpath(sys.argv[0])
  kept, skip = [], False
  for argument in sys.argv[1:]:
    if skip:
      skip = False
    elif re.fullmatch(r'--?workdir', argument):
      skip = True
    elif not re.match(r'--?(workdir=|(no)?overwrite)', argument):
      kept.append(argument)
  return shlex.join(['python', script, *kept, '--workdir', workdir])


def _asks(stop):
  def handler(number, frame):
    if stop.is_set() and number == signal.SIGINT:
      raise KeyboardInterrupt
    stop.set()

  return handler


def _with_config(argv: list[str], values: flags.FlagValues) -> list[str]:
  """Takes ``--config FILE`` out and makes flags of all its entries."""
  argv = list(argv)
  file = None
  for i, argument in enumerate(argv):
    if argument.startswith(('--config=', '-config=')):
      file = argument.partition('=')[2]
      del argv[i]
      break
    if argument in ('--config', '-config') and i + 1 < len(argv):
      file = argv[i + 1]
      del argv[i : i + 2]
      break
  if not file:
    if any(a.lstrip('-') in ('help', 'h', 'helpfull') for a in argv):
      return argv
    raise UserError('--config: name a config file, e.g. --config configs/X.py')
  if any(re.match(r'--?config(=|$)', argument) for argument in argv):
    raise UserError('--config: it is given twice; name one config file')
  config = configs.load(file)
  _make_room(config, argv)
  config_flags.DEFINE_config_dict(
    'config', config, 'the config', sys_argv=argv, flag_values=values
  )
  return argv


def _make_room(config: ConfigDict, argv: list[str]) -> None:
  """Prepares the config for what the flags are going to set.

  What is named anew brings its own options, whatever the order of the flags,
  and a ``kw`` may be given options that it does not name yet.
  """
  given = {}
  for i, argument in enumerate(argv):
    matched = re.fullmatch(
      r'--?config\.([\w.]+)(?:=(.*))?', argument, re.DOTALL
    )
    if matched:
      entry, value = matched.groups()
      given[entry] = argv[i + 1] if value is None and argv[i + 1 :] else value
  names_first = sorted(
    given.items(), key=lambda item: item[0].split('.')[-1] not in configs.NAMES
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
      named = [name for name in configs.NAMES if name in entries]
      raise UserError(
        f'--config.{entry}: it has entries of its own; set them one by one, '
        f'e.g. --config.{entry}.{(named or sorted(entries))[0]}'
      )
    with config.unlocked():
      if 'kw' in above and last in configs.NAMES and above[last] != value:
        _at(config, parent).kw = configs.options_after(
          above, last, value, parent
        )
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
