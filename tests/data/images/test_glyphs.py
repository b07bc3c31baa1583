"""Glyphs, from fonts that are made here: the machine's are never read."""

import pathlib
import shutil

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from jaxkd.data import sources
from jaxkd.data.images import glyphs
from jaxkd.errors import UserError
from jaxkd.report import row_notes

ROOT = pathlib.Path(__file__).parents[3]
FAMILIES = ('Ab', 'Bc', 'Cd', 'De', 'Ef', 'Fg')


def drawing(cells, scale=100):
  """A glyph of squares, where ``cells`` [5, 5] is true."""
  pen = TTGlyphPen(None)
  for x, y in np.argwhere(cells) * scale:
    pen.moveTo((x, y))
    for point in ((x, y + scale), (x + scale, y + scale), (x + scale, y)):
      pen.lineTo(point)
    pen.closePath()
  return pen.glyph()


def write(folder, family, style='Regular', *, seed=None, latin=1, **changes):
  """A font of random squares; ``changes``: character -> its cells or None."""
  generator = np.random.default_rng(
    [*family.encode()] if seed is None else seed
  )
  cells = {c: generator.random((5, 5)) < 0.5 for c in glyphs.CHARACTERS}
  cells |= changes
  cmap = {ord(c): f'uni{ord(c):04X}' for c, x in cells.items() if x is not None}
  order = ['.notdef', *cmap.values()]
  builder = FontBuilder(600, isTTF=True)
  builder.setupGlyphOrder(order)
  builder.setupCharacterMap(cmap)
  shapes = {name: drawing(cells[chr(c)]) for c, name in cmap.items()}
  builder.setupGlyf({'.notdef': drawing(np.eye(5)), **shapes})
  builder.setupHorizontalMetrics(dict.fromkeys(order, (600, 0)))
  builder.setupHorizontalHeader(ascent=600, descent=0)
  builder.setupNameTable({'familyName': family, 'styleName': style})
  builder.setupOS2(ulUnicodeRange1=latin)
  builder.setupPost()
  folder.mkdir(exist_ok=True)
  path = folder / f'{family}-{style}.ttf'
  builder.save(path)
  return path


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp('made')
  for family in FAMILIES:
    write(folder, family)
  write(folder, 'Cd', 'Bold', seed=5)
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def fonts(made, monkeypatch):
  """A folder of fonts of six families, one of them with two styles."""
  glyphs.FONTS.mkdir()
  for name, content in made.items():
    (glyphs.FONTS / name).write_bytes(content)
  monkeypatch.setattr(glyphs, 'FEWEST', 3)
  return glyphs.FONTS


def families(**options):
  """The families of each split, as the notes for the row name them."""
  notes = sources.load('glyphs', **options).notes
  told = (note.split(': ') for note in notes)
  return {what.split()[-1]: names.split(', ') for what, names in told}


def found():
  return {*glyphs.load('', 28).families.tolist()}


@pytest.fixture
def never_drawn(monkeypatch):
  def fail(*_):
    raise AssertionError

  return lambda: monkeypatch.setattr(glyphs, '_draw', fail)


def test_families_are_in_one_split_with_all_their_styles(fonts):
  source = sources.load('glyphs')
  assert source.classes == tuple(glyphs.CHARACTERS)
  assert (source.num_classes, source.input_shape) == (62, (28, 28, 1))
  split = families()
  assert [*split] == ['train', 'validation', 'test']
  assert sorted(
    [*split['train'], *split['validation'], *split['test']]
  ) == sorted(FAMILIES)
  drawn = glyphs.load('', 28)
  for part, examples in source.splits.items():
    batch = examples.fetch(np.arange(len(examples)))
    whole = drawn.images[np.isin(drawn.families, split[part])]
    np.testing.assert_array_equal(
      batch['inputs'].reshape(-1, 62, 28, 28), whole
    )
    assert batch['inputs'].dtype == np.uint8
    assert len(examples) == 62 * (len(split[part]) + ('Cd' in split[part]))
    assert (np.bincount(batch['labels']) == len(examples) / 62).all()


@pytest.mark.parametrize(
  ('options', 'sizes'),
  [
    ({}, [4, 1, 1]),
    ({'test': 2, 'validation': 2}, [2, 2, 2]),
    ({'test': 0.5, 'validation': 0}, [3, 3]),
  ],
)
def test_shares_and_numbers_are_of_families(fonts, options, sizes):
  assert [len(names) for names in families(**options).values()] == sizes


