"""The picture of what nets make of pixels."""

import numpy as np
import pytest
from matplotlib import colors, image

from jaxkd.errors import UserError
from jaxkd.tasks import maps

draw = np.random.default_rng(0)
CLASSES = ('background', 'cat', 'dog')
IMAGES = draw.integers(0, 256, (2, 5, 4, 3), np.uint8)
TRUTH = draw.integers(0, 3, (2, 5, 4))
VALID = draw.random((2, 5, 4)) < 0.7
PREDICTIONS = {'student': TRUTH, 'distilled': (TRUTH + 1) % 3}


def test_a_row_for_each_image_and_a_colour_for_each_class():
  figure = maps.drawn(IMAGES, TRUTH, VALID, PREDICTIONS, CLASSES)
  titles = [axes.get_title() for axes in figure.axes]
  assert titles[:4] == ['image', 'labels', 'student', 'distilled']
  assert titles[4:] == [''] * 4
  (legend,) = figure.legends
  named = {
    text.get_text(): colors.to_rgb(patch.get_facecolor())
    for text, patch in zip(legend.texts, legend.get_patches(), strict=True)
  }
  assert [*named] == [*CLASSES, 'not counted']
  assert len(set(named.values())) == 4
  palette = np.array([named[name] for name in CLASSES])
  for row in range(2):
    shown = [a.images[0].get_array() for a in figure.axes[4 * row :][:4]]
    np.testing.assert_array_equal(shown[0], IMAGES[row])
    counted = np.where(
      VALID[row][..., None], palette[TRUTH[row]], named['not counted']
    )
    np.testing.assert_allclose(shown[1], counted)
    np.testing.assert_allclose(shown[2], palette[TRUTH[row]])
    np.testing.assert_allclose(shown[3], palette[(TRUTH[row] + 1) % 3])


@pytest.mark.parametrize('count', [10, 20, 40])
def test_many_classes_have_as_many_colours(count):
  names = [*map(str, range(count)), 'background']
  figure = maps.drawn(IMAGES[..., :1] / 255, TRUTH, VALID, {}, names)
  (legend,) = figure.legends
  found = {patch.get_facecolor() for patch in legend.get_patches()}
  assert len(found) == count + 2


def test_the_file(tmp_path):
  path = tmp_path / 'new' / 'maps.png'
  maps.draw(path, IMAGES, TRUTH, VALID, PREDICTIONS, CLASSES)
  assert [p.name for p in path.parent.iterdir()] == ['maps.png']
  assert image.imread(path).ndim == 3
  with pytest.raises(UserError, match='cannot be written: '):
    maps.draw(path / 'x.png', IMAGES, TRUTH, VALID, {}, CLASSES)


def test_maps_must_fit_the_images():
  with pytest.raises(ValueError, match='student is'):
    maps.drawn(IMAGES, TRUTH, VALID, {'student': TRUTH[:1]}, CLASSES)
  with pytest.raises(ValueError, match='labels is'):
    maps.drawn(IMAGES[:0], TRUTH[:0], VALID[:0], {}, CLASSES)
