"""Class folders as people have them: files, formats, orientation, splits."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxkd.data import examples, fingerprint, sources
from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.data.images import image_files
from jaxkd.errors import UserError

NAMES = ('ant', 'bee')


def save(path, image, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path, **options)


def fill(top, names=NAMES, count=5, size=(4, 3)):
  """Grey images whose tens say which class they are of."""
  for name in names:
    number = ('ant', 'bee', 'cat', 'dog').index(name)
    for i in range(count):
      save(top / name / f'{i}.png', Image.new('L', size, 10 * number + i))


def load(top, **options):
  return sources.load(f'folder:{top}', **options)


def pixels(split):
  return split.fetch(np.arange(len(split)))['inputs']


def sizes(source):
  return {name: len(split) for name, split in source.splits.items()}


@pytest.fixture
def one(tmp_path):
  """Gives the pixels of a file that is all of a folder's first class."""

  def read(image, name='0.png', other=None, **options):
    save(tmp_path / 'ant' / name, image, **options)
    save(tmp_path / 'bee' / name, other or image, **options)
    fill(tmp_path / 'bee' / 'x', ('bee',), 0)
    splits = load_all(tmp_path)
    return splits.fetch(np.arange(1))['inputs'][0]

  return read


def load_all(top, resize=0):
  """All examples of class folders, unsplit, in order."""
  from jaxkd.data.images import image_files

  found, _ = image_files.find(
    top, image_files.classes(top), image_files.IMAGES, all_of_them=True
  )
  kind = image_files.kind(found.files.paths, resize)
  return image_files.read(found.files.paths, found.labels, kind.mode, resize)


class TestWhatCounts:
  def test_hidden_files_and_folders_do_not(self, tmp_path):
    fill(tmp_path)
    plain = load(tmp_path)
    for hidden in ('.ipynb_checkpoints', 'x/.cache'):
      fill(tmp_path / 'ant' / hidden, ('bee',))
    fill(tmp_path, ('ant',))
    for name in ('.git', '__MACOSX'):
      fill(tmp_path / name)
    (tmp_path / 'bee' / '._0.png').write_bytes(b'of macOS')
    (tmp_path / '.DS_Store').touch()
    source = load(tmp_path)
    assert sizes(source) == {'train': 6, 'validation': 2, 'test': 2}
    assert source.classes == NAMES
    assert source.notes == ()
    for split, own in source.splits.items():
      np.testing.assert_array_equal(pixels(own), pixels(plain.splits[split]))

  def test_folders_of_a_class_are_of_it(self, tmp_path):
    fill(tmp_path)
    fill(tmp_path / 'ant' / 'more', ('ant',))
    np.testing.assert_array_equal(
      np.bincount(load_all(tmp_path).labels), [10, 5]
    )

  def test_links_are_followed(self, tmp_path):
    fill(tmp_path / 'pool')
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'ant').symlink_to(tmp_path / 'pool' / 'ant')
    (tmp_path / 'set' / 'bee').mkdir()
    for i in range(4):
      link = tmp_path / 'set' / 'bee' / f'{i}.png'
      link.symlink_to(tmp_path / 'pool' / 'bee' / f'{i}.png')
    split = load_all(tmp_path / 'set')
    assert split.labels.tolist() == [0] * 5 + [1] * 4
    np.testing.assert_array_equal(
      pixels(split)[:, 0, 0, 0], [0, 1, 2, 3, 4, 10, 11, 12, 13]
    )

  def test_a_link_that_leads_nowhere_or_in_a_circle_is_named(self, tmp_path):
    for split in ('train', 'test'):
      fill(tmp_path / split)
    (tmp_path / 'val').symlink_to('nowhere')
    with pytest.raises(UserError, match=r'val is a link to nowhere, which is'):
      load(tmp_path)
    (tmp_path / 'val').unlink()
    (tmp_path / 'train' / 'ant' / 'up').symlink_to('../..')
    with pytest.raises(
      UserError, match=r'ant.up is a link to .* that it is in'
    ):
      load(tmp_path)

  def test_files_that_are_no_images_are_told_of(self, tmp_path):
    fill(tmp_path)
    for name in ('a.HEIC', 'b.heic', 'c.pdf', 'labels', 'film.mpg'):
      (tmp_path / 'ant' / name).write_bytes(b'x')
    assert load(tmp_path).notes == (
      'files that are no images are left out: 2 .heic, 1 .pdf, 1 .mpg, 1 '
      'without ending',
    )

  def test_links_to_other_splits_or_classes_are_told_of(
    self, tmp_path, monkeypatch
  ):
    # In memory, copies are told of too; see `jaxkd.data.copies`.
    monkeypatch.setattr(examples, 'IN_MEMORY', 0)
    for split in ('train', 'val', 'test'):
      fill(tmp_path / split)
    for i in range(2):
      path = tmp_path / 'test' / 'bee' / f'{i}.png'
      path.unlink()
      path.symlink_to(tmp_path / 'train' / 'bee' / f'{i}.png')
    path = tmp_path / 'train' / 'bee' / '7.png'
    path.hardlink_to(tmp_path / 'train' / 'ant' / '0.png')
    assert load(tmp_path).notes == (
      '1 images in train are the same files as images in another class',
      '2 images in test are the same files as images in train',
    )


