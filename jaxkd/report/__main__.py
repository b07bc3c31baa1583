"""``python -m jaxkd.report`` makes BENCHMARKS.md and the survey's pages.

With --check it compares; --survey and --claims print a page.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from jaxkd import files
from jaxkd.errors import UserError
from jaxkd.report import rows, survey, tables

SPEED = Path('benchmarks/speed')
BENCHMARKS = Path('BENCHMARKS.md')
CONFIGS = Path('configs')
SURVEY, CLAIMS = Path('docs/survey.md'), Path('docs/claims.md')


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns the exit code: 0, 1 if a page is stale, 2 for a bad file."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxkd.report',
    description=f'Makes {BENCHMARKS}, {SURVEY} and {CLAIMS} from the rows of '
    'finished runs and the configs.',
  )
  instead = parser.add_mutually_exclusive_group()
  instead.add_argument(
    '--check', action='store_true', help='write nothing; fail if one is stale'
  )
  instead.add_argument(
    '--survey', action='store_true',
    help="print the survey's tables, in its words and in ours",
  )  # fmt: skip
  instead.add_argument(
    '--claims', action='store_true',
    help="print the survey's claims and whether they hold here",
  )  # fmt: skip
  parser.add_argument(
    '--rows', type=Path, default=Path('benchmarks/rows'), metavar='DIR',
    help='where the rows are (default: %(default)s)',
  )  # fmt: skip
  parser.add_argument(
    '--speed', type=Path, metavar='DIR',
    help=f'where measurements of speed are (default: {SPEED}, if it is there)',
  )  # fmt: skip
  parser.add_argument(
    '--out', type=Path, metavar='FILE',
    help=f'the page of the rows, in place of {BENCHMARKS} and all others',
  )  # fmt: skip
  flags = parser.parse_args(arguments)
  if flags.out and (flags.survey or flags.claims):
    parser.error('--out: what --survey and --claims print goes to no file')
  try:
    return _run(flags)
  except UserError as error:
    print(error, file=sys.stderr)
    return 2


def _run(flags: argparse.Namespace) -> int:
  for name in ('rows', 'speed', 'out'):
    if given := getattr(flags, name):
      setattr(flags, name, files.path(given, at=f'--{name}'))
  if flags.speed and not flags.speed.is_dir():
    raise UserError(f'--speed: there is no directory {flags.speed}')
  found = rows.load_all(flags.rows)
  if flags.survey or flags.claims:
    page = _survey_pages(found)[SURVEY if flags.survey else CLAIMS]
    Console().print(tables.Page(page))
    return 0
  speed = tables.load_speed(flags.speed or SPEED)
  pages = {flags.out or BENCHMARKS: tables.benchmarks_md(found, speed)}
  if not flags.out:
    pages |= _survey_pages(found)
  stale = [path for path in pages if not _is(path, pages[path])]
  if flags.check:
    for path in stale:
      print(
        f'{path} is stale: run python -m jaxkd.report and commit what it '
        'writes',
        file=sys.stderr,
      )
    return 1 if stale else 0
  for path in stale:
    _write(path, pages[path])
  return 0


def _survey_pages(found: Iterable[Mapping]) -> dict[Path, str]:
  held, configs = survey.load(), survey.read_configs(CONFIGS)
  survey.check(held, configs)
  return {
    SURVEY: survey.survey_md(held, configs),
    CLAIMS: survey.claims_md(held, found),
  }


def _is(path: Path, page: str) -> bool:
  return path.is_file() and path.read_text('utf-8', 'replace') == page


def _write(path: Path, page: str) -> None:
  try:
    path.write_text(page, encoding='utf-8')
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}') from error


if __name__ == '__main__':
  sys.exit(main())
