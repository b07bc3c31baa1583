"""Annotations in COCO's format."""

import copy
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxkd.data import examples, sources
from jaxkd.data.images import coco
from jaxkd.errors import UserError

# Two images of 20 by 10 pixels; the numbers of the classes have gaps.
GIVEN = {
  'categories': [{'id': 7, 'name': 'dog'}, {'id': 3, 'name': 'cat'}],
  'images': [
    {'id': 5, 'file_name': 'a.png', 'width': 20, 'height': 10},
    {'id': 9, 'file_name': 'b.png', 'width': 20, 'height': 10},
    {'id': 2, 'file_name': 'c.png', 'width': 20, 'height': 10},
  ],
  'annotations': [
    # Left, top, width and height.
    {'id': 1, 'image_id': 5, 'category_id': 7, 'bbox': [2, 1, 4, 5]},
    {'id': 2, 'image_id': 9, 'category_id': 3, 'bbox': [0, 0, 20, 10]},
    {'id': 3, 'image_id': 5, 'category_id': 3, 'bbox': [10, 5, 10, 5]},
    {
      'id': 4, 'image_id': 9, 'category_id': 3, 'bbox': [0, 0, 9, 9],
      'iscrowd': 1,
    },
  ],
}  # fmt: skip
ONE = {'id': 6}  # of a further annotation
BOXES = [[0.1, 0.1, 0.6, 0.3], [0.5, 0.5, 1, 1]]  # of a.png, in shares