class TestSplits:
  @pytest.mark.parametrize('name', ['val', 'valid', 'dev', 'Validation'])
  def test_go_by_several_names(self, tmp_path, name):
    for split, count in (('Train', 4), (name, 3), ('TEST', 2)):
      fill(tmp_path / split, count=count)
    assert sizes(load(tmp_path)) == {'train': 8, 'validation': 6, 'test': 4}

  def test_two_of_a_name_are_refused(self, tmp_path):
    for split in ('train', 'val', 'valid', 'test'):
      fill(tmp_path / split)
    with pytest.raises(
      UserError, match='has val and valid, which are names of'
    ):
      load(tmp_path)

  @pytest.mark.parametrize('is_empty', [False, True])
  def test_without_a_class_keep_the_numbers_of_train(self, tmp_path, is_empty):
    fill(tmp_path / 'train', ('ant', 'bee', 'cat', 'dog'))
    fill(tmp_path / 'val', ('bee', 'cat'))
    fill(tmp_path / 'test', ('ant', 'cat', 'dog'))
    if is_empty:
      (tmp_path / 'test' / 'bee').mkdir()
      (tmp_path / 'test' / 'bee' / '.keep').touch()
    source = load(tmp_path)
    assert source.classes == ('ant', 'bee', 'cat', 'dog')
    for split in source.splits.values():
      tens = pixels(split)[:, 0, 0, 0] // 10
      np.testing.assert_array_equal(tens, split.labels)
    assert source.notes[:2] == (
      'validation has no example of 2 of the 4 classes: ant, dog',
      'test has no example of 1 of the 4 classes: bee',
    )

  def test_with_a_class_that_train_lacks_are_refused(self, tmp_path):
    fill(tmp_path / 'train')
    fill(tmp_path / 'test', ('ant', 'cat'))
    message = 'test has the class folder cat, which is none of .* ant, bee;'
    with pytest.raises(UserError, match=message):
      load(tmp_path)
    (tmp_path / 'test' / 'cat').rename(tmp_path / 'test' / 'Bee')
    with pytest.raises(UserError, match='test has the class folder Bee'):
      load(tmp_path)

  def test_beside_class_folders_are_refused(self, tmp_path):
    for name in ('car', 'bus', 'train'):
      save(tmp_path / name / '0.png', Image.new('L', (4, 3)))
    with pytest.raises(
      UserError, match='has the folders bus, car beside train'
    ):
      load(tmp_path)

  def test_within_class_folders_are_refused(self, tmp_path):
    for name in NAMES:
      for split in ('train', 'test'):
        save(tmp_path / name / split / '0.png', Image.new('L', (4, 3)))
    with pytest.raises(
      UserError, match='ant has the folders train and test, as'
    ):
      load(tmp_path)

  def test_of_names_that_are_longer_are_no_classes(self, tmp_path):
    for split in ('training_set', 'test_set'):
      fill(tmp_path / split)
    with pytest.raises(UserError, match='training_set and test_set, as if'):
      load(tmp_path)

  def test_that_are_held_out_may_lack_a_class(self, tmp_path):
    fill(tmp_path / 'train', count=6)
    fill(tmp_path / 'test')
    note, *_ = load(tmp_path, validation=1).notes
    assert note.startswith('validation has no example of 1 of the 2 classes: ')
    fill(tmp_path / 'train', ('cat',), count=1)
    with pytest.raises(
      UserError, match=r'class 2 of .* has too few examples, 1'
    ):
      load(tmp_path, validation=2)


