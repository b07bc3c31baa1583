"""The `:paper` form of every config: it is built, and a step is traced.

No data is read: a source of the published shape stands in for it.
"""

from pathlib import Path

import numpy as np
import pytest

from jaxkd import config as configs
from jaxkd import preflight
from jaxkd.data import sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.errors import UserError

CONFIGS = sorted((Path(__file__).parents[1] / 'configs').glob('*.py'))
# Source -> the shape of an example and the number of classes, as published.
PUBLISHED = {
  'tfds:mnist': ((28, 28, 1), 10),
  'tfds:cifar10': ((32, 32, 3), 10),
  'tfds:cifar100': ((32, 32, 3), 100),
}


def stand_in(name, **options):
  shape, classes = PUBLISHED[name]
  images = np.broadcast_to(np.zeros((), np.float32), (20 * classes, *shape))
  split = ArrayExamples(images, np.arange(20 * classes) % classes)
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  names = tuple(map(str, range(classes)))
  return sources.Source(name, splits, classes, shape, names)


@pytest.mark.parametrize('file', CONFIGS, ids=lambda path: path.stem)
def test_the_paper_form_can_be_traced(file, tmp_path, monkeypatch):
  if 'no_paper=' in file.read_text():  # says what cannot be had
    with pytest.raises(UserError, match=r'leave :paper out$'):
      configs.load(f'{file}:paper')
    return
  config = configs.plain(configs.load(f'{file}:paper'))
  monkeypatch.setattr(sources, 'load', stand_in)
  _, rounds = preflight.prepare(config, tmp_path)
  assert rounds
