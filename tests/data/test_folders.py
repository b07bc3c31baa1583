"""Folders of data: what counts, links, names of splits."""

import pytest

from jaxkd.data import folders
from jaxkd.errors import UserError


def touch(top, *names):
  for name in names:
    (top / name).parent.mkdir(parents=True, exist_ok=True)
    (top / name).touch()


def below(top):
  return [str(path.relative_to(top)) for path in folders.below(top)]


def test_what_is_hidden_or_left_behind_is_no_data(tmp_path):
  touch(tmp_path, 'b/c.png', 'a.png', 'b/d/e.png')
  touch(tmp_path, '.a.png', '._a.png', 'b/.hidden/c.png', 'b/d/.x/y/z.png')
  touch(tmp_path, '__MACOSX/a.png', 'b/@eaDir/a.png', 'Thumbs.db')
  assert below(tmp_path) == ['a.png', 'b/c.png', 'b/d/e.png']
  assert [p.name for p in folders.listed(tmp_path)] == ['a.png', 'b']


def test_the_folder_itself_may_be_hidden(tmp_path):
  touch(tmp_path, '.cache/set/a.png')
  assert below(tmp_path / '.cache' / 'set') == ['a.png']


def test_links_are_followed(tmp_path):
  touch(tmp_path, 'pool/x/1.png', 'pool/2.png', 'set/3.png')
  (tmp_path / 'set' / 'more').symlink_to(tmp_path / 'pool')
  (tmp_path / 'set' / '4.png').symlink_to('3.png')
  (tmp_path / 'link').symlink_to('set')
  found = ['3.png', '4.png', 'more/2.png', 'more/x/1.png']
  assert below(tmp_path / 'set') == below(tmp_path / 'link') == found


@pytest.mark.parametrize('target', ['.', '..', '../..', '../b', '/'])
def test_links_in_a_circle_are_named(tmp_path, target):
  touch(tmp_path, 'a/b/1.png')
  (tmp_path / 'a' / 'b' / 'round').symlink_to(target)
  with pytest.raises(
    UserError, match=r'^data\.source: .*round is a link to .*in'
  ):
    folders.below(tmp_path / 'a')
  with pytest.raises(UserError, match=r'round is a link to'):
    folders.below(tmp_path / 'a' / 'b')


def test_two_links_to_each_other_are_named(tmp_path):
  for one, other in ('ab', 'ba'):
    touch(tmp_path, f'{one}/1.png')
    (tmp_path / one / 'to').symlink_to(tmp_path / other)
  with pytest.raises(UserError, match='a/to/to is a link to'):
    folders.below(tmp_path / 'a')


@pytest.mark.parametrize('target', ['nowhere.png', 'broken.png'])
def test_broken_links_are_named(tmp_path, target):
  touch(tmp_path, 'a/1.png')
  (tmp_path / 'a' / '.hidden').symlink_to('nowhere')
  assert below(tmp_path) == ['a/1.png']
  (tmp_path / 'a' / 'broken.png').symlink_to(target)
  message = rf'broken\.png is a link to {target}, which is not there'
  with pytest.raises(UserError, match=message):
    folders.below(tmp_path)


def test_a_folder_that_is_none_is_named(tmp_path):
  touch(tmp_path, 'a')
  with pytest.raises(UserError, match=r'cannot read the folder .*a: Not a dir'):
    folders.listed(tmp_path / 'a')


@pytest.mark.parametrize(
  ('names', 'found'),
  [
    ('test train', {'train': 'train', 'test': 'test'}),
    ('Train VALID Test', {'train': 'Train', 'validation': 'VALID',
                          'test': 'Test'}),
    ('training dev testing', {'train': 'training', 'validation': 'dev',
                              'test': 'testing'}),
    ('val', {'validation': 'val'}),
    ('validation', {'validation': 'validation'}),
    ('cat dog tests', {}),
  ],
)  # fmt: skip
def test_splits_have_several_names(names, found):
  assert folders.splits(names.split(), 'x') == found
  assert [*folders.splits(names.split(), 'x')] == [*found]


@pytest.mark.parametrize('names', ['val valid', 'Test test', 'dev validation'])
def test_two_names_of_a_split_are_refused(names):
  one, other = sorted(names.split())
  message = f'^data.source: x has {one} and {other}, which are names of the'
  with pytest.raises(UserError, match=message):
    folders.splits([*names.split(), 'train'], 'x')


@pytest.mark.parametrize(
  'names', ['training_set test_set', 'Train-Images valsplit', 'train_data dev']
)
def test_names_that_read_like_splits_are_no_classes(names):
  with pytest.raises(UserError, match=r'the folders .* as if these'):
    folders.check_no_splits(names.split(), where='it')


@pytest.mark.parametrize('names', ['train bus', 'testset cat', 'set images'])
def test_classes_may_be_called_as_a_split(names):
  folders.check_no_splits(names.split(), where='it')
