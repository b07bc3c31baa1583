"""``python -m jaxkd.report`` makes BENCHMARKS.md and the pages beside it.

With --check it compares pages with rows; --add takes what a run found; --survey
and --claims print a page. ``python -m jaxkd.report compare RUN RUN`` puts the
arms of several runs into one table.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from jaxkd import files, run_files
from jaxkd.errors import UserError
from jaxkd.report import (
  benchmarks,
  compare,
  rows,
  speed,
  survey,
  system,
  terminal,
  wording,
)

SPEED = Path('benchmarks/speed')
ROWS = Path('benchmarks/rows')
CONFIGS = Path('configs')
NAMES = Path('docs/names.md')
SURVEY, CLAIMS = Path('docs/survey.md'), Path('docs/claims.md')
COMPARE = 'compare'
MADE = ('*.md', '*.svg', '*/*.svg')  # of what is in `benchmarks.FOLDER`

_PYTHON = re.compile(r"^(?:'/[^']*/([^'/]+)'|/\S*/(\S+))")  # by its whole path
_WORKDIR = re.compile(r"(--workdir[= ])('[^']*'|\S+)")  # of a command


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns the exit code: 0, 1 if a page is stale, 2 for a bad file."""
  given = list(sys.argv[1:] if arguments is None else arguments)
  if given[:1] == [COMPARE]:
    return _guarded(_compare, given[1:])
  return _guarded(_pages, given)


def _guarded(run: Callable[[list[str]], int], arguments: list[str]) -> int:
  """Runs a command; says what is wrong in one sentence."""
  try:
    return run(arguments)
  except UserError as error:
    print(error, file=sys.stderr)
    return 2


def _compare(arguments: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog=f'python -m jaxkd.report {COMPARE}',
    description='Puts the arms of several runs into one table.',
  )
  parser.add_argument(
    'runs', nargs='+', metavar='RUN', help='a workdir or a row.json'
  )
  parser.add_argument(
    '--metric', action='append', default=[], metavar='NAME',
    help=f"one to show, or '{compare.ALL}'; may be given again (default: each "
    "run's own)",
  )  # fmt: skip
  parser.add_argument(
    '--format', choices=('text', 'csv', 'latex'), default='text',
    help='of what is printed (default: %(default)s)',
  )  # fmt: skip
  flags = parser.parse_args(arguments)
  found = {}
  runs = [files.path(run, at='RUN', remote=True) for run in flags.runs]
  for name, path in zip(_told_apart(runs), runs, strict=True):
    found[name] = rows.load(path / run_files.ROW if path.is_dir() else path)
  compare.show(compare.compared(found, flags.metric), flags.format, Console())
  return 0


def _told_apart(paths: Sequence[Path]) -> list[str]:
  """What tells paths apart: their last parts, as many as that takes."""
  parts = [files.absolute(path).parts for path in paths]
  for count in range(1, max(map(len, parts)) + 1):
    names = ['/'.join(own[-count:]) for own in parts]
    if len(set(names)) == len(names):
      return names
  raise UserError('RUN: a run is named twice; name each once')


