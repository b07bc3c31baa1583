"""Functions of the host give outputs, or are refused in a sentence."""

import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.errors import UserError
from jaxkd.teachers.host import HostFunction

AT = r'^teachers\.main\.restore: '
W = np.random.default_rng(0).normal(size=(6, 3))
INPUTS = np.random.default_rng(1).random((4, 2, 3, 1), np.float32)


def flat(x):
  return x.reshape(len(x), -1)


@pytest.fixture
def named(monkeypatch):
  """Makes a function one that a config can name."""

  def make(function, kw=None, inputs=INPUTS, classes=3, each=()):
    own = types.ModuleType('mine')
    own.teacher = function
    monkeypatch.setitem(sys.modules, 'mine', own)
    return HostFunction(
      'host:mine:teacher',
      kw or {},
      inputs,
      splits=frozenset({'train', 'test'}),
      classes=classes,
      each=each,
      at='teachers.main',
    )

  return make


def test_arrays_of_any_framework_become_outputs(named):
  seen = []

  def teacher(images, scale: float = 1.0):
    seen.append(images)
    logits = jnp.asarray(scale * flat(images) @ W, jnp.float16)
    return {'logits': logits, 'layer': [list(x.ravel()) for x in images]}

  made = named(teacher, {'scale': 2.0})
  assert {k: x.shape for k, x in made.shapes.items()} == {
    'logits': (3,), 'layer': (6,),
  }  # fmt: skip
  assert {type(x) for x in seen} == {np.ndarray}
  found = made.outputs('test', np.arange(4), lambda: INPUTS)
  assert {x.dtype for x in found.values()} == {np.dtype('float32')}
  np.testing.assert_allclose(found['logits'], 2 * flat(INPUTS) @ W, rtol=5e-3)
  np.testing.assert_array_equal(found['layer'], flat(INPUTS))
  alone = named(lambda images: flat(images) @ W)
  assert alone.shapes.keys() == {'logits'}


def test_files_that_options_name_count(named, tmp_path):
  def teacher(images, weights: str = ''):
    return flat(images) @ W

  file = tmp_path / 'weights.bin'
  file.write_text('a')
  before = named(teacher, {'weights': str(file)}).checksum
  assert named(teacher, {'weights': str(file)}).checksum == before
  file.write_text('b')
  assert named(teacher, {'weights': str(file)}).checksum != before


def fails(images):
  raise RuntimeError('no device')


def with_statistics_of_the_batch(images):
  x = flat(images)
  return ((x - x.mean(0)) / x.std(0)) @ W


def with_dropout(images, random=np.random.default_rng(3)):  # noqa: B008
  x = flat(images)
  return (x * random.integers(2, size=x.shape)) @ W


def lost(images):
  return np.where(
    np.arange(len(images))[:, None] == 1, np.nan, flat(images) @ W
  )


@pytest.mark.parametrize(
  ('function', 'said'),
  [
    (fails, r'RuntimeError: no device'),
    (with_statistics_of_the_batch, r'other examples of its batch.*net\.eval'),
    (with_dropout, r'other examples of its batch.*net\.eval'),
    (lost, 'logits of example 1 is not a number'),
    (lambda x: flat(x), r'\[6\], and there are 3 classes'),
    (lambda x: (flat(x) @ W)[:, None], r'\[1, 3\], and there are 3 classes'),
    (lambda x: (flat(x) @ W)[:1], r'shape \[1, 3\] for 4 examples'),
    (lambda x: (flat(x) @ W).sum(), r'shape \[\] for 4 examples'),
    (lambda x: (flat(x) @ W).argmax(-1), 'logits is int64'),
    (lambda x: {}, 'gives no outputs'),
    (lambda x: {'logits': [[1.0], [1.0, 2.0]] * 2}, 'ValueError'),
    (lambda x: None, r'shape \[\]'),
  ],
)
def test_what_gives_no_outputs_is_refused(function, said, named):
  with pytest.raises(UserError, match=f'{AT}.*{said}') as error:
    named(function)
  assert '\n' not in str(error.value)


def test_other_shapes_later_are_refused(named):
  made = named(lambda x: {'logits': flat(x) @ W, 'layer': x[:, 0]})
  with pytest.raises(UserError, match=f'{AT}.*gave .* for others'):
    made.outputs('train', np.arange(4), lambda: INPUTS.reshape(4, 1, 6, 1))


def test_options_are_checked(named):
  def teacher(images, scale: float = 1.0):
    return scale * flat(images) @ W

  with pytest.raises(UserError, match=r'^teachers\.main\.kw: .*width'):
    named(teacher, {'width': 3})
  with pytest.raises(UserError, match=r'^teachers\.main\.kw\.scale: .*number'):
    named(teacher, {'scale': 'a'})


def test_logits_may_be_of_each_place(named):
  made = named(
    lambda x: np.repeat(x.astype(np.float32), 3, axis=-1), each=(2, 3)
  )
  assert made.shapes['logits'].shape == (2, 3, 3)
