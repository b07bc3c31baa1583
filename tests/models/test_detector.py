"""The detector: shapes, first scores, anchors, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import boxes, models
from jaxkd.errors import UserError
from jaxkd.types import Idle

SMALL = dict(widths=(4, 8), blocks=1, anchors=((8, 8), (4, 12)))


def build(**options):
  return models.build(
    'detector', num_classes=3, input_shape=(16, 24, 3), **{**SMALL, **options}
  )


@pytest.fixture(scope='module')
def outputs():
  """In bfloat16, of the second image twice."""
  net = build(dtype='bfloat16', taps=('features',))
  assert net.idle() == Idle()
  images = np.random.default_rng(0).random((2, 16, 24, 3), np.float32)
  images = images[[0, 1, 1]]
  run = jax.jit(
    lambda key, x: net.apply(net.init(key), x)[0],
    compiler_options={'xla_backend_optimization_level': 0},
  )
  return jax.tree.map(np.asarray, run(jax.random.key(0), images))


def test_outputs(outputs):
  shapes = {
    'logits': (3, 4 * 6 * 2, 3),
    'offsets': (3, 4 * 6 * 2, 4),
    'anchors': (3, 4, 6, 2, 4),
    'features': (3, 4, 6, 8),
  }
  assert {name: x.shape for name, x in outputs.items()} == shapes
  for name in ('logits', 'offsets', 'anchors'):
    assert outputs[name].dtype == np.float32
  want = boxes.anchors((16, 24), 4, SMALL['anchors'])
  np.testing.assert_array_equal(outputs['anchors'], [want] * 3)


def test_at_first_hardly_anything_is_an_object(outputs):
  assert jax.nn.sigmoid(outputs['logits']).mean() < 0.05


def test_an_image_does_not_depend_on_the_others(outputs):
  np.testing.assert_array_equal(outputs['logits'][1], outputs['logits'][2])
  assert (outputs['logits'][0] != outputs['logits'][1]).any()


def test_a_logit_and_its_anchor_are_of_one_place():
  """A bright spot changes the logits of the anchors around it most."""
  net = build(blocks=0)
  image = jnp.zeros((1, 16, 24, 3))
  spot = image.at[0, 9:11, 17:19].set(1.0)

  @jax.jit
  def change(key):
    variables = net.init(key)
    found = [net.apply(variables, x)[0] for x in (image, spot)]
    return jnp.abs(found[0]['logits'] - found[1]['logits']).sum(-1), found[0]

  changed, found = change(jax.random.key(0))
  anchors = found['anchors'].reshape(-1, 4)
  top, left, bottom, right = np.asarray(anchors[changed.argmax()]).T
  assert abs((top + bottom) / 2 * 16 - 10) <= 4
  assert abs((left + right) / 2 * 24 - 18) <= 4


def test_the_sizes_of_the_paper_and_of_the_trial():
  def parameters(**options):
    net = models.build('detector', **options)
    return models.count(jax.eval_shape(net.init, jax.random.key(0))['params'])

  digits = dict(num_classes=10, input_shape=(64, 64, 3))
  assert parameters(**digits, widths=(24, 48, 96)) == 366_582
  assert parameters(**digits) == 43_942
  kitti = dict(num_classes=8, input_shape=(384, 1248, 3))
  assert parameters(**kitti, widths=(16, 32, 64, 224)) == 1_630_780


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'widths': ()}, 'one stage or more'),
    ({'widths': (4, 6)}, 'groups=4 does not divide the width 6'),
    ({'anchors': ()}, 'pairs of a height and a width'),
    ({'anchors': ((8, 8), (4, 0))}, 'pairs of a height and a width'),
    ({'anchors': ((8, 8, 8),)}, 'pairs of a height and a width'),
    ({'input_shape': (10,)}, 'takes images of shape'),
  ],
)
def test_what_it_refuses(options, message):
  given = {'num_classes': 3, 'input_shape': (16, 24, 3), **SMALL, **options}
  with pytest.raises(UserError, match=message):
    models.build('detector', **given)
