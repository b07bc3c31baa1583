"""What of a net does nothing in training, in sentences."""

from collections.abc import Collection

from jaxkd.types import Idle

SHOWN = 3  # layers


def said(idle: Idle) -> list[str]:
  """Sentences that tell the user; none where nothing is idle.

  The usual reason is that the net is not told that it trains.
  """
  still = dict.fromkeys(path.rpartition('/')[0] for path in idle.statistics)
  return [
    f'{what.format(_some(layers))}; unless that is meant, let the model take '
    'the argument train and pass it on'
    for layers, what in (
      (still, 'the statistics of {} do not move in training'),
      (idle.dropout, 'no unit is dropped in training by {}'),
    )
    if layers
  ]


def _some(layers: Collection[str]) -> str:
  """The first names of several."""
  more = len(layers) - SHOWN
  names = ', '.join(name or 'the model' for name in list(layers)[:SHOWN])
  return f'{names} and {more} more' if more > 0 else names
