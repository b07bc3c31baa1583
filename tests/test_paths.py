import jax.numpy as jnp
import pytest

from jaxkd import paths

TREE = {'a': {'kernel': 1, 'bias': 2}, 'b': [3, {'kernel': 4}]}


def test_leaves_have_paths():
  assert paths.by_path(TREE) == {
    'a/kernel': 1,
    'a/bias': 2,
    'b/0': 3,
    'b/1/kernel': 4,
  }
  with pytest.raises(ValueError, match='the same path'):
    paths.by_path({'a': {'b': jnp.ones(1)}, 'a/b': jnp.ones(1)})


def test_only_what_is_named_changes():
  assert paths.changed(TREE, {'a/bias': str, 'b/0': lambda x: x + 1}) == {
    'a': {'kernel': 1, 'bias': '2'},
    'b': [4, {'kernel': 4}],
  }
  whole = paths.changed(TREE, {'b': len}, lambda x: isinstance(x, list))
  assert whole['b'] == 2


@pytest.mark.parametrize(
  ('path', 'pattern', 'matched'),
  [
    ('head/kernel', 'head', True),
    ('head/kernel', 'head/kernel', True),
    ('head/kernel', '*kernel', True),
    ('head/kernel', 'stem|head', True),
    ('head/kernel', 'stem|*bias', False),
    ('header/kernel', 'head', False),
    ('kernel', '*kernel', True),
  ],
)
def test_globs(path, pattern, matched):
  assert paths.matches(path, pattern) == matched
