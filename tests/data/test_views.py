"""Views are pure functions of seed, epoch, example and the ops' names."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import shapes
from jaxkd.data import views
from jaxkd.errors import UserError

# One view of every op, with the shape that it makes of (8, 8, 3).
OPS = {
  'noise': ('noise(0.1)', (8, 8, 3)),
  'shift': ('shift(2)', (8, 8, 3)),
  'pad_and_crop': ("pad_and_crop(2, mode='reflect')", (8, 8, 3)),
  'flip': ('flip', (8, 8, 3)),
  'rotate': ('rotate(40)', (8, 8, 3)),
  'brightness': ('brightness(0.2)', (8, 8, 3)),
  'contrast': ('contrast(0.5, 1.5)', (8, 8, 3)),
  'cutout': ('cutout(3)', (8, 8, 3)),
  'resolution': ('resolution(4)', (8, 8, 3)),
  'resize': ('resize(5)', (5, 5, 3)),
  'random_crop': ('random_crop(5)', (5, 5, 3)),
  'centre': ('centre(5)', (5, 5, 3)),
  'blur': ('blur(0.8)', (8, 8, 3)),
  'standardize': ('standardize(0.5, (0.1, 0.2, 0.4))', (8, 8, 3)),
  'grayscale': ('grayscale', (8, 8, 1)),
  'redraw': ('redraw|noise(0.1)', (8, 8, 3)),
  'dihedral': ('dihedral', (8, 8, 3)),
  'dihedral_all': ('dihedral_all', (8, 8, 8, 3)),
  'gradient': ('gradient', (8, 8, 3)),
  'haar': ('haar', (4, 4, 9)),
  'channel': ('channel(1)', (8, 8, 1)),
  'segments': ('segments(3)', (3, 8, 8, 1)),
  'random_resized_crop': ('random_resized_crop(5)', (5, 5, 3)),
  'color_jitter': ('color_jitter(0.4, 0.4, 0.4, 0.1)', (8, 8, 3)),
  'rand_augment': ('rand_augment(2, 20)', (8, 8, 3)),
  'trivial_augment': ('trivial_augment', (8, 8, 3)),
  'random_erasing': ('random_erasing(1.0)', (8, 8, 3)),
}
IMAGES = np.random.default_rng(0).random((6, 8, 8, 3)).astype(np.float32)


@functools.cache
def compiled(text):
  view = views.parse(text)
  return jax.jit(
    lambda inputs, seed, epoch, id: views.apply(
      view, inputs, seed=seed, epoch=epoch, id=id
    )
  )


def see(text, inputs=IMAGES, *, seed=0, epoch=0, ids=None):
  """What a view makes of a batch, all of it in one epoch."""
  ids = np.arange(len(inputs)) if ids is None else np.asarray(ids)
  epochs = np.full(len(ids), epoch, np.int32)
  made = compiled(text)(inputs, np.uint32(seed), epochs, ids.astype(np.int32))
  return np.asarray(made)


def test_every_op_is_tried():
  ops = [
    name
    for name, function in inspect.getmembers(views, inspect.isfunction)
    if [*inspect.signature(function).parameters][:2] == ['key', 'image']
  ]
  assert sorted([*OPS, 'part']) == ops  # that one is of several arrays


@pytest.mark.parametrize(('text', 'shape'), OPS.values(), ids=OPS.keys())
def test_an_op_is_pure_and_of_the_announced_shape(text, shape, strict_dtypes):
  made = see(text)
  assert made.dtype == np.float32
  assert made.shape[1:] == shape
  assert views.output_shape(views.parse(text), (8, 8, 3)) == shape
  np.testing.assert_array_equal(made, see(text))
  assert np.isfinite(made).all()
  assert not np.array_equal(made, IMAGES)


def test_a_part_of_an_example_of_several_arrays():
  parts = {'image': IMAGES, 'motion': IMAGES[..., :2]}
  made = see("part('motion')", parts, ids=range(6))
  np.testing.assert_array_equal(made, IMAGES[..., :2])
  view = views.parse("part('image')|centre(5)")
  shape = {name: x.shape[1:] for name, x in parts.items()}
  assert views.output_shape(view, shape) == (5, 5, 3)
  assert not views.draws(view, shape)
  assert views.part_of(view) == 'image'
  assert views.part_of(views.parse('flip')) == ''
  with pytest.raises(UserError, match='an example has no parts'):
    views.output_shape(view, (8, 8, 3))


def test_segments_are_the_images_along_the_channels():
  two = np.concatenate([IMAGES, 1 - IMAGES], axis=-1)
  np.testing.assert_array_equal(
    see('segments(2)', two), np.stack([IMAGES, 1 - IMAGES], axis=1)
  )
  with pytest.raises(UserError, match=r'does not divide 3 .* data\.kw\.count'):
    views.output_shape(views.parse('segments(2)'), (8, 8, 3))


def test_the_empty_view_only_makes_floats():
  images = np.array([[[0], [51]], [[255], [102]]], np.uint8)
  np.testing.assert_allclose(see('', images), images / np.float32(255))
  np.testing.assert_array_equal(see(' ', IMAGES), IMAGES)
  assert views.parse('') == views.View('', ())


def test_bytes_and_the_floats_they_stand_for_look_the_same():
  images = (IMAGES * 255).astype(np.uint8)
  floats = (images / 255).astype(np.float32)
  np.testing.assert_allclose(
    see('grayscale', images), see('grayscale', floats), atol=1e-6
  )


UTTERANCE = {
  'prefix': np.zeros((4, 3), np.int32),
  'source': {
    'frames': np.ones((4, 20, 6), np.float32),
    'valid': np.arange(20)[None] < np.array([20, 12, 0, 5])[:, None],
  },
}


def test_spec_augment_hides_bands_and_times():
  view = views.parse('spec_augment(1, 3, 2, 4)')
  shape = shapes.example(UTTERANCE)
  assert views.output_shape(view, shape) == shape
  assert views.draws(view, shape)
  ids, run = np.arange(4, dtype=np.int32), jax.jit(functools.partial(
    views.apply, view, seed=3))  # fmt: skip
  seen = set()
  for epoch in range(12):
    found = run(UTTERANCE, epoch=np.full(4, epoch, np.int32), id=ids)
    np.testing.assert_array_equal(found['prefix'], UTTERANCE['prefix'])
    frames = np.asarray(found['source']['frames'])
    np.testing.assert_array_equal(
      found['source']['valid'], UTTERANCE['source']['valid']
    )
    for own, count in zip(frames, (20, 12, 0, 5), strict=True):
      bands, times = (own == 0).all(0), (own == 0).all(1)
      assert (own == ~(bands[None] | times[:, None])).all()
      if times.all() or bands.all():
        continue
      assert bands.sum() <= 3 and np.diff(np.flatnonzero(bands), n=2).sum() == 0
      assert times.sum() <= 8
      assert not times[max(count, 4) :].any()  # none is beyond the end
      seen.add((bands.sum(), times.sum()))
  assert len(seen) > 8  # widths are drawn
  again = run(UTTERANCE, epoch=np.full(4, 11, np.int32), id=ids)
  np.testing.assert_array_equal(again['source']['frames'], frames)
  plain = views.parse('spec_augment(0, 0, 0, 0)')
  found = views.apply(
    plain, np.ones((1, 5, 2)), seed=0, epoch=ids[:1], id=ids[:1]
  )
  assert (found == 1).all()


@pytest.mark.parametrize(
  ('text', 'shape', 'message'),
  [
    ('spec_augment(1, 7, 1, 1)', (20, 6), r'widest=7.* of 20 frames of 6'),
    ('spec_augment(1, 1, 1, 21)', (20, 6), 'longest=21'),
    ('spec_augment(-1, 1, 1, 1)', (20, 6), 'bands=-1'),
    ('spec_augment(1, 1, 1, 1)', (8, 8, 3), r'needs frames.*got \(8, 8, 3\)'),
    ('spec_augment(1, 1, 1, 1)', {'a': (3, 2)}, 'an example has none'),
  ],
)
def test_what_is_no_speech_is_not_augmented(text, shape, message):
  with pytest.raises(UserError, match=message):
    views.output_shape(views.parse(text), shape)


def test_a_hint_belongs_to_the_document_that_follows_it():
  view = views.parse('with_hint')
  segments = [[0, 0, 1, 1, 2, 0], [1, 1, 2, 2, 0, 0], [0] * 6]
  positions = [[0, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0], [0] * 6]
  tokens = np.arange(18, dtype=np.int32).reshape(3, 6)
  rows = {'tokens': tokens} | {
    name: np.array(x, np.int32)
    for name, x in (('segments', segments), ('positions', positions))
  }
  ids = np.arange(3, dtype=np.int32)
  found = views.apply(view, rows, seed=0, epoch=ids, id=ids)
  assert not views.draws(view, shapes.example(rows))
  np.testing.assert_array_equal(found['tokens'], tokens)
  np.testing.assert_array_equal(
    found['segments'], [[1, 1, 1, 1, 2, 0], *segments[1:]]
  )
  np.testing.assert_array_equal(
    found['positions'], [[0, 1, 2, 3, 0, 0], *positions[1:]]
  )
  with pytest.raises(UserError, match='with_hint needs rows of tokens'):
    views.output_shape(view, shapes.example(tokens))


def test_dihedral_all_gives_the_eight_symmetries_of_a_square():
  made = see('dihedral_all')[0]
  expected = [np.rot90(x, k) for x in (IMAGES[0],) for k in range(4)]
  expected += [np.rot90(IMAGES[0].transpose(1, 0, 2), k) for k in range(4)]
  assert len(made) == len(np.unique(made.reshape(8, -1), axis=0)) == 8
  for one in expected:
    assert any(np.array_equal(one, other) for other in made)
  drawn = [see('dihedral', epoch=epoch)[0] for epoch in range(40)]
  assert len(np.unique(np.stack(drawn).reshape(40, -1), axis=0)) == 8
  for one in drawn:
    assert any(np.array_equal(one, other) for other in made)


def test_gradient_is_steep_where_pixels_differ():
  ramp = np.tile(3.0 * np.arange(5)[:, None, None], (1, 1, 4, 1))
  ramp = (ramp + 4.0 * np.arange(4)[None, None, :, None]).astype(np.float32)
  np.testing.assert_allclose(see('gradient', ramp), np.full((1, 5, 4, 1), 5.0))


def test_haar_is_an_orthonormal_transform_without_its_mean():
  made = see('haar')
  blocks = IMAGES.reshape(6, 4, 2, 4, 2, 3).transpose(0, 1, 3, 5, 2, 4)
  around = blocks - blocks.mean((-2, -1), keepdims=True)
  np.testing.assert_allclose(
    (made.reshape(6, 4, 4, 3, 3) ** 2).sum(3),
    (around**2).sum((-2, -1)),
    rtol=1e-4,
  )
  columns = np.tile([[[0.0], [1.0]]], (1, 2, 1, 1)).astype(np.float32)
  assert see('haar', columns).tolist() == [[[[-1.0, 0.0, 0.0]]]]


def test_channel_is_one_of_them():
  np.testing.assert_array_equal(see('channel(2)'), IMAGES[..., 2:])


class TestDraws:
  def test_depend_on_seed_epoch_and_example(self):
    images = np.repeat(IMAGES[:1], 6, axis=0)
    drawn = see('noise(0.1)', images)
    assert len(np.unique(drawn.reshape(6, -1), axis=0)) == 6
    assert not np.isclose(drawn, see('noise(0.1)', images, seed=1)).any()
    assert not np.isclose(drawn, see('noise(0.1)', images, epoch=1)).any()

  def test_do_not_depend_on_the_place_in_the_batch(self):
    order = np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_array_equal(
      see('noise(0.1)', IMAGES[order], ids=order), see('noise(0.1)')[order]
    )

  def test_are_shared_by_views_whatever_else_these_do(self):
    noise = see('noise(0.1)') - IMAGES
    other = see('brightness(0.2)|noise(0.2)') - see('brightness(0.2)')
    np.testing.assert_allclose(other, 2 * noise, atol=1e-6)

  def test_of_a_repeated_op_are_new(self):
    once = see('noise(0.1)') - IMAGES
    twice = see('noise(0.1)|noise(0.1)') - IMAGES
    assert abs(np.corrcoef(once.ravel(), (twice - once).ravel())[0, 1]) < 0.1

  def test_are_the_same_in_a_population(self):
    view, ids = views.parse('noise(0.1)'), jnp.arange(6)
    seeds = jnp.array([0, 7], jnp.uint32)
    together = jax.vmap(
      lambda seed: views.apply(
        view, jnp.asarray(IMAGES), seed=seed, epoch=0 * ids, id=ids
      )
    )(seeds)
    alone = np.stack([see('noise(0.1)', seed=seed) for seed in (0, 7)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


class TestOps:
  def test_noise_has_the_standard_deviation(self):
    added = see('noise(0.1)') - IMAGES
    assert np.std(added) == pytest.approx(0.1, rel=0.1)
    assert np.mean(added) == pytest.approx(0, abs=0.01)

  @pytest.mark.parametrize(
    ('text', 'mode'),
    [('shift(2)', 'constant'), ("pad_and_crop(2, mode='reflect')", 'reflect')],
  )
  def test_shift_and_crop_move_by_whole_pixels(self, text, mode):
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode)
    offsets = set()
    for image, made in zip(padded, see(text), strict=True):
      found = [
        (i, j)
        for i in range(5)
        for j in range(5)
        if np.array_equal(image[i : i + 8, j : j + 8], made)
      ]
      assert len(found) == 1
      offsets.update(found)
    assert len(offsets) > 1

  def test_flip_turns_some(self):
    flipped = [
      np.array_equal(made, image[:, ::-1])
      for image, made in zip(IMAGES, see('flip'), strict=True)
    ]
    kept = [
      np.array_equal(made, image)
      for image, made in zip(IMAGES, see('flip'), strict=True)
    ]
    assert any(flipped)
    assert any(kept)
    assert all(a != b for a, b in zip(flipped, kept, strict=True))

  def test_rotate_turns_about_the_centre_within_the_limit(self):
    # A dot at the right edge stays as far from the centre as it is.
    dot = np.zeros_like(IMAGES)
    dot[:, 3:5, 6] = 1
    made = see('rotate(40)', dot)[..., 0]
    rows, columns = np.mgrid[:8, :8] - 3.5
    mass = made.sum(axis=(1, 2))
    row, column = (
      (made * where).sum(axis=(1, 2)) / mass for where in (rows, columns)
    )
    np.testing.assert_allclose(np.hypot(row, column), 2.5, atol=0.15)
    angles = np.degrees(np.arctan2(row, column))
    assert np.abs(angles).max() < 45
    assert np.ptp(angles) > 10

  def test_brightness_adds_one_number(self):
    added = (see('brightness(0.2)') - IMAGES).reshape(6, -1)
    np.testing.assert_allclose(added, added[:, :1] + 0 * added, atol=1e-6)
    assert (np.abs(added) <= 0.2).all()
    assert np.ptp(added) > 0.05

  def test_contrast_scales_about_the_mean_of_each_channel(self):
    centred = IMAGES - IMAGES.mean(axis=(1, 2), keepdims=True)
    made = see('contrast(0.5, 1.5)')
    ratio = (made - made.mean(axis=(1, 2), keepdims=True)) / centred
    ratio = np.median(ratio, axis=(1, 2, 3))
    assert ((ratio >= 0.5) & (ratio <= 1.5)).all()
    assert np.ptp(ratio) > 0.1
    np.testing.assert_allclose(
      made.mean(axis=(1, 2)), IMAGES.mean(axis=(1, 2)), atol=1e-5
    )

  def test_cutout_blanks_at_most_the_square(self):
    blank = (see('cutout(3)') == 0).all(axis=-1)
    for hole in blank:
      rows, columns = np.nonzero(hole)
      assert 4 <= len(rows) <= 9
      assert len(rows) == len(set(rows)) * len(set(columns))
    kept = ~blank[..., None] * IMAGES
    np.testing.assert_array_equal(see('cutout(3)'), kept)

  def test_resolution_keeps_what_few_pixels_show(self):
    flat = np.full((1, 8, 8, 1), 0.3, np.float32)
    np.testing.assert_allclose(see('resolution(4)', flat), flat, atol=1e-6)
    checks = np.indices((8, 8)).sum(axis=0)[None, ..., None] % 2
    made = see('resolution(2)', checks.astype(np.float32))
    np.testing.assert_allclose(made, 0.5, atol=0.05)

  def test_random_crop_takes_any_window_and_centre_the_middle(self):
    np.testing.assert_array_equal(see('centre(4)'), IMAGES[:, 2:6, 2:6])
    many = np.tile(IMAGES[:1], (60, 1, 1, 1))
    places = {
      (i, j)
      for window in see('random_crop(6)', many)
      for i in range(3)
      for j in range(3)
      if (window == IMAGES[0, i : i + 6, j : j + 6]).all()
    }
    assert len(places) == 9

  def test_blur_smooths_and_keeps_flat_images_flat(self):
    flat = np.full((1, 8, 8, 1), 0.3, np.float32)
    np.testing.assert_allclose(see('blur(0.8)', flat), flat, atol=1e-6)
    assert see('blur(0.8)').std() < 0.6 * IMAGES.std()

  def test_standardize_takes_numbers_or_one_a_channel(self):
    np.testing.assert_allclose(
      see('standardize(0.5, (0.1, 0.2, 0.4))'),
      (IMAGES - 0.5) / np.float32([0.1, 0.2, 0.4]),
      rtol=1e-5,
      atol=1e-6,
    )

  def test_grayscale_is_the_luma(self):
    weights = np.float32([0.299, 0.587, 0.114])
    expected = (IMAGES * weights).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(see('grayscale'), expected, atol=1e-3)


STILL = (
  'resolution', 'resize', 'blur', 'standardize', 'grayscale', 'centre',
  'dihedral_all', 'gradient', 'haar', 'channel', 'segments',
)  # fmt: skip


@pytest.mark.parametrize('name', OPS)
def test_it_is_known_what_draws(name):
  view = views.parse(f'{OPS[name][0]}|{OPS["standardize"][0]}')
  if name not in ('grayscale', 'haar', 'channel', 'segments'):  # of others
    assert views.draws(view, (8, 8, 3)) == (name not in STILL)
  alone = views.parse(OPS[name][0])
  assert views.draws(alone, (8, 8, 3)) == (name not in STILL)


def test_ops_of_ones_own_take_any_pytree(tmp_path, monkeypatch):
  (tmp_path / 'my_views.py').write_text(
    'def scale(key, example, by: float = 2.0):\n'
    '  return {name: by * x for name, x in example.items()}\n'
    'alone = 3\n\n'
    'def lonely(example):\n  return example\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  view = views.parse('my_views:scale(by=3)')
  assert view.text == 'my_views:scale(3.0)'
  ids = jnp.arange(2)
  inputs = {'a': jnp.ones((2, 3)), 'b': jnp.ones((2, 1))}
  made = views.apply(view, inputs, seed=0, epoch=ids, id=ids)
  np.testing.assert_array_equal(made['a'], np.full((2, 3), 3.0))
  shapes = {'a': (3,), 'b': (1,)}
  assert views.output_shape(view, shapes) == shapes
  assert not views.draws(view, shapes)
  with pytest.raises(UserError, match=r'x: .* is 3, which is no view'):
    views.parse('my_views:alone', at='x')
  with pytest.raises(UserError, match=r'x: .* is not a function of'):
    views.parse('my_views:lonely', at='x')


def test_views_have_one_canonical_text():
  texts = ['noise(1)|flip', ' noise( std=1.0 ) | flip()', 'noise(1.0)|flip']
  assert {views.parse(text).text for text in texts} == {'noise(1.0)|flip'}
  assert views.parse('pad_and_crop(2)').text == "pad_and_crop(2, 'constant')"


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('nois(0.1)', "no view 'nois'; did you mean 'noise'"),
    ('noise', 'noise takes std: float.*missing'),
    ('noise(0.1, 2)', 'noise takes std: float.*too many'),
    ("noise('a')", "for std, 'a' should be a number"),
    ('shift(1.5)', r'shift takes pixels: int; for pixels, 1\.5 should be'),
    ('shift(True)', 'for pixels, True should be a whole number'),
    ('flip(sideways=1)', 'flip takes no arguments.*sideways'),
    ('noise(0.1)||flip', "cannot read ''"),
    ('noise(0.1', 'cannot read'),
    ('noise(x)', r"cannot read 'noise\(x\)'"),
    ('noise(0.1)(2)', 'cannot read'),
    ("noise(__import__('os'))", 'cannot read'),
    ('no.such.module:op', "cannot import 'no.such.module'"),
  ],
)
def test_views_that_cannot_be_read(text, message):
  with pytest.raises(UserError, match=rf'^students\.s\.views.*{message}'):
    views.parse(text, at='students.s.views')


@pytest.mark.parametrize(
  ('text', 'shape', 'message'),
  [
    ('noise(-1)', (8, 8, 1), 'at least 0'),
    ('shift(-1)', (8, 8, 1), 'at least 0'),
    ('shift(1)', (64,), r'shift needs an image .* got \(64,\)'),
    ('flip', {'a': (8, 8, 1)}, 'flip needs an image .* got dict'),
    ("pad_and_crop(8, mode='reflect')", (8, 8, 1), 'less than the sides'),
    ("pad_and_crop(1, mode='wrap')", (8, 8, 1), 'knows the modes'),
    ('rotate(-1)', (8, 8, 1), 'at least 0'),
    ('brightness(-1)', (8, 8, 1), 'at least 0'),
    ('contrast(2, 1)', (8, 8, 1), '0 <= lo <= hi'),
    ('cutout(0)', (8, 8, 1), 'at least 1'),
    ('resolution(9)', (8, 8, 1), 'from 1 to the shorter side'),
    ('resize(0)', (8, 8, 1), 'at least 1'),
    ('random_crop(9)', (8, 8, 1), 'from 1 to the shorter side'),
    ('centre(0)', (8, 8, 1), 'from 1 to the shorter side'),
    ('blur(0)', (8, 8, 1), 'above 0'),
    ('standardize(0, 0)', (8, 8, 1), 'above 0'),
    ('standardize((0, 0), 1)', (8, 8, 3), 'each of 3 channels'),
    ("standardize(('a',), 1)", (8, 8, 3), 'needs one number'),
    ('grayscale', (8, 8, 1), '3 channels, got 1'),
    ('resize(4)|resolution(6)', (8, 8, 1), 'images of 4x4'),
  ],
)
def test_views_that_do_not_fit_the_data(text, shape, message):
  with pytest.raises(UserError, match=rf'^students\.s\.views: .*{message}'):
    views.output_shape(views.parse(text), shape, at='students.s.views')


def test_what_is_drawn_anew_is_drawn_apart():
  shared, apart = see('flip|noise(0.1)'), see('flip|redraw|noise(0.1)')
  assert np.abs(shared - apart).max() > 0.01
  np.testing.assert_array_equal(see('redraw|flip|redraw'), see('redraw|flip'))


def test_what_moves_pixels_is_known():
  text = 'noise(0.1)|pad_and_crop(1)|redraw|flip|flip|brightness(0.1)'
  assert views.moving(views.parse(text)) == ('pad_and_crop', 'flip', 'flip')
  known = {'shift', 'random_crop', 'centre', 'rotate', 'dihedral', 'resize'}
  assert known | {'haar', 'dihedral_all'} < views.MOVING


@pytest.mark.parametrize('op', ['noise(0.1)', 'standardize(0.5, 1.0)'])
def test_several_arrays_are_refused(op):
  shape = {'a': (3,), 'b': (2,)}
  message = (
    r'needs one array, and an example has several; choose one in front of it, '
    r"by part\('a'\) or part\('b'\)"
  )
  with pytest.raises(UserError, match=message):
    views.output_shape(views.parse(op), shape)
