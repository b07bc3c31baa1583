"""Draws images with the boxes of their objects and of predictions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patches, patheffects
from matplotlib.figure import Figure

from jaxkd.files import replacing
from jaxkd.tasks.panels import legend, panels

_CELL = 1.3  # inches
_LETTER, _MARK = 0.06, 0.4  # of the legend, inches
# Around boxes, whose colour an image may have too.
_OUTLINE = [patheffects.withStroke(linewidth=2.4, foreground='white')]
_FEW = 20  # classes, up to which each has a colour and a place in the legend

# Boxes [n, 4] and classes [n]; of predictions also scores [n].
Objects = tuple[np.ndarray, ...]


def draw(
  path: str | Path,
  images: np.ndarray,
  found: Mapping[str, Sequence[Objects]],
  classes: Sequence[str],
  title: str = '',
) -> None:
  """Draws a row for each image: it, and it with the boxes of each column.

  Args:
    path: the PNG file to write.
    images: uint8, or floats from 0 to 1, [n, H, W, 1 or 3].
    found: what to call a column -> the objects of each image.
    classes: their names. More than twenty are named beside the boxes, and not
      by colours.
    title: above the columns.

  Raises:
    ValueError: no image, or objects of another number of images.
    UserError: the file cannot be written.
  """
  figure = drawn(images, found, classes, title)
  with replacing(path) as draft:
    figure.savefig(draft, format='png', dpi=150)


def drawn(
  images: np.ndarray,
  found: Mapping[str, Sequence[Objects]],
  classes: Sequence[str],
  title: str = '',
) -> Figure:
  """The picture of `draw`."""
  for name, objects in found.items():
    if not len(images) or len(objects) != len(images):
      raise ValueError(
        f'{name} is of {len(objects)} images, and there are {len(images)}'
      )
  few = len(classes) <= _FEW
  sequence = 'tab10' if len(classes) <= 10 else 'tab20'
  colours = matplotlib.color_sequences[sequence]
  height, width = images.shape[1:3]
  rows, columns = len(images), 1 + len(found)
  entry = _MARK + _LETTER * max(map(len, classes))
  across = max(_CELL * columns, entry)
  side_by_side = max(1, min(len(classes), int(across / entry)))
  below = 0.16 * math.ceil(len(classes) / side_by_side) if few else 0
  figure, axes = panels(
    rows,
    ('image', *found),
    (across, _CELL * rows * height / width + below + 0.4),
  )
  for row in range(rows):
    image = images[row].repeat(3 if images.shape[-1] == 1 else 1, -1)
    for ax in axes[row]:
      # In pixels from the upper left corner, where the axes begin too.
      ax.imshow(image, extent=(0, width, height, 0), interpolation='nearest')
    for ax, objects in zip(axes[row, 1:], found.values(), strict=True):
      if not len(objects[row][0]):
        ax.set_xlabel('none', size=5, labelpad=1)
      for box, label, *score in zip(*objects[row], strict=True):
        top, left, bottom, right = np.array(box) * (2 * [height, width])
        colour = colours[label % len(colours)]
        ax.add_patch(
          patches.Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=colour,
            linewidth=1.2,
            path_effects=_OUTLINE,
          )
        )
        said = [] if few else [classes[label]]
        said += [f'{each:.2f}' for each in score]
        ax.text(
          left, top, ' '.join(said), color=colour, size=4, va='bottom'
        ).set_path_effects(_OUTLINE)
  if title:
    figure.suptitle(title, fontsize='x-small')
  if few:
    marks = [
      patches.Patch(facecolor=colours[i], label=name)
      for i, name in enumerate(classes)
    ]
    legend(figure, marks, side_by_side)
  return figure
