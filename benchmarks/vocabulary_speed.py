"""Losses over large vocabularies: in chunks of the classes, and plain.

The value and the gradient of a loss by the hidden states and the head of the
student, of logits that are kept as factors and of logits as arrays.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from benchmarks import speed
from benchmarks.loss_speed import temporaries
from jaxkd import losses
from jaxkd.logits import Factored
from jaxkd.report import wording

SECONDS = 60  # that a loss may take, or about that
NAMES = 'cross_entropy', 'kl', 'reverse_kl', 'jensen_shannon', 'total_variation'
TOKENS, CLASSES, WIDTH = 1024, 32_768, 256

_HOW = 'plain', 'chunks'


def measure(
  samples: int,
  stop: threading.Event | None = None,
  *,
  names: Sequence[str] = NAMES,
  shape: tuple[int, int, int] = (TOKENS, CLASSES, WIDTH),
  seconds: float = SECONDS,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Milliseconds and temporaries of losses, in chunks and plain.

  Args:
    samples: how many times of each to take, or fewer.
    stop: when set, the measurement ends.
    names: of losses that take factors.
    shape: tokens, classes, and the width of the hidden states of both sides.
    seconds: about how long each loss may take.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
  """
  tokens, classes, width = shape
  draw = np.random.default_rng(0)
  normal = lambda *shape: jnp.float32(draw.normal(size=shape))  # noqa: E731
  scale = width**-0.5
  student, teacher = (
    Factored(scale * normal(tokens, width), normal(classes, width))
    for _ in range(2)
  )
  labels = jnp.asarray(draw.integers(0, classes, tokens))
  table = []
  with stage('vocabulary_chunks', len(names)) as show:
    for number, name in enumerate(names, 1):
      speed.check_stop(stop)
      target = labels if name == 'cross_entropy' else teacher
      programs, memory = {}, {}
      for how in _HOW:
        run = _gradient(getattr(losses, name), dense=how == 'plain')
        programs[how] = speed.again(run, student, target)
        memory[how] = temporaries(run, student, target)
      times = speed.interleaved(programs, samples, stop, seconds=seconds)
      table.append(_row(name, shape, times, memory))
      show(number, {})
  return speed.measurement(
    'vocabulary_chunks',
    table,
    [
      'Value and gradient by the hidden states and the head of the student. '
      'Temporaries are what the compiled program needs at its peak beside its '
      'arguments and results, the gradients among them, as its own analysis '
      'has it.'
    ],
  )


def _gradient(loss: Callable, *, dense: bool) -> Callable:
  """The value and gradient of a loss's mean."""

  def mean(student, target):
    if dense:
      student = student.dense()
      target = target.dense() if isinstance(target, Factored) else target
    return loss(student, target).mean()

  return jax.value_and_grad(mean)


def _row(
  name: str,
  shape: tuple[int, int, int],
  times: Mapping[str, np.ndarray],
  memory: Mapping[str, float | None],
) -> dict[str, Any]:
  row: dict[str, Any] = {'loss': name, 'shapes': speed.by(*shape)}
  for how in _HOW:
    row[f'{how}, ms'] = float(f'{1e3 * np.median(times[how]):.3g}')
    row[f'{how}, MiB'] = memory[how]
  ratio = np.median(times['chunks'] / times['plain'])
  return {**row, 'ratio': float(f'{ratio:.3g}')}


def table(measured: Mapping[str, Any]) -> Table:
  """The measurement for the terminal, plain before chunks."""
  made = speed.frame(measured, ': plain → chunks')
  made.add_column('loss')
  made.add_column('shapes', style='dim')
  for name in 'ms', 'MiB':
    made.add_column(name, justify='right')
  for row in measured['rows']:
    both = (
      ' → '.join(wording.plain(row[f'{how}, {what}']) for how in _HOW)
      for what in ('ms', 'MiB')
    )
    made.add_row(row['loss'], row['shapes'], *both)
  return made
