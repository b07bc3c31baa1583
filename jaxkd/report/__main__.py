"""``python -m jaxkd.report`` makes BENCHMARKS.md; with --check it compares."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxkd.errors import UserError
from jaxkd.report import rows, tables

SPEED = Path('benchmarks/speed')


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns the exit code: 0, 1 if the page is stale, 2 for a bad row."""
  parser = argparse.ArgumentParser(
    prog='python -m jaxkd.report',
    description='Makes BENCHMARKS.md from the rows of finished runs.',
  )
  parser.add_argument(
    '--check', action='store_true', help='write nothing; fail if it is stale'
  )
  parser.add_argument(
    '--rows', type=Path, default=Path('benchmarks/rows'), metavar='DIR',
    help='where the rows are (default: %(default)s)',
  )  # fmt: skip
  parser.add_argument(
    '--speed', type=Path, metavar='DIR',
    help=f'where measurements of speed are (default: {SPEED}, if it is there)',
  )  # fmt: skip
  parser.add_argument(
    '--out', type=Path, default=Path('BENCHMARKS.md'), metavar='FILE',
    help='the page (default: %(default)s)',
  )  # fmt: skip
  flags = parser.parse_args(arguments)
  try:
    if flags.speed and not flags.speed.is_dir():
      raise UserError(f'--speed: there is no directory {flags.speed}')
    return _run(flags.rows, flags.speed or SPEED, flags.out, check=flags.check)
  except UserError as error:
    print(error, file=sys.stderr)
    return 2


def _run(folder: Path, speed: Path, out: Path, *, check: bool) -> int:
  page = tables.benchmarks_md(rows.load_all(folder), tables.load_speed(speed))
  if not check:
    try:
      out.write_text(page, encoding='utf-8')
    except OSError as error:
      raise UserError(f'{out} cannot be written: {error.strerror}') from error
  elif not out.is_file() or out.read_text('utf-8', 'replace') != page:
    print(
      f'{out} is stale: run python -m jaxkd.report and commit what it writes',
      file=sys.stderr,
    )
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
