"""Time and memory that it takes to start from a folder of images.

Each start is a process of its own, which loads the data and finds their
checksum, as every run does before it trains.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Group
from rich.text import Text

from benchmarks import speed
from jaxkd.data import passes
from jaxkd.errors import UserError
from jaxkd.report import wording

COUNT = 20_000  # images
SIDES = 8, 32, 128, 160  # pixels; the last ones are too many for memory
CLASSES = 10
STARTS = 3  # of each kind
MB = 10**6
_START = """
import json, resource, sys, time
from jaxkd.data import fingerprint, sources

begun = time.perf_counter()
source = sources.load(f'folder:{sys.argv[1]}')
fingerprint.of_source(source)
took = time.perf_counter() - begun
held = {type(split).__name__ for split in source.splits.values()}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([took, peak, held == {'ArrayExamples'}]))
"""


def starts(
  sides: Sequence[int] = SIDES,
  count: int = COUNT,
  repeats: int = STARTS,
  stop: threading.Event | None = None,
  *,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Seconds and peak memory of the first start and of later ones.

  The images are JPEGs, smooth ones of colours. Their files have been written
  just before, so that the disk need not be waited for.

  Args:
    sides: of the images of each folder, in pixels.
    count: images of a folder.
    repeats: starts of each kind.
    stop: when set, the measurement ends.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
    UserError: a start failed; what it said last.
  """
  table = []
  with stage('starts', len(sides)) as show:
    for done, side in enumerate(sides, 1):
      table += _folder(side, count, repeats, stop)
      show(done, {})
  return speed.measurement(
    f'Starts: {count:,} images in a folder', table, NOTES
  )


NOTES = (
  'Seconds from the name of the folder to data whose checksum is known, after '
  'imports: the median, with quartiles. The first start reads the headers of '
  'all files, and those that follow find in a cache what they said, and the '
  'checksums of images that are read as asked for.',
  'The memory is what the process has taken at most, with all it imports.',
)


def _folder(side, count, repeats, stop) -> list[dict[str, Any]]:
  """The rows of one folder."""
  with tempfile.TemporaryDirectory() as top:
    folder, home = Path(top, 'images'), Path(top, 'home')
    write(folder, count, side)
    found = {'first': [], 'next': []}
    for number in range(repeats):
      for starts_ in found.values():
        speed.check_stop(stop)
        own = home / str(number)  # with a cache that is empty at first
        own.mkdir(parents=True, exist_ok=True)
        starts_.append(_start(folder, own))
  rows = []
  for kind, starts_ in found.items():
    seconds, memory, held = zip(*starts_, strict=True)
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    rows.append(
      {
        'images': f'{side}×{side}×3',
        'pixels, MB': count * side * side * 3 / MB,
        'examples': 'in memory' if held[0] else 'read as asked for',
        'start': kind,
        's': middle,
        'lower quartile': low,
        'upper quartile': high,
        'memory, MB': max(memory) / MB,
      }
    )
  return rows


def write(folder: Path, count: int, side: int) -> None:
  """Writes images of colours into class folders."""
  random = np.random.default_rng(side)
  for label in range(CLASSES):
    (folder / str(label)).mkdir(parents=True)
  for i in passes.over(range(count), 'writing images'):
    coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize((side, side))
    image.save(folder / str(i % CLASSES) / f'{i}.jpg')


def _start(folder: Path, home: Path) -> tuple[float, int, bool]:
  """Seconds, bytes of the process at most, and whether it holds all images."""
  done = subprocess.run(
    [sys.executable, '-c', _START, str(folder)],
    capture_output=True,
    text=True,
    env={**os.environ, 'HOME': str(home)},
  )
  if done.returncode:
    said = (done.stderr.strip().splitlines() or ['without a word'])[-1]
    raise UserError(f'--data: a start failed: {said}')
  return tuple(json.loads(done.stdout))


def table(measured: Mapping[str, Any]) -> Group:
  """A measurement for the terminal."""
  made = speed.frame(measured)
  for name in measured['rows'][0]:
    made.add_column(name, justify='right')
  for row in measured['rows']:
    made.add_row(*(wording.plain(value) for value in row.values()))
  return Group(made, *(Text(note, 'dim') for note in measured['notes']))