def picture(path, shade, size=(20, 10)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', size, (shade, 0, 255 - shade)).save(path)


@pytest.fixture
def folder(tmp_path):
  """Annotations of train and test, and their images."""
  for split in ('train', 'test'):
    (tmp_path / f'{split}.json').write_text(json.dumps(GIVEN))
    for i, name in enumerate('abc'):
      picture(tmp_path / split / f'{name}.png', 50 * i)
  return tmp_path


def load(folder, **options):
  return sources.load(f'coco:{folder}', **{'validation': 0, **options})


def changed(folder, change, split='train'):
  """Writes other annotations of a split."""
  given = copy.deepcopy(GIVEN)
  change(given)
  (folder / f'{split}.json').write_text(json.dumps(given))


def test_boxes_classes_and_images(folder):
  source = load(folder)
  assert source.classes == ('cat', 'dog')
  assert source.input_shape == (10, 20, 3)
  batch = source.splits['test'].fetch(np.arange(3))
  assert batch['inputs'].dtype == np.uint8
  assert batch['inputs'][:, 0, 0, 0].tolist() == [0, 50, 100]
  assert batch['valid'].tolist() == [[1, 1], [1, 0], [0, 0]]
  assert batch['labels'].tolist() == [[1, 0], [0, 0], [0, 0]]
  np.testing.assert_allclose(batch['boxes'][0], BOXES)
  np.testing.assert_allclose(batch['boxes'][1], [[0, 0, 1, 1], [0] * 4])
  assert not batch['boxes'][2].any()  # an image without objects is right
  assert [n for n in source.notes if 'crowds' in n] == [
    f'1 annotations in {split} are crowds, which are left out; what a net '
    'finds there is false'
    for split in ('train', 'test')
  ]


def test_an_annotation_that_is_there_twice_is_noted(folder):
  changed(folder, lambda g: g['annotations'].append(g['annotations'][0] | ONE))
  (note,) = (n for n in load(folder).notes if 'once more' in n)
  assert note.startswith('1 annotations in train are there once more')


def test_boxes_stay_where_they_are_when_images_are_resized(folder):
  source = load(folder, resize=(30, 40))
  assert source.input_shape == (30, 40, 3) and source.resize == (30, 40)
  batch = source.splits['test'].fetch(np.arange(1))
  np.testing.assert_allclose(batch['boxes'][0], BOXES)
  with pytest.raises(
    UserError, match=r'resize: \(0, 4\) is not a side in pixels'
  ):
    load(folder, resize=(0, 4))
  with pytest.raises(UserError, match='resize: 20000 is not a side in pixels'):
    load(folder, resize=20_000)


def test_what_is_held_out_has_objects(tmp_path):
  def change(given):
    given['images'] *= 4
    given['images'] = [
      {**image, 'id': i, 'file_name': f'{i}.png'}
      for i, image in enumerate(given['images'])
    ]
    given['annotations'] = [{**given['annotations'][0], 'image_id': 0}]

  changed(tmp_path, change, 'all')
  for i in range(12):
    picture(tmp_path / 'images' / f'{i}.png', i)
  with pytest.raises(
    UserError,
    match=r"data.source: the (validation|test) split of 'coco:.*', 2 examples, "
    'has no object; (raise data.kw.validation|label more), or give each',
  ):
    sources.load(f'coco:{tmp_path}')


def test_large_sets_are_read_as_asked_for(folder, monkeypatch):
  small = load(folder).splits['train']
  monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  large = load(folder).splits['train']
  assert isinstance(large, examples.StreamedExamples)
  order = np.array([2, 0])
  for name, x in small.fetch(order).items():
    np.testing.assert_array_equal(large.fetch(order)[name], x)
  np.testing.assert_array_equal(large.index.counts, small.index.counts)


@pytest.mark.parametrize(
  ('layout', 'options', 'splits'),
  [
    (
      {
        'annotations/instances_train2017.json': 'train2017',
        'annotations/instances_val2017.json': 'val2017',
        'annotations/captions_val2017.json': 'val2017',
      },
      {'test': 'val2017'},
      {'train', 'test'},
    ),
    (
      {
        'train/_annotations.coco.json': 'train',
        'valid/_annotations.coco.json': 'valid',
        'test/_annotations.coco.json': 'test',
      },
      {'validation': None},
      {'train', 'validation', 'test'},
    ),
    (
      {'train.json': 'images/train', 'test.json': 'images/test'},
      {},
      {'train', 'test'},
    ),
    ({'train.json': 'images', 'test.json': 'images'}, {}, {'train', 'test'}),
    ({'boxes.json': '.'}, {'validation': None}, {'all'}),
  ],
)
def test_the_usual_layouts(tmp_path, layout, options, splits):
  for file, images in layout.items():
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    given = copy.deepcopy(GIVEN)
    for i, image in enumerate(given['images']):
      image['file_name'] = f'{pathlib.Path(file).stem}{i}.png'
      picture(tmp_path / images / image['file_name'], 9)
    (tmp_path / file).write_text(json.dumps(given))
  found = coco.find(tmp_path, options.get('test', ''))
  assert {*found} == splits
  for file in found.values():
    assert len(coco.read(file, tmp_path, clip=False).images) == 3
  if 'all' not in splits:
    assert {*load(tmp_path, **options).splits} == splits


def of(i, **changes):
  def change(given):
    given['annotations'][i].update(changes)

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      of(0, bbox=[2, 1, 0, 5]),
      'annotation 1 has the box .*, which has no area',
    ),
    (
      of(0, bbox=[6, 1, -4, 5]),
      'annotation 1 .*, which has a negative width or height; write',
    ),
    (of(0, bbox=[2, 6, 4, -5]), 'annotation 1 .*, which has a negative width'),
    (
      of(0, bbox=[2, 1, 1e-7, 5]),
      'annotation 1 .*, of which nothing is in its image',
    ),
    (of(0, bbox=[20.5, 1, 0.4, 5]), 'annotation 1 .*, of which nothing is in'),
    (of(0, bbox=['2', '1', '4', '5']), 'annotation 1 .* must be .left, top'),
    (of(0, bbox=[True, 1, 4, 5]), 'annotation 1 .* must be .left, top'),
    (of(0, bbox='2145'), 'annotation 1 .* must be .left, top'),
    (of(0, bbox=[10**400, 1, 4, 5]), 'annotation 1 .* must be .left, top'),
    (of(0, iscrowd=2), 'annotation 1 has the iscrowd 2, which must be 0 or 1'),
    (of(0, iscrowd='0'), "annotation 1 has the iscrowd '0', which must be 0"),
    (of(1, id=1), 'annotation 1 is there twice; number them anew'),
    (
      lambda g: [g['annotations'][1].pop('id'), of(1, image_id=0)(g)],
      'annotation number 1, from 0, is of the image 0, which is not among',
    ),
    (of(0, category_id='7'), "annotation 1 has the category '7', which is not"),
    (lambda g: g.update(annotations=None), 'list of annotations, .*; add one'),
    (
      lambda g: g['images'][0].update(width=10**400),
      'which must be a number of pixels',
    ),
    (
      lambda g: g['images'][1].update(file_name='x' * 999),
      'has an image .*x, which is not there; add it',
    ),
    (
      lambda g: g['images'][0].update(file_name='x' * 999),
      'has an image x*, which is in none of',
    ),
    (of(0, bbox=[15, 1, 9, 5]), 'annotation 1 .*out of its image of 20x10 pix'),
    (of(0, bbox=[-3, 1, 9, 5]), 'annotation 1 .* reaches out of its image'),
    (
      of(0, bbox=[2, 1, 4]),
      r'has the box \[2, 1, 4\], which must be \[left, t',
    ),
    (of(0, bbox=[2, 1, 4, None]), 'which must be .left, top'),
    (of(0, bbox=[2, 1, 4, float('nan')]), 'which must be .left, top'),
    (
      of(0, category_id=4),
      'annotation 1 has the category 4, which is not among',
    ),
    (of(0, image_id=4), 'annotation 1 is of the image 4, which is not among'),
    (lambda g: g.pop('categories'), 'has no list of categories, as the format'),
    (lambda g: g.update(images=[]), 'lists no image'),
    (lambda g: g.update(categories=[]), 'lists no category'),
    (
      lambda g: g['categories'][0].update(name='cat'),
      "several categories called 'cat'; give each a name",
    ),
    (
      lambda g: g.update(annotations=g['annotations'][3:]),
      'has 1 annotations, of which 1 are crowds, and no object is left in any',
    ),
    (lambda g: g.update(annotations=[]), 'has 0 annotations, and no object is'),
    (of(0, category_id=[7]), r'the category_id \[7\], which must be a who'),
    (of(0, image_id='5'), "annotation 1 is of the image '5', which is not amo"),
    (
      lambda g: g['categories'][0].update(name=3),
      'has the name 3, which must be a text',
    ),
    (
      lambda g: g['images'][0].update(width=0),
      'has the width 0, which must be a number of pixels',
    ),
    (
      lambda g: g['images'][0].update(file_name=None),
      'has the file_name None, which must be a text',
    ),
    (
      lambda g: [x.update(bbox=[0.1, 0.1, 0.5, 0.3]) for x in g['annotations']],
      'all boxes of .*train.json end within the first pixel, as shares',
    ),
    (
      lambda g: g['images'][1].update(file_name='a.png'),
      'lists the image .*a.png twice; list it once',
    ),
    (lambda g: g['images'][0].pop('width'), "'a.png'.* has no 'width'"),
    (lambda g: g['annotations'][0].pop('bbox'), "has no 'bbox'"),
    (lambda g: g['images'][1].update(id=5), 'has two of the image 5; number'),
    (lambda g: g['categories'][1].update(id=7), 'has two of the category 7'),
    (
      lambda g: g['images'][1].update(file_name='d.png'),
      r'train.json has an image .*d.png, which is not there; add it, or',
    ),
    (
      lambda g: g['images'][0].update(file_name='d.png'),
      r'train.json has an image d.png, which is in none of .*put the images',
    ),
    (
      lambda g: g['images'][0].update(width=10, height=20),
      'a.png is 20 pixels wide and 10 high, and its annotations are for 10 '
      'wide and 20 high; repair',
    ),
    (
      lambda g: (
        [x.update(id=x['id'] % 7) for x in g['categories']]
        + [x.update(category_id=x['category_id'] % 7) for x in g['annotations']]
      ),
      'categories .*cat, dog and .*train.json dog, cat; give each category the '
      'same id in both, by which they are ordered',
    ),
    (
      lambda g: g['categories'][1].update(name='cow'),
      'test.json has the categories cat, dog and .*train.json cow, dog; they',
    ),
  ],
)
def test_bad_annotations_are_named(folder, change, message):
  changed(folder, change)
  with pytest.raises(UserError, match=f'^data.source: .*{message}') as caught:
    load(folder)
  assert '\n' not in str(caught.value)


