"""How fast convolutions, max pooling and linear maps are: ours and XLA's.

Ours are in `jaxkd.models.convolution`, `jaxkd.models.pooling` and
`jaxkd.models.layers`. Each is timed forwards and backwards, as a layer of a net
has it: alone, in a loop, and for the members of a population. On an accelerator
both are the same program.
"""

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from rich.table import Table
from rich.text import Text

from benchmarks import speed
from jaxkd import compilation
from jaxkd.models import convolution, pooling
from jaxkd.models.layers import rows_dot_general
from jaxkd.report import wording

SECONDS = 10  # that a row may take, or about that
BATCH = 64
ROUNDS, MEMBERS = 4, 5
IN_LOOP = 8  # images, as XLA's own may take a minute for 64
LAYOUT = ('NHWC', 'HWIO', 'NHWC')

_WHOSE = 'XLA', 'ours'
# How many values and gradients a call has.
_PLACES = {'alone': 1, 'loop': ROUNDS, 'members': MEMBERS}

TOKENS = 0  # in place of a kernel's size


class Layer(NamedTuple):
  """A convolution: pixels along a side, channels, and how the kernel moves.

  Without `width_out` it is max pooling; with `TOKENS` as the kernel, a linear
  map of as many tokens as `size` says.
  """

  size: int
  width_in: int
  width_out: int | None
  kernel: int = 3
  stride: int = 1
  groups: int = 1


# Of residual nets with 16 and with 64 channels, MobileNet and ShuffleNet; and
# of transformers for small images and for text.
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
  Layer(32, 64, None, kernel=2, stride=2),
  Layer(56, 64, None, kernel=3, stride=2),
  Layer(16, 32, 96, kernel=TOKENS),
  Layer(16, 64, 192, kernel=TOKENS),
  Layer(128, 80, 192, kernel=TOKENS),
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


def _convolution(layer: Layer, batch: int) -> tuple[dict, list[Array]]:
  """The two convolutions, and an input and a kernel."""

  def bound(function):
    return functools.partial(
      function,
      window_strides=(layer.stride, layer.stride),
      padding=((layer.kernel // 2,) * 2,) * 2,
      dimension_numbers=LAYOUT,
      feature_group_count=layer.groups,
    )

  width_in = layer.width_in // layer.groups
  shapes = (
    (batch, layer.size, layer.size, layer.width_in),
    (layer.kernel, layer.kernel, width_in, layer.width_out),
  )
  draw = np.random.default_rng(0)
  given = [jnp.float32(draw.normal(size=shape)) for shape in shapes]
  return {
    'XLA': bound(lax.conv_general_dilated),
    'ours': bound(convolution.conv_general_dilated),
  }, given


def _pooling(layer: Layer, batch: int) -> tuple[dict, list[Array]]:
  """Both ways of max pooling, and an input."""

  def bound(function):
    return functools.partial(
      function,
      window_shape=(layer.kernel, layer.kernel),
      strides=(layer.stride, layer.stride),
      padding=(((layer.kernel - 1) // 2,) * 2,) * 2,
    )

  shape = (batch, layer.size, layer.size, layer.width_in)
  x = jnp.float32(np.random.default_rng(0).normal(size=shape))
  return {'XLA': bound(nnx.max_pool), 'ours': bound(pooling.max_pool)}, [x]


def _linear(layer: Layer, batch: int) -> tuple[dict, list[Array]]:
  """Both linear maps, and an input and a kernel."""
  shapes = (
    (batch, layer.size, layer.width_in),
    (layer.width_in, layer.width_out),
  )
  draw = np.random.default_rng(0)
  given = [jnp.float32(draw.normal(size=shape)) for shape in shapes]
  last = dict(dimension_numbers=(((2,), (0,)), ((), ())))
  return {
    'XLA': functools.partial(lax.dot_general, **last),
    'ours': functools.partial(rows_dot_general, **last),
  }, given


def _programs(layer: Layer, batch: int) -> dict[str, speed.Program]:
  """XLA's operation and ours, in each place."""
  if layer.kernel == TOKENS:
    functions, given = _linear(layer, batch)
  elif layer.width_out:
    functions, given = _convolution(layer, batch)
  else:
    functions, given = _pooling(layer, batch)
  several = lambda x, number: jnp.stack([x] * number)  # noqa: E731
  rounds = [several(x, ROUNDS) for x in (given[0][:IN_LOOP], *given[1:])]
  members = [several(x, MEMBERS) for x in given]

  programs = {}
  for whose, jit in (('XLA', jax.jit), ('ours', compilation.jit)):

    def loss(*given, function=functions[whose]):
      return jnp.square(function(*given)).sum()

    run = jax.value_and_grad(loss, tuple(range(len(given))))
    looped = lambda *xs, run=run: lax.map(lambda one: run(*one), xs)  # noqa: E731
    programs[f'alone, {whose}'] = speed.again(run, *given, jit=jit)
    programs[f'loop, {whose}'] = speed.again(looped, *rounds, jit=jit)
    programs[f'members, {whose}'] = speed.again(
      jax.vmap(run), *members, jit=jit
    )
  return programs


def _row(
  layer: Layer, batch: int, times: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  image = layer.kernel != TOKENS
  row = {
    'layer': (speed.by(layer.kernel, layer.kernel) if image else 'linear')
    + (
      f', {layer.width_in} → {layer.width_out}'
      if layer.width_out
      else f' max pooling, {layer.width_in}'
    )
    + f', stride {layer.stride}' * (layer.stride > 1)
    + f', {layer.groups} groups' * (layer.groups > 1),
    'shapes': speed.by(batch, *(layer.size,) * (1 + image), layer.width_in),
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