def test_the_seed_moves_families_and_nothing_else_does(fonts):
  options = {'test': 2, 'validation': 2}
  first = families(**options)
  assert families(**options, size=12) == first
  assert any(families(**options, seed=s) != first for s in range(1, 5))
  write(fonts, 'Zz')
  more = families(**options)
  moved = [
    name
    for split, names in first.items()
    for name in names
    if name not in more[split]
  ]
  assert len(moved) <= 2  # one across each border


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'size': 7}, r'^data\.kw\.size: .* 7 pixels'),
    ({'size': 129}, r'^data\.kw\.size: .* 8 to 128'),
    ({'test': 0}, r'^data\.kw\.test: 0 of 6 families'),
    ({'test': 6}, r'^data\.kw\.test: 6 of 6'),
    ({'test': 0.01}, r'^data\.kw\.test: 0\.01 of 6'),
    ({'test': 2, 'validation': 4}, r'^data\.kw\.validation: 4 of 4'),
    ({'validation': -0.1}, r'^data\.kw\.validation: -0\.1 of 5'),
    ({'seed': 0.5}, r'^data\.kw\.seed: 0\.5'),
    ({'dir': '/nowhere'}, r'^data\.dir: there is no folder /nowhere'),
  ],
)
def test_options_must_make_sense(fonts, options, message):
  with pytest.raises(UserError, match=message):
    sources.load('glyphs', **options)


def test_too_few_families_are_refused_with_what_to_install(fonts, monkeypatch):
  monkeypatch.setattr(glyphs, 'FEWEST', 30)
  with pytest.raises(UserError) as caught:
    sources.load('glyphs')
  assert 'needs 30 families' in str(caught.value)
  assert f'{fonts} has 6' in str(caught.value)
  assert f'run `{glyphs.INSTALL}`' in str(caught.value)
  assert glyphs.INSTALL in (ROOT / 'README.md').read_text().splitlines()
  assert not glyphs.CACHE.exists()


def test_a_machine_may_have_no_fonts_at_all():
  with pytest.raises(UserError, match=r'has 0 with all of .*apt-get install'):
    sources.load('glyphs')


def test_the_fonts_may_be_elsewhere(fonts, tmp_path):
  other = tmp_path / 'other'
  fonts.rename(other)
  (other / 'deeper').mkdir()
  (other / 'Ab-Regular.ttf').rename(other / 'deeper' / 'Ab.TTF')
  assert sources.load('glyphs', dir=str(other)).num_classes == 62


class TestWhatCounts:
  def test_what_is_hidden_does_not(self, fonts):
    (fonts / '.trash').mkdir()
    shown = write(fonts, 'Zz')
    for hidden in ('.trash/Zz-Regular.ttf', '._Zz-Regular.ttf'):
      shutil.copy(shown, fonts / hidden)
    shown.unlink()
    assert found() == {*FAMILIES}

  def test_a_font_must_have_every_character(self, fonts):
    write(fonts, 'Zz', Q=None)
    assert found() == {*FAMILIES}

  def test_and_draw_each_differently(self, fonts):
    box = np.ones((5, 5), bool)
    write(fonts, 'Zz', O=box, o=box)
    write(fonts, 'Zy', **dict.fromkeys(glyphs.CHARACTERS, box))
    assert found() == {*FAMILIES}

  def test_and_draw_something(self, fonts):
    write(fonts, 'Zz', l=np.zeros((5, 5), bool))
    assert found() == {*FAMILIES}

  def test_and_say_that_it_is_latin(self, fonts):
    write(fonts, 'Zz', latin=0)
    assert found() == {*FAMILIES}

  def test_and_not_call_its_glyphs_something_else(self, fonts, monkeypatch):
    name = glyphs._name(write(fonts, 'Zz'))
    assert name == ('Zz', 'Regular')
    from fontTools import ttLib

    cmap = {ord(c): c for c in glyphs.CHARACTERS} | {ord('A'): 'Alpha'}
    for odd in ('zero', 'one', 'two', 'three', 'four'):
      cmap[ord('0')] = odd
    monkeypatch.setattr(ttLib.TTFont, 'getBestCmap', lambda _: cmap)
    assert glyphs._name(fonts / 'Zz-Regular.ttf') is None

  def test_one_style_counts_once(self, fonts):
    write(fonts / 'again', 'Ab')
    assert len(glyphs.load('', 28).images) == 7

  def test_one_design_under_two_names_is_one_family(self, fonts):
    write(fonts, 'Zz', seed=[*b'Ab'])
    assert found() == {*FAMILIES} - {'Ab'} | {'Ab = Zz'}

  def test_a_longer_name_is_of_the_same_family(self, fonts):
    write(fonts, 'Ab Light')
    write(fonts, 'Abc')
    assert found() == {*FAMILIES} - {'Ab'} | {'Ab = Ab Light', 'Abc'}

  @pytest.mark.parametrize('damage', ['empty', 'truncated', 'of another kind'])
  def test_a_damaged_file_is_named_and_left_out(self, fonts, damage, caplog):
    path = write(fonts, 'Zz')
    whole = path.read_bytes()
    damaged = {'empty': b'', 'truncated': whole[:2000]}
    path.write_bytes(damaged.get(damage, b'no font' * 99))
    assert found() == {*FAMILIES}
    assert f'the font {path} is left out' in caplog.text


