"""How fast convolutions are: those of `jaxkd.models.convolution` and XLA's.

Each is timed forwards and backwards, as a layer of a net has it: alone, in a
loop, and for the members of a population. On an accelerator both are the same
program.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.table import Table
from rich.text import Text

from benchmarks import speed
from jaxkd import compilation
from jaxkd.models import convolution
from jaxkd.report import wording

SECONDS = 10  # that a row may take, or about that
BATCH = 64
ROUNDS, MEMBERS = 4, 5
IN_LOOP = 8  # images, as XLA's own may take a minute for 64
LAYOUT = ('NHWC', 'HWIO', 'NHWC')

_WHOSE = 'XLA', 'ours'
# How many values and gradients a call has.
_PLACES = {'alone': 1, 'loop': ROUNDS, 'members': MEMBERS}


class Layer(NamedTuple):
  """A convolution: pixels along a side, channels, and how the kernel moves."""

  size: int
  width_in: int
  width_out: int
  kernel: int = 3
  stride: int = 1
  groups: int = 1


# Of residual nets with 16 and with 64 channels, MobileNet and ShuffleNet.
LAYERS = (
  Layer(32, 3, 16),
  Layer(32, 16, 16),
  Layer(32, 16, 32, stride=2),
  Layer(16, 32, 32),
  Layer(16, 32, 64, kernel=1, stride=2),
  Layer(8, 64, 64),
  Layer(32, 64, 64),
  Layer(16, 128, 128),
  Layer(8, 256, 256),
  Layer(16, 96, 24, kernel=1),
  Layer(16, 96, 96, groups=96),
  Layer(16, 96, 96, stride=2, groups=96),
  Layer(16, 240, 240, kernel=1, groups=3),
)


def measure(
  samples: int,
  stop: threading.Event | None = None,
  *,
  layers: tuple[Layer, ...] = LAYERS,
  batch: int = BATCH,
  seconds: float = SECONDS,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Milliseconds of the value and gradient of each layer, ours and XLA's.

  Args:
    samples: how many times of each to take, or fewer.
    stop: when set, the measurement ends.
    layers: what to measure.
    batch: images in a batch.
    seconds: about how long each layer may take.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
  """
  table = []
  with stage('convolutions', len(layers)) as show:
    for number, layer in enumerate(layers, 1):
      speed.check_stop(stop)
      programs = _programs(layer, batch)
      times = speed.interleaved(programs, samples, stop, seconds=seconds)
      table.append(_row(layer, batch, times))
      show(number, {})
  return speed.measurement(
    'Convolutions',
    table,
    [
      f'value and gradient; a loop has {ROUNDS} rounds with at most {IN_LOOP} '
      f'images, a population {MEMBERS} members, and the times are of one; '
      'what is called XLA is compiled by jax.jit as it is'
    ],
  )


def _programs(layer: Layer, batch: int) -> dict[str, speed.Program]:
  """XLA's convolution and ours, in each place."""
  draw = np.random.default_rng(0)
  shapes = (
    (batch, layer.size, layer.size, layer.width_in),
    (
      *(layer.kernel, layer.kernel),
      *(layer.width_in // layer.groups, layer.width_out),
    ),
  )
  one = tuple(jnp.float32(draw.normal(size=shape)) for shape in shapes)
  padding = ((layer.kernel // 2,) * 2,) * 2

  def gradient(function):
    def loss(x, kernel):
      strides = (layer.stride, layer.stride)
      y = function(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=LAYOUT,
        feature_group_count=layer.groups,
      )
      return jnp.square(y).sum()

    return jax.value_and_grad(loss, (0, 1))

  x, kernel = one
  several = lambda x, number: jnp.stack([x] * number)  # noqa: E731
  rounds = several(x[:IN_LOOP], ROUNDS), several(kernel, ROUNDS)
  members = several(x, MEMBERS), several(kernel, MEMBERS)

  programs = {}
  for whose, function, jit in (
    ('XLA', lax.conv_general_dilated, jax.jit),
    ('ours', convolution.conv_general_dilated, compilation.jit),
  ):
    run = gradient(function)
    looped = lambda x, k, run=run: lax.map(lambda pair: run(*pair), (x, k))  # noqa: E731
    programs[f'alone, {whose}'] = speed.again(run, *one, jit=jit)
    programs[f'loop, {whose}'] = speed.again(looped, *rounds, jit=jit)
    programs[f'members, {whose}'] = speed.again(
      jax.vmap(run), *members, jit=jit
    )
  return programs


def _row(
  layer: Layer, batch: int, times: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  row = {
    'layer': speed.by(layer.kernel, layer.kernel)
    + f', {layer.width_in} → {layer.width_out}'
    + f', stride {layer.stride}' * (layer.stride > 1)
    + f', {layer.groups} groups' * (layer.groups > 1),
    'shapes': speed.by(batch, layer.size, layer.size, layer.width_in),
  }
  for place, number in _PLACES.items():
    for whose in _WHOSE:
      taken = 1e3 * np.median(times[f'{place}, {whose}']) / number
      row[f'{place}, {whose} ms'] = float(f'{taken:.3g}')
    ratios = times[f'{place}, ours'] / times[f'{place}, XLA']
    row[f'{place}, ratio'] = float(f'{np.median(ratios):.3g}')
  return row


def table(measured: Mapping[str, Any]) -> Table:
  """The measurement for the terminal, XLA's time before ours."""
  made = speed.frame(measured, ': ms of XLA → ours')
  made.add_column('layer')
  for place in _PLACES:
    made.add_column(place, justify='right')
  for row in measured['rows']:
    layer = Text.assemble(row['layer'], (f'\n{row["shapes"]}', 'dim'))
    made.add_row(
      layer,
      *(
        ' → '.join(wording.plain(row[f'{place}, {w} ms']) for w in _WHOSE)
        for place in _PLACES
      ),
    )
  return made