class TestOrientation:
  PHOTO = np.zeros((4, 6, 3), np.uint8)
  PHOTO[0, 0] = 255, 0, 0
  PHOTO[0, -1] = 0, 255, 0

  def exif(self, tag):
    made = Image.Exif()
    made[0x0112] = tag
    return made

  @pytest.mark.parametrize('ending', ['png', 'tif', 'webp'])
  @pytest.mark.parametrize(
    ('tag', 'turn'),
    [
      (1, lambda x: x),
      (2, lambda x: x[:, ::-1]),
      (3, lambda x: x[::-1, ::-1]),
      (4, lambda x: x[::-1]),
      (5, lambda x: x.swapaxes(0, 1)),
      (6, lambda x: x[::-1].swapaxes(0, 1)),
      (7, lambda x: x[::-1, ::-1].swapaxes(0, 1)),
      (8, lambda x: x[:, ::-1].swapaxes(0, 1)),
    ],
  )
  def test_is_as_the_photo_is_shown(self, one, ending, tag, turn):
    options = {'lossless': True} if ending == 'webp' else {}
    found = one(
      Image.fromarray(self.PHOTO),
      f'0.{ending}',
      exif=self.exif(tag),
      **options,
    )
    np.testing.assert_array_equal(found, turn(self.PHOTO))

  @pytest.mark.parametrize('ending', ['png', 'tif', 'jpg'])
  def test_sizes_are_compared_as_shown(self, tmp_path, ending):
    wide = Image.fromarray(self.PHOTO)
    high = Image.fromarray(self.PHOTO.swapaxes(0, 1))
    save(tmp_path / 'ant' / f'0.{ending}', wide)
    save(tmp_path / 'bee' / f'0.{ending}', high, exif=self.exif(8))
    assert pixels(load_all(tmp_path)).shape == (2, 4, 6, 3)
    save(tmp_path / 'bee' / f'0.{ending}', wide, exif=self.exif(6))
    message = rf'0\.{ending} has 6x4 pixels and .*0\.{ending} has 4x6;'
    with pytest.raises(UserError, match=message):
      load_all(tmp_path)
    assert pixels(load_all(tmp_path, 5)).shape == (2, 5, 5, 3)

  def test_is_applied_before_images_are_resized(self, tmp_path):
    photo = np.zeros((8, 16, 3), np.uint8)
    photo[:, :8] = 255  # left, and then on top
    for name in NAMES:
      save(tmp_path / name / '0.png', Image.fromarray(photo), exif=self.exif(6))
    found = pixels(load_all(tmp_path, 4))[0, ..., 0]
    assert found[0].min() > 200
    assert found[-1].max() < 50

  @pytest.mark.parametrize('ending', ['png', 'webp', 'jpg'])
  def test_that_cannot_be_read_leaves_the_image_as_stored(self, one, ending):
    made = Image.fromarray(self.PHOTO)
    found = one(made, f'0.{ending}', exif=b'Exif\x00\x00nonsense')
    assert found.shape == (4, 6, 3)