def test_glyphs_are_centred_on_one_scale_and_not_cut(tmp_path):
  dot = np.zeros((5, 5), bool)
  dot[4, 0] = True  # far from the middle
  wide = np.ones((5, 5), bool)
  path = write(tmp_path, 'Zz', i=dot, W=wide)
  images = dict(zip(glyphs.CHARACTERS, glyphs._draw(path, 28), strict=True))
  for image in images.values():
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[[0, -1]], 0)
    np.testing.assert_array_equal(image[:, [0, -1]], 0)
  filled = np.zeros((28, 28), bool)
  filled[2:26, 2:26] = True
  np.testing.assert_array_equal(images['W'] > 127, filled)
  small = images['i'] > 127
  assert 16 <= small.sum() <= 36  # a fifth of 24 by 24 pixels
  assert np.abs(np.argwhere(small).mean(axis=0) - 13.5).max() <= 1


class TestCache:
  def test_glyphs_are_drawn_once(self, fonts, never_drawn):
    first = glyphs.load('', 28)
    never_drawn()
    again = glyphs.load('', 28)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.families, first.families)
    (file,) = glyphs.CACHE.iterdir()
    assert file.suffix == '.npz'

  def test_they_are_the_same_when_drawn_anew(self, fonts):
    first = glyphs.load('', 28)
    (file,) = glyphs.CACHE.iterdir()
    file.unlink()
    again = glyphs.load('', 28)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.families, first.families)

  def test_other_fonts_and_sizes_are_drawn_anew(self, fonts):
    glyphs.load('', 28)
    assert glyphs.load('', 14).images.shape == (7, 62, 14, 14)
    (fonts / 'Ab-Regular.ttf').unlink()
    assert found() == {*FAMILIES} - {'Ab'}
    assert len([*glyphs.CACHE.iterdir()]) == 3

  @pytest.mark.parametrize('damage', ['empty', 'truncated', 'flipped'])
  def test_a_damaged_file_is_made_anew(
    self, fonts, damage, caplog, never_drawn
  ):
    first = glyphs.load('', 28)
    (file,) = glyphs.CACHE.iterdir()
    whole = file.read_bytes()
    half = len(whole) // 2
    flipped = whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :]
    damaged = {'empty': b'', 'truncated': whole[:half], 'flipped': flipped}
    file.write_bytes(damaged[damage])
    np.testing.assert_array_equal(glyphs.load('', 28).images, first.images)
    assert f'{file} is damaged' in caplog.text
    never_drawn()
    glyphs.load('', 28)

  def test_a_cache_that_cannot_be_written_is_done_without(self, fonts, caplog):
    glyphs.CACHE.write_text('in the way')
    assert sources.load('glyphs').num_classes == 62
    (warning,) = caplog.messages
    assert 'glyphs cannot be cached' in warning


def test_the_row_names_the_families(fonts):
  config = {
    'report': {'notes': (), 'derived': {}},
    'teachers': {},
    'data': {'order': 'own'},
  }
  source = sources.load('glyphs')
  assert row_notes.notes(config, source, [], [], [])[:3] == [*source.notes]
