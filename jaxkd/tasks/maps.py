"""Draws images with their label maps and predictions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colors, patches
from matplotlib.figure import Figure

from jaxkd.files import replacing
from jaxkd.tasks.panels import legend, panels

BACKGROUND, IGNORED = '#e9e7e2', '#26262b'
_CELL = 1.15  # inches
_LETTER, _MARK = 0.06, 0.4  # of the legend, inches


def draw(
  path: str | Path,
  images: np.ndarray,
  truth: np.ndarray,
  valid: np.ndarray,
  predictions: Mapping[str, np.ndarray],
  classes: Sequence[str],
) -> None:
  """Draws a row for each image: it, its labels, and what nets predict.

  Args:
    path: the PNG file to write.
    images: uint8, or floats from 0 to 1, [n, H, W, 1 or 3].
    truth: class numbers, int [n, H, W].
    valid: which of them count, bool [n, H, W]; the others are dark.
    predictions: what to call it -> class numbers, int [n, H, W], of everything.
    classes: their names; one called background is pale.

  Raises:
    ValueError: no image, or maps that are not as the images are.
    UserError: the file cannot be written.
  """
  figure = drawn(images, truth, valid, predictions, classes)
  with replacing(path) as draft:
    figure.savefig(draft, format='png', dpi=150)


def drawn(
  images: np.ndarray,
  truth: np.ndarray,
  valid: np.ndarray,
  predictions: Mapping[str, np.ndarray],
  classes: Sequence[str],
) -> Figure:
  """The picture of `draw`."""
  maps = {'labels': truth, **predictions}
  for name, found in {**maps, 'valid': valid}.items():
    if not len(images) or found.shape != images.shape[:3]:
      raise ValueError(
        f'{name} is {found.shape}, and the images are {images.shape}'
      )
  palette = _palette(classes)
  rows, columns = len(images), 1 + len(maps)
  entries = [*classes, 'not counted']
  entry = _MARK + _LETTER * max(map(len, entries))
  width = max(_CELL * columns, entry)
  side_by_side = min(len(entries), int(width / entry))
  below = 0.16 * math.ceil(len(entries) / side_by_side)
  figure, axes = panels(
    rows, ('image', *maps), (width, _CELL * rows + below + 0.4)
  )
  for row in range(rows):
    image = images[row]
    shown = [image.repeat(3, -1) if image.shape[-1] == 1 else image]
    shown += [palette[found[row]] for found in maps.values()]
    shown[1] = np.where(valid[row][..., None], shown[1], colors.to_rgb(IGNORED))
    for ax, pixels in zip(axes[row], shown, strict=True):
      ax.imshow(pixels, interpolation='nearest')
  marks = [
    patches.Patch(facecolor=colour, label=name)
    for name, colour in zip(
      entries, [*palette, colors.to_rgb(IGNORED)], strict=True
    )
  ]
  legend(figure, marks, side_by_side)
  return figure


def _palette(classes: Sequence[str]) -> np.ndarray:
  """A colour for each class, [K, 3]."""
  named = [name for name in classes if name != 'background']
  if len(named) <= 20:
    sequence = 'tab10' if len(named) <= 10 else 'tab20'
    found = iter(matplotlib.color_sequences[sequence])
  else:
    found = iter(matplotlib.colormaps['turbo'](np.linspace(0, 1, len(named))))
  return np.array(
    [
      colors.to_rgb(BACKGROUND if name == 'background' else next(found))
      for name in classes
    ]
  )