def test_an_image_is_in_one_split(folder):
  for name in 'abc':
    (folder / name).with_suffix('.png').write_bytes(
      (folder / 'train' / f'{name}.png').read_bytes()
    )
  for split in ('train', 'test'):
    shutil.rmtree(folder / split)
  with pytest.raises(
    UserError, match=r'test.json and .*train.json have the im'
  ):
    load(folder)


def test_an_image_is_known_by_other_names(folder):
  path = folder / 'test' / 'a.png'
  path.unlink()
  path.symlink_to(folder / 'train' / 'a.png')
  with pytest.raises(
    UserError, match=r'have the image .*test/a.png both, there as .*train/a.png'
  ):
    load(folder)
  name = '../train/b.png'
  changed(folder, lambda g: g['images'][0].update(file_name=name), 'test')
  with pytest.raises(UserError, match=r'there as .*/train/b.png; leave it out'):
    load(folder)
  changed(folder, lambda g: g['images'][1].update(file_name='../train/a.png'))
  with pytest.raises(UserError, match=r'twice, first as .*/train/a.png; list'):
    load(folder)


def test_copies_of_images_are_noted(folder):
  (note,) = (n for n in load(folder).notes if 'of the 3 examples' in n)
  assert note == '3 of the 3 examples in test are in train too'


