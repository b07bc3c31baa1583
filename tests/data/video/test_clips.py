"""Clips made in code: what moves in them, and what a codec leaves of it."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.data import augment, sources
from jaxkd.data.video import clips, compressed
from jaxkd.errors import UserError
from jaxkd.run import build

SMALL = {
  'objects': 'digits', 'size': 32, 'length': 6, 'train': 20, 'test': 10,
  'validation': 10, 'count': 2,
}  # fmt: skip
STILL = clips.Scene(size=48, length=8, pan=0.0, noise=0.0)
SQUARE = np.ones((8, 8))


@pytest.fixture(autouse=True)
def _caches(tmp_path, monkeypatch):
  monkeypatch.setattr(compressed, 'CACHE', tmp_path / 'video')
  monkeypatch.setattr(clips, 'CACHE', tmp_path / 'clips')


@pytest.fixture(scope='module')
def source():
  return sources.load('clips', **SMALL, codec=False)


def made(action, scene=STILL, seed=0):
  return clips.make(np.random.default_rng(seed), SQUARE, action, scene)


@pytest.mark.parametrize(
  ('action', 'way'),
  [('left', (-1, 0)), ('right', (1, 0)), ('up', (0, -1)), ('down', (0, 1))],
)
def test_an_object_moves_and_the_rest_stays(action, way):
  frames, motion = made(action)
  assert frames.shape == (8, 48, 48, 3)
  moved = np.abs(motion[-1]).max(-1) > 1e-3
  assert 0.03 < moved.mean() < 0.4
  mean = motion[-1][moved].mean(0)
  np.testing.assert_allclose(mean / np.abs(mean).max(), way, atol=1e-5)
  assert np.abs(mean).max() > 0.2 * 48 * 0.9
  # The first frame moved so is the last one, where both show the object.
  warped = compressed.warped(frames[0], motion[-1])
  inside = np.abs(warped - frames[-1]).mean(-1)[moved]
  assert np.median(inside) < 8


def test_objects_turn_grow_and_stay():
  np.testing.assert_allclose(made('still').motion, 0, atol=1e-4)
  for action, sign in (('clockwise', 1), ('anticlockwise', -1)):
    motion = made(action).motion[2]
    rows, columns = np.nonzero(np.abs(motion).max(-1) > 1e-3)
    x, y = columns - columns.mean(), rows - rows.mean()
    u, v = motion[rows, columns].T
    assert sign * (x * v - y * u).mean() > 0
  for action, sign in (('grow', 1), ('shrink', -1)):
    motion = made(action).motion[-1]
    rows, columns = np.nonzero(np.abs(motion).max(-1) > 1e-3)
    x, y = columns - columns.mean(), rows - rows.mean()
    assert sign * (x * motion[rows, columns, 0]).mean() > 0
    assert sign * (y * motion[rows, columns, 1]).mean() > 0
  swing = made('swing').motion
  assert np.abs(swing[2]).max() > 1 > np.abs(swing[-1]).max()


def test_the_camera_pans():
  motion = made('still', STILL._replace(pan=1.0)).motion
  step = motion[1, 0, 0]
  assert np.abs(step).max() > 0
  np.testing.assert_allclose(
    motion[-1], np.broadcast_to(7 * step, (48, 48, 2)), rtol=1e-5, atol=1e-5
  )


def test_parts_classes_and_splits(source):
  assert source.classes == clips.ACTIONS
  assert source.input_shape == {
    'image': (32, 32, 3), 'motion': (32, 32, 4), 'residual': (32, 32, 6)
  }  # fmt: skip
  for split, count in (('train', 20), ('validation', 10), ('test', 10)):
    own = source.splits[split]
    counts = np.bincount(own.labels, minlength=10)
    assert (len(own), counts.tolist()) == (count, [count // 10] * 10)
  frames = sources.load(
    'clips', **{**SMALL, 'parts': ('frames',), 'count': 5}, codec=False
  )
  assert frames.input_shape == (5, 32, 32, 3)


def test_clips_depend_on_the_seed_and_their_number_alone(source):
  more = sources.load('clips', **{**SMALL, 'train': 30}, codec=False)
  other = sources.load('clips', **SMALL, seed=1, codec=False)
  one, two, three = (
    s.splits['train'].fetch(np.arange(20))['inputs']
    for s in (source, more, other)
  )
  for part in one:
    np.testing.assert_array_equal(one[part], two[part])
  assert (one['image'] != three['image']).any((1, 2, 3)).all()


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_objects_may_go_with_actions(share, monkeypatch):
  classes = np.arange(400) % 10
  shown = []
  monkeypatch.setattr(
    clips,
    'make',
    lambda draw, pixels, action, scene: shown.append(pixels[0, 0]),
  )
  objects = np.broadcast_to(classes[:, None, None], (400, 2, 2))
  scene = STILL._replace(typical=share)
  clip = clips.made(objects, classes, 400, scene, (0,))
  for number in range(400):
    clip(number)
  own = (np.array(shown) == clips.labels_of(400)).mean()
  assert own == pytest.approx(share + (1 - share) / 10, abs=0.08)
  # Where no object is of that class, it is a random one.
  clips.made(objects[:9], classes[:9], 10, scene, (0,))(9)


def test_the_codec_keeps_most_of_the_motion():
  """Of what a clip moves by as a whole, by its median vector."""
  source = sources.load('clips', **SMALL, pan=2.0, codec=False)
  coded = sources.load('clips', **SMALL, pan=2.0, quantizer=3)
  files = sorted(clips.CACHE.rglob('*.avi'))
  assert len(files) == 40
  found = []
  for each in (source, coded):
    # Encoded ones come class by class.
    own = each.splits['train']
    order = np.argsort(own.labels, kind='stable')
    batch = own.fetch(order)
    motion = batch['inputs']['motion'].astype(float) - compressed.ZERO
    found.append(np.median(motion, (1, 2)))
    assert np.array_equal(np.sort(batch['labels']), batch['labels'])
  for i in range(4):
    assert np.corrcoef(found[0][:, i], found[1][:, i])[0, 1] > 0.8
  times = [file.stat().st_mtime_ns for file in files]
  sources.load('clips', **SMALL, pan=2.0, quantizer=3)
  assert times == [file.stat().st_mtime_ns for file in files]


def test_without_a_codec_no_package_is_needed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'av', None)
  sources.load('clips', **SMALL, codec=False)
  message = r"^data\.source: the package av .* pip install 'jaxkd\[video\]'"
  with pytest.raises(UserError, match=message):
    sources.load('clips', **SMALL)
  assert not [*clips.CACHE.glob('*')]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'objects': 'digit'}, r"^data\.kw\.objects: .*did you mean 'digits'"),
    ({'size': 33}, r'^data\.kw\.size: 33 should be an even number'),
    ({'length': 1}, r'^data\.kw\.length: 1 should be 2 to 100'),
    ({'pan': -1.0}, r'^data\.kw\.pan: -1\.0 should be 0 or more'),
    ({'noise': float('nan')}, r'^data\.kw\.noise: nan should be'),
    ({'typical': 1.5}, r'^data\.kw\.typical: 1\.5 should be a share'),
    ({'quantizer': 0}, r'^data\.kw\.quantizer: 0 should be 1 to 31'),
    ({'train': 5}, r'^data\.kw\.train: 5 clips are fewer than the 10'),
    ({'validation': 5}, r'^data\.kw\.validation: 5 clips'),
    ({'count': 6}, r'^data\.kw\.count: a group of 6 frames'),
    ({'dir': '/'}, r'^data\.dir: clips of digits reads nothing'),
  ],
)
def test_options_must_make_sense(options, message):
  with pytest.raises(UserError, match=message):
    sources.load('clips', **{**SMALL, **options}, codec=False)


# What turns images turns vectors too, or is refused.


@pytest.mark.parametrize(
  'op',
  [
    *('flip', 'dihedral', 'dihedral_all', 'rotate(10)'),
    "pad_and_crop(2, 'reflect')",
  ],
)
def test_views_that_turn_vectors_are_refused(source, op):
  views = dict.fromkeys(('train', 'eval'), f"redraw|part('motion')|{op}")
  entry = {'views': {**views, 'average': ''}}
  message = r'^students\.a\.views\.train: \w+ would move the vectors of clips'
  with pytest.raises(UserError, match=message):
    build.input_shape(entry, source, 'students.a')
  for part, size in (('image', 3), ('residual', 6)):
    seen = dict.fromkeys(('train', 'eval'), f"part('{part}')|flip")
    shape = build.input_shape({'views': seen}, source, 'students.a')
    assert shape == (32, 32, size)


@pytest.mark.parametrize('part', ['motion', 'residual'])
def test_views_fill_with_zero_only_where_that_is_zero(source, part):
  def seen(ops):
    views = dict.fromkeys(('train', 'eval'), f"part('{part}')|{ops}")
    return build.input_shape({'views': views}, source, 'students.a')

  for op in ('shift(2)', 'pad_and_crop(2)', 'cutout(2)', 'random_erasing'):
    message = rf'views\.train: {op.partition("(")[0]} puts in bytes of 0, .*'
    for ops in (op, f'{op}|standardize(0.502, 0.25)'):
      with pytest.raises(UserError, match=message + r'standardize\(0\.502'):
        seen(ops)
    assert seen(f'standardize(0.502, 0.25)|{op}') == source.input_shape[part]
  for op in ("pad_and_crop(2, 'edge')", 'random_erasing(value=0.502)'):
    assert seen(op) == source.input_shape[part]
  with pytest.raises(UserError, match='changes colours, and the'):
    seen('color_jitter(0.5)')


def test_a_part_must_be_there(source):
  seen = dict.fromkeys(('train', 'eval'), "part('audio')")
  message = r"part\('audio'\) is not there: .* has image, motion, residual"
  with pytest.raises(UserError, match=message):
    build.input_shape({'views': seen}, source, 'students.a')
  alone = sources.load('clips', **{**SMALL, 'parts': ('motion',)}, codec=False)
  seen = dict.fromkeys(('train', 'eval'), 'flip')
  with pytest.raises(UserError, match='would move the vectors of clips'):
    build.input_shape({'views': seen}, alone, 'students.a')


def augmented(text, batch, source):
  batch = {**batch, 'id': jnp.arange(20), 'epoch': jnp.zeros(20, int)}
  return jax.device_get(
    augment.apply(
      augment.Augment(text),
      batch,
      seed=0,
      num_classes=10,
      declared=source.fields,
    )
  )


def test_augmentation_turns_vectors_with_their_image(source):
  batch = source.splits['train'].fetch(np.arange(20))
  plain = {part: x / 255 for part, x in batch['inputs'].items()}
  found = augmented('flip', batch, source)['inputs']
  flipped = (found['image'] != plain['image'].astype(np.float32)).any((1, 2, 3))
  flipped &= ~np.isclose(found['image'], plain['image'], atol=1e-6).all(
    (1, 2, 3)
  )
  assert 4 < flipped.sum() < 16
  zero = compressed.ZERO / 255
  mirrored = {part: x[:, :, ::-1].copy() for part, x in plain.items()}
  # (right, down) of each P-frame: right becomes left.
  mirrored['motion'][..., 0::2] = 2 * zero - mirrored['motion'][..., 0::2]
  for part, x in found.items():
    np.testing.assert_allclose(x[flipped], mirrored[part][flipped], atol=1e-6)
    np.testing.assert_allclose(x[~flipped], plain[part][~flipped], atol=1e-6)


@pytest.mark.parametrize('op', ['pad_and_crop(8)', 'scale(0.4, 0.5)'])
def test_what_comes_in_from_outside_is_zero(source, op):
  batch = source.splits['train'].fetch(np.arange(20))
  found = augmented(op, batch, source)['inputs']
  outside = (found['image'] == 0).all(-1)
  assert outside.any()
  for part in ('motion', 'residual'):
    np.testing.assert_allclose(
      found[part][outside], compressed.ZERO / 255, atol=1e-6
    )


def test_a_turned_image_has_turned_vectors():
  """Four rows that go right and down, turned by any symmetry of a square."""
  zero = np.float32(compressed.ZERO / 255)
  vectors = np.full((20, 6, 6, 2), zero, np.float32)
  vectors[..., 0] += 0.1
  vectors[..., 1] += 0.02
  source = sources.Source(
    'own', {}, 2, {}, ('a', 'b'), fields={'inputs': 'vectors'}
  )
  batch = {'inputs': vectors, 'labels': np.zeros(20, np.int32)}
  found = augmented('dihedral', batch, source)['inputs'] - zero
  sizes = np.abs(found)
  straight = np.isclose(sizes, [0.1, 0.02], atol=1e-6).all((1, 2, 3))
  swapped = np.isclose(sizes, [0.02, 0.1], atol=1e-6).all((1, 2, 3))
  assert straight.any() and swapped.any() and (straight | swapped).all()
  assert len(np.unique(found[:, 0, 0].round(3), axis=0)) > 4
