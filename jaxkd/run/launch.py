"""The command line of the scripts: flags, signals, and readable errors."""

import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable

import jax
from absl import app, flags, logging

from jaxkd import memory
from jaxkd.errors import UserError, unknown
from jaxkd.run import programs
from jaxkd.train import hosts

FAILED = hosts.FAILED
STOPPED = 143  # what a shell reports of a program ended by SIGTERM

# Flags that differ between the hosts of a run, or say nothing of it.
_OF_HOSTS = 'hosts|host|coordinator|hosts_timeout'
_CONFIG = (
  'a config, FILE.py, FILE.py:tiny or FILE.py:paper, or the name of one of '
  "jaxkd's own; --config.ENTRY=VALUE changes any entry, see docs/config.md"
)

FLAGS = flags.FLAGS
flags.DEFINE_string(
  'hosts',
  '',
  "number of hosts of the run, or 'auto' on Cloud TPU, SLURM, Open MPI and "
  'Kubernetes',
)
flags.DEFINE_integer('host', None, 'number of this host: 0, 1, ...')
flags.DEFINE_string(
  'coordinator', '', 'HOST:PORT, the address of host 0 and a free port there'
)
flags.DEFINE_integer(
  'hosts_timeout',
  300,
  'seconds to wait at the start for all hosts',
  lower_bound=1,
)
flags.DEFINE_boolean(
  'compilation_cache',
  True,
  'keep compiled programs for later runs: in $JAX_COMPILATION_CACHE_DIR where '
  'that is set, else up to 1 GiB in ~/.cache/jaxkd/programs',
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
    if not FLAGS.compilation_cache:
      jax.config.update('jax_enable_compilation_cache', False)
    programs.keep()
    memory.keep_freed()
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
  changed = {}
  try:
    asked = [*filter(_asks_for_help, argv[1:])]
    if asked:
      argv = [argv[0], '--help' if asked[0].endswith('-h') else asked[0]]
      if config:
        _tell_of_config(argv[0], values)
    elif config:
      from jaxkd.run import config_flags  # what --help need not wait for

      argv = config_flags.defined(argv, values)
      changed = config_flags.given(argv)
    left = values(list(argv))
  except UserError:
    raise
  except flags.UnrecognizedFlagError as error:
    known = [f'--{name}' for name in values if '.' not in name]
    raise unknown('flag', f'--{error.flagname}', known) from error
  except (flags.Error, TypeError, ValueError, AttributeError, KeyError) as e:
    raise UserError(_one_line(e)) from e
  if changed:
    for text in config_flags.of_students_alone(changed, values):
      print(text, file=sys.stderr)
  return left


def config(values: flags.FlagValues = FLAGS) -> dict:
  """The complete config that flags name and change, as plain dicts.

  Completed once more: a flag may have replaced an entry of many.
  """
  from jaxkd.run import config as configs

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
  if sys.argv[0].startswith('jaxkd '):  # see `jaxkd.__main__`
    kept = sys.argv[0].split()
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


def _one_line(error: BaseException) -> str:
  return ' '.join(str(error).split())
