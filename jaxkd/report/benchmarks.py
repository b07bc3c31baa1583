"""BENCHMARKS.md: how to read it, all claims as a picture, and their verdicts.

Beside it, each system has a page, and speeds have one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxkd.report import arms, intervals, markdown, statistics, system, wording
from jaxkd.report import speed as speeds
from jaxkd.report.intervals import Panel

PAGE = Path('BENCHMARKS.md')
FOLDER = Path('docs/benchmarks')
CLAIMS = 'claims'  # the picture of all of them
SPEED = 'speed'


def pages(
  rows: Iterable[Mapping[str, Any]],
  speed: Iterable[Mapping[str, Any]] = (),
  root: str | Path = '.',
) -> dict[Path, str]:
  """All pages and their pictures, the same texts for the same rows.

  Args:
    rows: valid rows, in the order of `jaxkd.report.rows.load_all`.
    speed: measurements of speed, each of `jaxkd.report.speed.SCHEMA`'s form.
    root: the folder whose `FOLDER` has what runs drew.

  Returns:
    Each by its path from `root`.
  """
  rows, made = list(rows), {}
  made[PAGE] = overview(rows)
  if rows:
    made |= _drawn(CLAIMS, claims(rows))
  for row in rows:
    name = row['system']
    files = sorted(Path(root, FOLDER, name).glob('*.png'))
    pictures = [f'{name}/{file.name}' for file in files]
    made[FOLDER / f'{name}.md'] = system.page(row, pictures)
    made |= _drawn(f'{name}/{system.ARMS}', system.panels(row))
  # From docs/benchmarks/, measurements' pictures are two folders up.
  made[FOLDER / f'{SPEED}.md'] = speeds.page(speed, '../../')
  return made


def overview(rows: Sequence[Mapping[str, Any]]) -> str:
  """BENCHMARKS.md."""
  if not rows:
    return f'{_PROTOCOL}\n\nThere are no rows yet.\n'
  counts = Counter(row['comparison']['holds'] for row in rows)
  parts = [
    _PROTOCOL,
    '## The claims',
    f'{len(rows)} systems: the claims of {counts[True]} hold, those of '
    f'{counts[False]} do not, and {counts[None]} are undecided.',
    markdown.picture(
      'The difference of each claim with its interval', f'{FOLDER}/{CLAIMS}'
    ),
    '## The verdicts',
    _verdicts(rows),
  ]
  return '\n\n'.join(parts) + '\n'


def claims(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
  """The claim of each row, to be drawn."""
  return arms.differences(
    [(system.title(row), row['comparison'], row) for row in rows]
  )


def link(row: Mapping[str, Any], folder: str | Path) -> str:
  """A system's name, linked to its page.

  Args:
    row: of the system.
    folder: where such pages are, from the page that has the link.
  """
  return f'[{row["system"]}]({folder}/{row["system"]}.md)'


def _drawn(name: str, panels: Sequence[Panel]) -> dict[Path, str]:
  """A picture in each palette."""
  return {
    FOLDER / f'{name}_{palette}.svg': intervals.draw(panels, colours)
    for palette, colours in intervals.PALETTES.items()
  }


_PROTOCOL = f"""\
# Benchmarks

A *row* is the result of one run: the test metrics of every seed, comparisons,
costs and notes. This page shows the claim of each row. The name of a system
leads to its page, with arms, controls, tuning, costs and pictures.

Further pages: [what steps, losses and populations
cost](docs/benchmarks/speed.md), and [whether the survey's claims
hold](docs/claims.md).

All pages are made by `python -m jaxkd.report` from `benchmarks/rows/`. Every
number comes from a run, and `python -m jaxkd.report --check` fails if pages and
rows disagree.

## How to read it

- **Paired seeds.** A seed gives every arm the same initialisation, the same
  order of examples and the same views, so arms are compared seed by seed. The
  notes of a row say what its seeds share, e.g. one teacher.
- **Intervals.** A mean ± half the width of its {wording.CONFIDENCE} interval,
  Student's t over the seeds. A difference is the mean of the paired
  differences with their own interval, which tends to be narrower than the
  arms' intervals suggest.
- **Verdicts.** A claim *holds* if the whole interval of its difference is on
  the better side of zero, *does not hold* if it is on the other side, and is
  *undecided* if the interval spans zero. Claims that do not hold stay here,
  with what was tried. Rows with fewer than {wording.ENOUGH_SEEDS} seeds are
  marked; with fewer than {statistics.FEWEST} there is no verdict, and the
  values are shown.
- **Controls.** The teacher and the student trained alone stand beside every
  distilled student; controls leave out or replace the part of the method that
  is said to matter.
- **Tuning** is done on a validation split, with the same number of trials for
  every arm. The test split is used once, at the last step: the best step on
  the test split is never reported.
- **Units.** Accuracies, agreement and calibration error are in percent and
  their differences in percentage points; `nll` and `teacher_kl` are in nats.
- **Costs** are those of the device named in the row. FLOPs are what the
  compiler counts for the forward pass of one example."""


def _verdicts(rows: Sequence[Mapping]) -> str:
  """The claim of every row."""
  lines = [
    [
      str(row['survey'].get('work') or ''),
      link(row, FOLDER),
      pair['claim'],
      f'{pair["better"]} - {pair["than"]}',
      wording.difference(pair, row),
      str(pair['seeds']),
      wording.judgement(pair),
    ]
    for row in rows
    for pair in [row['comparison']]
  ]
  header = ['Work', 'System', 'Claim', 'Arms', 'Difference', 'Seeds', 'Verdict']
  return markdown.table(header, lines)