def test_numbers_and_texts_as_tools_write_them(folder):
  def change(given):
    for entry in given['images'] + given['categories'] + given['annotations']:
      for key, value in entry.items():
        if isinstance(value, int):
          entry[key] = float(value)

  whole = load(folder).splits['train'].fetch(np.arange(3))
  changed(folder, change)
  text = (folder / 'train.json').read_text()
  (folder / 'train.json').unlink()
  (folder / 'Train.JSON').write_text(text, 'utf-8-sig')
  found = load(folder).splits['train'].fetch(np.arange(3))
  for name, x in whole.items():
    np.testing.assert_array_equal(found[name], x)


class TestTurned:
  """Images with a tag of orientation; a red object at rows 1-6, columns 2-6."""

  def load(self, folder, tag, stored, annotated, name='a.jpg', **options):
    image = Image.new('RGB', stored)
    image.paste((255, 0, 0), (2, 1, 6, 6))
    exif = Image.Exif()
    exif[0x0112] = tag
    image.save(folder / 'train' / name, exif=exif)

    def change(given):
      width, height = annotated
      given['images'][0].update(file_name=name, width=width, height=height)
      of(2, image_id=9)(given)

    changed(folder, change)
    batch = load(folder, **options).splits['train'].fetch(np.arange(1))
    return batch['inputs'][0, :, :, 0] > 128

  @pytest.mark.parametrize('large', [False, True])
  def test_it_is_as_it_was_annotated(self, folder, large, monkeypatch):
    if large:
      monkeypatch.setattr(examples, 'IN_MEMORY', 0)
    red = np.zeros((10, 20), bool)
    red[1:6, 2:6] = True
    found = self.load(folder, 6, (20, 10), (20, 10))
    np.testing.assert_array_equal(found, red)
    found = self.load(folder, 6, (10, 20), (20, 10))
    red = np.zeros((20, 10), bool)
    red[1:6, 2:6] = True
    np.testing.assert_array_equal(found, np.rot90(red, -1))
    assert self.load(folder, 1, (20, 10), (20, 10))[1:6, 2:6].all()

  @pytest.mark.parametrize(
    ('tag', 'stored', 'name'),
    [
      (3, (20, 10), 'a.jpg'),
      (2, (20, 10), 'a.png'),
      (6, (20, 20), 'a.webp'),
      (6, (20, 10), 'a.tif'),
    ],
  )
  def test_it_is_refused_where_that_cannot_be_told(
    self, folder, tag, stored, name, monkeypatch
  ):
    monkeypatch.setattr(examples, 'IN_MEMORY', 0)  # before it is read
    with pytest.raises(
      UserError,
      match=rf'^data.source: .*{name} (has an EXIF tag .* cannot be told|is a '
      'TIFF .* before that); write it without the (EXIF )?tag',
    ):
      self.load(folder, tag, stored, stored, name, resize=8)

  def test_another_size_is_refused_before_it_is_read(self, folder, monkeypatch):
    monkeypatch.setattr(examples, 'IN_MEMORY', 0)
    with pytest.raises(UserError, match=r'a.jpg is 10 pixels wide and 20 high'):
      self.load(folder, 6, (20, 10), (20, 11))