def _pages(arguments: list[str]) -> int:
  """Makes all pages, or prints one."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxkd.report',
    description=f'Makes {benchmarks.PAGE}, the pages in {benchmarks.FOLDER}, '
    f'{SURVEY}, {CLAIMS} and {NAMES} from the rows of finished runs, the '
    'configs and the docstrings.',
  )
  instead = parser.add_mutually_exclusive_group()
  instead.add_argument(
    '--check', action='store_true', help='write nothing; fail if one is stale'
  )
  instead.add_argument(
    '--add', nargs='+', metavar='RUN',
    help='workdirs of finished runs, whose rows and pictures are taken first',
  )  # fmt: skip
  instead.add_argument(
    '--survey', action='store_true',
    help="print the survey's tables, in its words and in ours",
  )  # fmt: skip
  instead.add_argument(
    '--claims', action='store_true',
    help="print the survey's claims and whether they hold here",
  )  # fmt: skip
  parser.add_argument(
    '--rows', type=Path, default=ROWS, metavar='DIR',
    help='where the rows are (default: %(default)s)',
  )  # fmt: skip
  parser.add_argument(
    '--speed', type=Path, metavar='DIR',
    help=f'where measurements of speed are (default: {SPEED}, if it is there)',
  )  # fmt: skip
  parser.add_argument(
    '--out', type=Path, metavar='DIR',
    help='where to write the pages of rows and speeds, and no others, in place '
    'of here',
  )  # fmt: skip
  flags = parser.parse_args(arguments)
  if flags.out and (flags.survey or flags.claims):
    parser.error('--out: what --survey and --claims print goes to no file')
  for name in ('rows', 'speed', 'out'):
    if given := getattr(flags, name):
      setattr(flags, name, files.path(given, at=f'--{name}'))
  if flags.speed and not flags.speed.is_dir():
    raise UserError(f'--speed: there is no directory {flags.speed}')
  root = flags.out or Path()
  for run in flags.add or ():
    _add(files.path(run, at='--add', remote=True), flags.rows, root)
  found = rows.load_all(flags.rows)
  if flags.survey or flags.claims:
    page = _survey_pages(found)[SURVEY if flags.survey else CLAIMS]
    Console().print(terminal.Page(page))
    return 0
  measured = speed.load(flags.speed or SPEED)
  pages = benchmarks.pages(found, measured, root)
  if not flags.out:
    pages |= _survey_pages(found) | _names_page(flags.check)
  pages = {root / path: page for path, page in pages.items()}
  stale = [path for path in pages if not _is(path, pages[path])]
  left = _left(root / benchmarks.FOLDER, pages)
  if flags.check:
    for path in [*stale, *left]:
      print(
        f'{path} is stale: run python -m jaxkd.report and commit what it '
        'writes',
        file=sys.stderr,
      )
    return 1 if stale or left else 0
  for path in stale:
    files.write_text(path, pages[path])
  for path in left:
    path.unlink()
  return 0


def _add(run: Path, to: Path, root: Path) -> None:
  """Takes the row and the pictures of a finished run.

  Raises:
    UserError: it has no row, or one whose numbers mean nothing.
  """
  if not (run / run_files.ROW).is_file():
    raise UserError(
      f'--add: there is no {run_files.ROW} in {run}; name the workdir of a run '
      'that has finished'
    )
  row = rows.load(run / run_files.ROW)
  if wording.TINY in row.get('notes', ()):
    raise UserError(f'--add: the row of {run} is of a :tiny form; run it whole')
  name = row['system']
  if not name:
    raise UserError(
      f"--add: the row of {run} has no system; set the config's name"
    )
  folder = root / benchmarks.FOLDER / name
  try:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for picture in system.pictures(run):
      copy = folder / Path(picture).name
      copy.write_bytes((run / picture).read_bytes())
  except OSError as error:
    raise UserError(
      f'--add: {folder} cannot be written: {error.strerror}'
    ) from error
  # Where a run and its Python were is no use to a reader, and their own affair.
  workdir = rf'\1runs/{name}'
  command = re.sub(_PYTHON, r'\1\2', row['command'])
  row['command'] = re.sub(_WORKDIR, workdir, command)
  rows.save(to / f'{name}.json', row)


def _left(folder: Path, pages: Iterable[Path]) -> list[Path]:
  """Pages and pictures of rows that are no longer there."""
  there = {path for pattern in MADE for path in folder.glob(pattern)}
  return sorted(there - set(pages))


def _survey_pages(found: Iterable[Mapping]) -> dict[Path, str]:
  held, configs = survey.load(), survey.read_configs(CONFIGS)
  survey.check(held, configs)
  return {
    SURVEY: survey.survey_md(held, configs),
    CLAIMS: survey.claims_md(held, found),
  }


def _names_page(check: bool) -> dict[Path, str]:
  """The page of all names, which is not compared with that of another optax."""
  from jaxkd.report import names  # needs jax

  if check and NAMES.is_file() and not names.is_of_here(NAMES.read_text()):
    return {}
  return {NAMES: names.page()}


def _is(path: Path, page: str) -> bool:
  return path.is_file() and path.read_text('utf-8', 'replace') == page


if __name__ == '__main__':
  sys.exit(main())
