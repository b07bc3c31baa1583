"""Measurements of speed, and their page."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxkd.report import markdown, wording
from jaxkd.report import rows as row_files

PEERS = 'Peers: '  # what measurements beside other projects are called first


SCHEMA = [
  {
    'name': str,
    'device': str,
    'versions?': {'*': str},
    'commit?': str,
    'notes?': [str],  # what a reader must know of the figures
    'picture?': str,  # a file, from where the repository is
    'rows': [{'*': (float, str, bool, None)}],
  }
]


_INTRODUCTION = """\
# Speed

Steady-state times, without compilation and warm-up: medians over many steps,
measured by `python experiments/benchmark.py`. `--peers` measures steps of other
projects beside ours (shown first), `--losses` each loss by itself,
`--population` members, devices and seeds, `--growth` cost as the work grows.
Compare only numbers from the same device.

This page is made by `python -m jaxkd.report` from `benchmarks/speed/`."""


def load(directory: str | Path) -> list[dict]:
  """All measurements of speed in a directory, by file and in their order.

  Raises:
    UserError: a file is not a list of measurements.
  """
  measured = []
  for path in sorted(Path(directory).glob('*.json')):
    held = row_files.load_json(path)
    row_files.check_shape(held, SCHEMA, str(path))
    measured += held
  return measured


def page(measured: Iterable[Mapping], pictures: str = '') -> str:
  """The page of all measurements, those beside other projects first.

  Args:
    measured: each of the form of `SCHEMA`.
    pictures: where they are, from the page.
  """
  first = lambda one: not one['name'].startswith(PEERS)  # noqa: E731
  parts = [_section(one, pictures) for one in sorted(measured, key=first)]
  return '\n\n'.join([_INTRODUCTION, *parts]) + '\n'


def _section(measured: Mapping, pictures: str = '') -> str:
  rows = measured['rows']
  columns = list(dict.fromkeys(name for row in rows for name in row))
  table = markdown.table(
    columns,
    [[wording.plain(row.get(name, '')) for name in columns] for row in rows],
  )
  where = [f'On {measured["device"]}']
  if measured.get('versions'):
    where.append(versions(measured['versions']))
  if measured.get('commit'):
    where.append(f'commit {measured["commit"]}')
  parts = [f'## {measured["name"]}', f'{"; ".join(where)}.']
  if measured.get('picture'):
    parts.append(f'![{measured["name"]}]({pictures}{measured["picture"]})')
  parts.append(table)
  if measured.get('notes'):
    parts.append(markdown.bullets(measured['notes']))
  return '\n\n'.join(parts)


def versions(versions: Mapping[str, str]) -> str:
  """Packages with their versions, in one line."""
  return ', '.join(f'{name} {v}' for name, v in sorted(versions.items()))