def test_boxes_may_be_cut_off(folder):
  def change(given):
    of(0, bbox=[-2, 1, 4, 50])(given)
    of(1, bbox=[3, 3, 0, 5])(given)
    of(2, bbox=[25, 1, 4, 4])(given)
    empty = {**given['annotations'][0], **ONE, 'bbox': [2, 1, 1e-7, 5]}
    given['annotations'].append(empty)

  changed(folder, change)
  source = load(folder, clip=True)
  batch = source.splits['train'].fetch(np.arange(3))
  assert batch['valid'].tolist() == [[1, 0], [0, 0], [0, 0]]
  np.testing.assert_allclose(batch['boxes'][0, 0], [0.1, 0, 1, 0.1])
  assert {
    '3 annotations in train have no area in their image and are left out',
    '1 annotations in train reach out of their image and are cut off at its '
    'edges',
  } <= {*source.notes}
  changed(folder, of(0, bbox=[6, 1, -4, 5]))
  with pytest.raises(UserError, match='negative width'):
    load(folder, clip=True)


def test_a_rounding_out_of_the_image_is_cut_off(folder):
  changed(folder, of(0, bbox=[-0.4, 1, 21, 5]))
  source = load(folder)
  batch = source.splits['train'].fetch(np.arange(1))
  (note,) = (n for n in source.notes if 'cut off' in n)
  assert note.startswith('1 annotations in train reach out')
  np.testing.assert_allclose(batch['boxes'][0, 0], [0.1, 0, 0.6, 1])


def test_more_objects_than_there_is_room_for(folder):
  assert load(folder, most=5).splits['train'].fetch(np.arange(1))[
    'valid'
  ].tolist() == [[True, True, False, False, False]]
  with pytest.raises(
    UserError,
    match=r'train/a.png has 2 objects, and 1 is the most; set data.kw.most=2',
  ):
    load(folder, most=1)
  with pytest.raises(
    UserError, match=r'data.kw.most: -1 should be a number of'
  ):
    load(folder, most=-1)


def test_one_class_will_do(folder):
  def change(given):
    given['categories'] = given['categories'][1:]
    of(0, category_id=3)(given)

  for split in ('train', 'test'):
    changed(folder, change, split)
  assert load(folder).classes == ('cat',)


@pytest.mark.parametrize(
  ('files', 'options', 'message'),
  [
    ({}, {}, 'data.source: .* holds no annotations; it must hold train.json'),
    ({'all.json': '{'}, {}, r'data.source: cannot read .*all.json: '),
    ({'all.json': '[]'}, {}, r'data.source: .*json has no list of images'),
    ({'all.json': ' '}, {}, r'data.source: .*all.json is empty; write the ann'),
    ({'all.json': 100_000 * '['}, {}, r'data.source: cannot read .* too deep'),
    (
      {'train.json': '{}', 'instances_train2017.json': '{}'},
      {},
      'has annotations of train2017 and of train; remove those of one',
    ),
    (
      {'train.json': '{}', 'annotations/train.json': '{}'},
      {},
      'have files of one name; remove one',
    ),
    (
      {'train.json': '{}', 'val.json': '{}'},
      {'test': 'train'},
      "data.kw.test: .* of train, val; without 'train' there are none to train",
    ),
    (
      {'train.json': '{}'},
      {'test': 'val2017'},
      "data.kw.test: .* has no annotations of 'val2017' but of train",
    ),
  ],
)
def test_folders_that_hold_something_else(tmp_path, files, options, message):
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
  with pytest.raises(UserError, match=message):
    load(tmp_path, **options)


def test_a_split_is_missing(folder):
  (folder / 'test.json').rename(folder / 'validation.json')
  with pytest.raises(
    UserError,
    match='has annotations of train, validation and none of test; add them, '
    r'name those to test on by data.kw.test, or keep one file alone, which is '
    'then split',
  ):
    load(folder)
  (folder / 'validation.json').unlink()
  assert load(folder).splits.keys() == {'train', 'test'}
  with pytest.raises(UserError, match=r'data.source: there is no folder'):
    load(folder / 'x')
