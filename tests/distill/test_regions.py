"""Masks of where the objects are, and terms under them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import boxes as boxes_lib
from jaxkd import losses
from jaxkd.distill import masks, regions
from jaxkd.distill.term import term
from jaxkd.errors import UserError

# Four rows and columns of cells of 8 pixels, with anchors of 8 and 16 pixels.
GRID = boxes_lib.anchors((32, 32), 8, ((8, 8), (16, 16)))
ANCHORS = jnp.asarray(np.broadcast_to(GRID, (3, *GRID.shape)))
# The anchor of the cell (1, 2); two objects; none.
BOXES = np.zeros((3, 2, 4), np.float32)
BOXES[0, 0] = [0.25, 0.5, 0.5, 0.75]
BOXES[1] = [[0, 0, 0.25, 0.25], [0.5, 0.5, 1, 1]]
VALID = np.array([[True, False], [True, True], [False, False]])
FIELDS = ANCHORS, jnp.asarray(BOXES), jnp.asarray(VALID)


def near(psi):
  return np.asarray(regions.near_anchors(*FIELDS, psi)).astype(int)


def test_near_anchors_at_psi_of_a_half():
  """Only the cell's own anchor is more than half as good as itself: 1 of 1.

  The large anchors around it overlap the object by a quarter at most. Of the
  second image, the large object has the anchors of 16 pixels around its four
  cells, each with an overlap of 9/23, and of the cells next to them 3/29.
  """
  found = near(0.5)
  assert np.argwhere(found[0]).tolist() == [[1, 2]]
  want = np.zeros((4, 4), int)
  want[0, 0] = 1
  want[2:, 2:] = 1
  np.testing.assert_array_equal(found[1], want)
  assert not found[2].any()


def test_near_anchors_at_the_ends():
  assert not near(1.0).any()
  all_touching = near(0.0)
  # Anchors of 16 pixels reach 4 pixels into the cells next to their own.
  want = np.zeros((4, 4), int)
  want[0:3, 1:4] = 1
  np.testing.assert_array_equal(all_touching[0], want)
  assert not all_touching[2].any()


def test_more_psi_is_less_region():
  sizes = [near(psi).sum() for psi in (0, 0.2, 0.4, 0.6, 0.8, 1)]
  assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[3] > 0


def test_psi_is_from_0_to_1():
  with pytest.raises(UserError, match=r'psi=1.5 should be from 0 to 1'):
    near(1.5)


def test_what_fills_up_is_nowhere():
  odd = BOXES.copy()
  odd[0, 1], odd[2] = [0, 0, 1, 1], np.nan
  fields = ANCHORS, jnp.asarray(odd), jnp.asarray(VALID)
  for region in (regions.near_anchors, regions.in_boxes):
    np.testing.assert_array_equal(region(*fields), region(*FIELDS))


def test_in_boxes():
  found = np.asarray(regions.in_boxes(*FIELDS)).astype(int)
  assert np.argwhere(found[0]).tolist() == [[1, 2]]
  assert np.argwhere(found[1]).tolist() == [
    [0, 0],
    [2, 2],
    [2, 3],
    [3, 2],
    [3, 3],
  ]
  assert not found[2].any()


def flat(boxes):
  """A user's own: whether the first box is flat, at each of four places."""
  sides = boxes[:, 0, 2:] - boxes[:, 0, :2]
  return jnp.broadcast_to((sides[:, 0] < sides[:, 1])[:, None], (3, 4))


def as_numbers(boxes):
  return boxes[..., 0]


@pytest.fixture
def scenes(context):
  draw = np.random.default_rng(0)
  maps = draw.normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
  return context._replace(
    batch={
      'id': np.arange(3), 'labels': np.zeros((3, 2), np.int32),
      'boxes': BOXES, 'valid': VALID,
    },
    student={'map': jnp.asarray(maps[0]), 'anchors': ANCHORS},
    teachers={'main': {'map': jnp.asarray(maps[1:])}},
  )  # fmt: skip


