"""Pictures of examples: a row for each, with panels side by side."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch


def panels(
  rows: int, titles: Sequence[str], size: tuple[float, float]
) -> tuple[Figure, np.ndarray]:
  """A figure and its axes, [rows, columns].

  Args:
    rows: how many examples there are.
    titles: of the columns.
    size: width and height, inches.
  """
  figure = Figure(figsize=size, layout='constrained')
  figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
  FigureCanvasAgg(figure)
  axes = figure.subplots(rows, len(titles), squeeze=False)
  for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
  for ax, title in zip(axes[0], titles, strict=True):
    ax.set_title(title, fontsize='small')
  return figure, axes


def legend(figure: Figure, marks: Iterable[Patch], columns: int) -> None:
  """A legend below the panels.

  Args:
    figure: what it is of.
    marks: patches with labels.
    columns: of the legend.
  """
  figure.legend(
    handles=list(marks),
    loc='outside lower center',
    ncols=columns,
    frameon=False,
    fontsize='x-small',
    handlelength=1.0,
    handleheight=1.0,
    columnspacing=1.0,
  )