class TestFormats:
  GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
  COLOURS = np.stack([GREY, GREY[::-1], 255 - GREY], -1)

  @pytest.mark.parametrize(
    ('name', 'options'),
    [('0.png', {}), ('0.PNG', {}), ('0.bmp', {}), ('0.TIFF', {}),
     ('0.webp', {'lossless': True}), ('0.ppm', {}), ('0.tga', {})],
  )  # fmt: skip
  def test_keep_colours(self, one, name, options):
    found = one(Image.fromarray(self.COLOURS), name, **options)
    np.testing.assert_array_equal(found, self.COLOURS)

  def test_are_grey_if_all_are(self, one):
    for made in (self.GREY, self.GREY > 100):
      found = one(Image.fromarray(made))
      want = made[..., None] * (255 if made.dtype == bool else 1)
      np.testing.assert_array_equal(found, want)
    found = one(Image.fromarray(self.GREY), other=Image.fromarray(self.COLOURS))
    np.testing.assert_array_equal(found, self.GREY[..., None].repeat(3, -1))

  def test_that_hold_a_palette_keep_its_colours(self, one):
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[:3], colours[3:] = (200, 10, 60), (0, 90, 250)
    image = Image.fromarray(colours).quantize(4)
    np.testing.assert_array_equal(one(image), colours)
    # One whose conversion would warn.
    found = one(image, transparency=bytes([0, 100]))
    np.testing.assert_array_equal(found, colours)
    np.testing.assert_array_equal(one(image, '0.gif'), colours)

  def test_lose_transparency_which_is_told_of(self, tmp_path):
    fill(tmp_path, size=(8, 6))
    alpha = Image.fromarray(self.GREY)
    for mode, name in (('LA', 'x'), ('RGBA', 'y')):
      image = Image.fromarray(self.GREY).convert(mode)
      image.putalpha(alpha)
      save(tmp_path / 'ant' / f'{name}.png', image)
    source = load(tmp_path)
    assert source.input_shape == (6, 8, 3)
    assert source.notes[-1:] == (
      '2 of the 12 images have a channel of transparency, which is dropped',
    )
    found = pixels(load_all(tmp_path))[5:7]
    for image in found:
      np.testing.assert_array_equal(image, self.GREY[..., None].repeat(3, -1))

  @pytest.mark.parametrize('ending', ['gif', 'tif', 'webp', 'png'])
  def test_of_several_frames_give_the_first_which_is_told_of(
    self, tmp_path, ending
  ):
    fill(tmp_path, size=(8, 6))
    frames = [Image.fromarray(self.COLOURS // d).quantize(64).convert('RGB')
              for d in (1, 2, 4)]  # fmt: skip
    save(
      tmp_path / 'ant' / f'x.{ending}',
      frames[0],
      save_all=True,
      append_images=frames[1:],
      **({'lossless': True} if ending == 'webp' else {}),
    )
    assert load(tmp_path).notes == (
      '1 of the 11 images have several frames or pages, of which the first is '
      'read',
    )
    found = pixels(load_all(tmp_path))[5].astype(int)
    assert np.abs(found - np.asarray(frames[0])).max() < 8

  def test_of_more_than_8_bits_are_refused_unless_colours(self, one, tmp_path):
    for made in (np.uint16, np.int32, np.float32):
      deep = Image.fromarray(self.GREY.astype(made) * 250)
      with pytest.raises(
        UserError, match=r'0\.tif has pixels of more than eig'
      ):
        one(deep, '0.tif')
    with pytest.raises(UserError, match=r'0\.pgm has pixels of more than eigh'):
      one(Image.fromarray(self.GREY.astype(np.uint16) * 250), '0.pgm')

  def test_colours_of_16_bits_are_cut_to_8_which_is_told_of(self, tmp_path):
    fill(tmp_path, size=(4, 3))
    rows = np.full((3, 1 + 4 * 3 * 2), 200, np.uint8)
    rows[:, 0] = 0  # how a row is filtered: not at all
    header = struct.pack('>IIBBBBB', 4, 3, 16, 2, 0, 0, 0)
    parts = (b'IHDR', header), (b'IDAT', zlib.compress(rows)), (b'IEND', b'')
    png = b'\x89PNG\r\n\x1a\n' + b''.join(
      struct.pack('>I', len(data))
      + kind
      + data
      + struct.pack('>I', zlib.crc32(kind + data))
      for kind, data in parts
    )
    (tmp_path / 'ant' / 'x.png').write_bytes(png)
    assert load(tmp_path).notes[-1:] == (
      '1 of the 11 images have colours of sixteen bits, of which the first '
      'eight are kept',
    )
    assert (pixels(load_all(tmp_path)) == 200).all((1, 2, 3)).any()

  def test_of_other_colours_are_refused(self, one):
    image = Image.fromarray(self.COLOURS).convert('RGB').copy()
    lab = Image.merge('LAB', image.split())
    with pytest.raises(UserError, match=r'0\.tif has pixels of the kind LAB'):
      one(lab, '0.tif')

  def test_are_known_by_what_is_in_the_file(self, tmp_path):
    fill(tmp_path)
    made = io.BytesIO()
    Image.new('L', (4, 3), 77).save(made, 'png')
    (tmp_path / 'ant' / 'x.jpg').write_bytes(made.getvalue())
    assert 77 in pixels(load_all(tmp_path))


def test_large_folders_are_turned_too(tmp_path, monkeypatch):
  exif = Image.Exif()
  exif[0x0112] = 3
  ramp = np.arange(12, dtype=np.uint8).reshape(3, 4)
  for name in NAMES:
    for i in range(5):
      save(tmp_path / name / f'{i}.png', Image.fromarray(ramp), exif=exif)
  monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  split = load(tmp_path).splits['train']
  assert isinstance(split, StreamedExamples)
  np.testing.assert_array_equal(pixels(split)[0, ..., 0], ramp[::-1, ::-1])


def test_a_large_folder_has_the_sizes_of_all_its_files(tmp_path, monkeypatch):
  """An image may have changed that is not among those that are compared."""
  fill(tmp_path / 'a')
  assert not load(tmp_path / 'a').sizes
  monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  monkeypatch.setattr(fingerprint, '_SAMPLE', 1)
  first = load(tmp_path / 'a')
  one = fingerprint.of_source(first)
  (tmp_path / 'a').rename(tmp_path / 'b')
  assert load(tmp_path / 'b').sizes == first.sizes
  file = next((tmp_path / 'b').glob('**/*.png'))
  file.write_bytes(file.read_bytes() + b' ')
  other = fingerprint.of_source(load(tmp_path / 'b'))
  assert {x for x in one if one[x] != other[x]} == {
    'data.source (sizes of files)'
  }


class TestHeadersOfManyImages:
  @pytest.fixture(autouse=True)
  def many(self, monkeypatch):
    monkeypatch.setattr(image_files, 'MANY', 5)

  def test_are_read_once(self, tmp_path, monkeypatch):
    fill(tmp_path)
    first = load(tmp_path)
    monkeypatch.setattr(image_files, 'kind', lambda *given: pytest.fail('read'))
    again = load(tmp_path)
    assert again.notes == first.notes
    np.testing.assert_array_equal(
      pixels(again.splits['train']), pixels(first.splits['train'])
    )

  def test_are_read_anew_after_a_change(self, tmp_path):
    fill(tmp_path)
    load(tmp_path)
    file = next((tmp_path / 'ant').iterdir())
    Image.new('L', (5, 6)).save(file)
    with pytest.raises(UserError, match=r'5x6'):
      load(tmp_path)

  def test_their_checksums_are_kept_until_a_change(self, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, 'IN_MEMORY', 0)
    fill(tmp_path)
    first = load(tmp_path)
    found = fingerprint.of_source(first)
    read, decode = [], image_files.pixels
    monkeypatch.setattr(
      image_files,
      'pixels',
      lambda path, *how: read.append(path) or decode(path, *how),
    )
    again = load(tmp_path)
    count = len(read)
    assert fingerprint.of_source(again) == found
    assert len(read) == count
    assert fingerprint.of_source(load(tmp_path, resize=2)) != found
    assert len(read) > 10
    for file in tmp_path.glob('ant/*.png'):
      Image.new('L', (4, 3), 200).save(file)
    changed = fingerprint.of_source(load(tmp_path))
    own = 'data.source (inputs of train)'
    assert changed[own] != found[own]
    # What a function makes of the images has no checksum kept under their name.
    half = lambda batch, numbers: {**batch, 'inputs': batch['inputs'] // 2}  # noqa: E731
    other = examples.changed(load(tmp_path).splits['train'], half)
    assert fingerprint.of_examples(other)['inputs'] != changed[own]


@pytest.mark.parametrize('limit', [0, 2**30])
def test_a_split_that_is_held_out_is_where_the_others_are(
  tmp_path, monkeypatch, limit
):
  monkeypatch.setattr(examples, 'IN_MEMORY', limit)
  for split in ('train', 'test'):
    fill(tmp_path / split)
  source = load(tmp_path, validation=2)
  assert {*source.splits} == {'train', 'validation', 'test'}
  kind = ArrayExamples if limit else StreamedExamples
  assert all(isinstance(split, kind) for split in source.splits.values())
