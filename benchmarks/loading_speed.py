"""Images a second from a folder of photographs, beside other loaders.

Each pass is a process of its own, see `benchmarks/peers/loaders.py`; those of
the loaders take turns, so that the drift of a shared machine hits all alike.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import data_speed, speed
from jaxkd.data import loader, passes
from jaxkd.errors import UserError

COUNT, SIDE, BATCH = 1024, 224, 64  # images, pixels, images in a batch
SIZE = 500, 375  # of the files, width and height, as those of ImageNet are
PASSES = 5  # of each loader
CHILD = Path(__file__).parent / 'peers' / 'loaders.py'
LOADERS = {
  'jaxkd': ('jaxkd, Grain', 'threads'),
  'torch': ('PyTorch DataLoader', 'processes'),
  'tfds': ('TFDS ImageFolder', 'threads'),
}
NOTES = (
  f'JPEGs of {SIZE[0]}×{SIZE[1]} pixels, made in code, are decoded, resized to '
  f'{SIDE}×{SIDE} by a bilinear filter with antialiasing, and given in random '
  f'order as batches of {BATCH} of uint8, in the memory of the host.',
  'jaxkd and the data set that PyTorch loads decode and resize by Pillow, and '
  'TFDS by TensorFlow.',
  'The files were written just before. The first time through is left out.',
)


def measure(
  python: str = '',
  count: int = COUNT,
  repeats: int = PASSES,
  stop: threading.Event | None = None,
  *,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Images a second of each loader.

  Args:
    python: has PyTorch, or TensorFlow and TFDS, or both; empty for jaxkd alone.
    count: images.
    repeats: passes of each loader.
    stop: when set, the measurement ends.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
    UserError: a loader failed; what it said last.
  """
  commands, notes = {'jaxkd': sys.executable}, [*NOTES, cores()]
  for name, package in (('torch', 'torch'), ('tfds', 'tensorflow')):
    if python and _has(python, package):
      commands[name] = python
    else:
      notes.append(
        f'{LOADERS[name][0]} is left out: no Python that has {package} was '
        'named in --torch_python.'
      )
  rates = {name: [] for name in commands}
  with tempfile.TemporaryDirectory() as top:
    write(Path(top), count)
    with stage('loading', repeats * len(commands)) as show:
      for turn in range(repeats):
        for place, (name, command) in enumerate(commands.items(), 1):
          speed.check_stop(stop)
          rates[name].append(_pass(command, name, top))
          show(turn * len(commands) + place, {})
  rows = []
  for name, found in rates.items():
    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
    called, kind = LOADERS[name]
    rows.append(
      {
        'loader': called,
        'workers': f'{loader.workers()} {kind}',
        'images/s': middle,
        'lower quartile': low,
        'upper quartile': high,
      }
    )
  title = f'Loading: {count:,} JPEGs at {SIDE} pixels'
  return speed.measurement(title, rows, notes)


def cores() -> str:
  """A note on the cores that this process may use."""
  count = os.cpu_count() or 1
  if hasattr(os, 'sched_getaffinity'):
    count = len(os.sched_getaffinity(0))
  return (
    f'All processes together could use {count} cores.'
    if count > 1
    else ('All processes together could use one core.')
  )


def write(top: Path, count: int) -> None:
  """Writes images with edges, gradients and grain into class folders."""
  random = np.random.default_rng(0)
  width, height = SIZE
  for label in range(2):
    for split in ('train', 'test'):
      (top / split / str(label)).mkdir(parents=True)
  for i in passes.over(range(count + 4), 'writing images'):
    coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(SIZE), np.float32)
    image = image + random.normal(0, 8, (height, width, 1))
    split = 'train' if i < count else 'test'  # which nobody reads
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
      top / split / str(i % 2) / f'{i}.jpg', quality=90
    )


def _has(python: str, package: str) -> bool:
  """Whether a Python finds a package."""
  found = f'import importlib.util as u; exit(u.find_spec({package!r}) is None)'
  try:
    return not subprocess.run([python, '-c', found], check=False).returncode
  except OSError as error:
    raise UserError(
      f'--torch_python: {python} cannot be run: {error.strerror}; name a '
      'Python that has PyTorch or TensorFlow'
    ) from error


def _pass(python: str, name: str, folder: str) -> float:
  """Images a second of one pass."""
  how = map(str, (name, folder, SIDE, BATCH, loader.workers()))
  own = dict(os.environ)
  if name == 'jaxkd':
    own['PYTHONPATH'] = str(CHILD.parents[2])
  else:  # it should see none of this Python's packages
    own.pop('PYTHONPATH', None)
  done = subprocess.run(
    [python, str(CHILD), *how], capture_output=True, text=True, env=own
  )
  if done.returncode:
    said = (done.stderr.strip().splitlines() or ['without a word'])[-1]
    raise UserError(f'--data: {LOADERS[name][0]} failed: {said}')
  return json.loads(done.stdout.splitlines()[-1])


def table(measured: Mapping[str, Any]) -> Any:
  """A measurement for the terminal."""
  return data_speed.table(measured)
