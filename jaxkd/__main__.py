"""``jaxkd COMMAND ...``: the scripts, where jaxkd is installed without a clone.

``python -m jaxkd COMMAND ...`` is the same.
"""

import runpy
import sys

COMMANDS = {
  'distill': ('jaxkd.experiments.distill', 'distil teachers into students'),
  'sweep': ('jaxkd.experiments.sweep', 'run configs × overrides'),
  'prepare': ('jaxkd.experiments.prepare', "write a config's data for TFDS"),
  'write': ('jaxkd.experiments.write', 'let a teacher write texts'),
  'export': ('jaxkd.export', 'write a net of a run for other tools'),
  'report': ('jaxkd.report', 'compare runs, make pages of rows'),
}


def main() -> None:
  """Runs a command as its script would be run."""
  _, *arguments = sys.argv
  if not arguments or arguments[0] in ('-h', '--help'):
    print('usage: jaxkd COMMAND ..., with --help for what it takes\n')
    for name, (_, said) in COMMANDS.items():
      print(f'  jaxkd {name:8} {said}')
    print(
      '\nConfigs are named without their folder and ending, as in\n'
      '  jaxkd distill --config hinton2015_soft_targets:tiny --workdir runs/x'
    )
    sys.exit(0 if arguments else 2)
  command, *rest = arguments
  if command not in COMMANDS:
    known = ', '.join(COMMANDS)
    print(f'error: {command!r} is no command: {known}', file=sys.stderr)
    sys.exit(2)
  sys.argv = [f'jaxkd {command}', *rest]
  runpy.run_module(COMMANDS[command][0], run_name='__main__')


if __name__ == '__main__':
  main()