def made(mask, **options):
  return term(
    'hint',
    teacher='main',
    at='map',
    mask=mask,
    entry='distill.x',
    **options,
  )


def value(of, context):
  params, state = of.init(jax.random.key(0), context)
  return of.loss(params, state, context)[0]


@pytest.mark.parametrize('mask', ['near_anchors(0.5)', 'in_boxes'])
def test_a_term_compares_the_positions_of_a_region(scenes, mask):
  counts = masks.find(mask, scenes, (), 'x')
  assert counts.dtype == bool and counts.shape == (3, 4, 4)
  gap = scenes.student['map'] - scenes.teachers['main']['map'][0]
  each = np.square(gap).mean(-1) * counts
  found = value(made(mask), scenes)
  np.testing.assert_allclose(
    found, each.sum((1, 2)) * 3 / counts.sum(), rtol=1e-5
  )
  # Of one image it is masked_imitation, but for half the number of channels.
  want = losses.masked_imitation(
    scenes.student['map'][:1], scenes.teachers['main']['map'][0, :1], counts[:1]
  )
  one = jax.tree.map(lambda x: x[:1], (scenes.batch, scenes.student))
  alone = scenes._replace(
    batch=one[0],
    student=one[1],
    teachers=jax.tree.map(lambda x: x[:, :1], scenes.teachers),
  )
  np.testing.assert_allclose(value(made(mask), alone) * 5 / 2, want, rtol=1e-5)


def test_an_adapter_sees_all_of_the_map(scenes):
  """Its convolution reaches over the edge of the region."""
  of = made('in_boxes', adapter='conv3x3')
  params, state = of.init(jax.random.key(0), scenes)

  def loss(student):
    given = {**scenes.student, 'map': student}
    return of.loss(params, state, scenes._replace(student=given))[0].sum()

  slope = np.abs(jax.grad(loss)(scenes.student['map'])).sum(-1) > 0
  region = np.asarray(regions.in_boxes(*FIELDS))
  assert slope[0].sum() == 9 and region[0].sum() == 1
  assert not slope[2].any()


def test_without_objects_the_loss_is_0(scenes):
  nobody = scenes._replace(
    batch={**scenes.batch, 'valid': np.zeros_like(VALID)}
  )
  assert not value(made('near_anchors'), nobody).any()


def test_a_region_of_ones_own(scenes):
  mask = masks.find(f'{__name__}:flat', scenes, (), 'x')
  assert mask.tolist() == [[False] * 4] * 3


@pytest.mark.parametrize(
  ('mask', 'message'),
  [
    ('near_anchor(0.5)', r"^distill.x.mask: .*'near_anchor'.*'near_anchors'"),
    ('in_boxs', r"^distill.x.mask: .*'in_boxs'.*'in_boxes'"),
    ('near_anchors(1)', r'^distill.x.mask: .* no position.* must be below 1'),
    ('near_anchors(2)', r'^distill.x.mask: near_anchors: psi=2.0 should be'),
    ('near_anchors(0.5, 3)', r'distill.x.mask: the region near_anchors takes'),
    ('near_anchors(0.5)|in_boxes', r'distill.x.mask: .* several masks'),
    (f'{__name__}:as_numbers', r'distill.x.mask: .*gives float32\[3, 2\], and'),
    (('in_boxes', 'map'), r"distill.x.mask: .*'in_boxes'"),
    ('valid', r"distill.x.mask: 'valid' says which objects there are, and the"),
    ('', r"distill.x.mask: it is empty, and 'valid' of the batch, \[3, 2\], "),
  ],
)
def test_regions_that_are_not_there(scenes, mask, message):
  with pytest.raises(UserError, match=message):
    value(made(mask), scenes)


def test_what_a_region_needs_is_named(scenes):
  student = {'map': scenes.student['map']}
  with pytest.raises(UserError, match="field or output for in_boxes 'anchors'"):
    value(made('in_boxes'), scenes._replace(student=student))
