"""Errors say which entry is at fault, in their text and as a field."""

import copy
import pickle

import pytest
from safetensors import SafetensorError

from jaxkd.errors import (
  UnknownName,
  UserError,
  blamed,
  unknown,
  within,
  writing,
)


def test_an_entry_is_said_before_the_sentence():
  error = UserError('0 is too few', entry='train.steps')
  assert str(error) == 'train.steps: 0 is too few'
  assert (error.entry, error.sentence) == ('train.steps', '0 is too few')
  for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
    assert (str(same), same.entry) == (str(error), error.entry)
  assert str(UserError('train.steps: 0')) == 'train.steps: 0'


def test_an_unknown_name_has_the_nearest_and_what_it_should_have_named():
  error = unknown('loss', 'kll', ['kl', 'mse'], 'distill.soft.loss')
  assert (error.kind, error.name) == ('loss', 'kll')
  assert error.entry == 'distill.soft.loss'
  assert str(error) == (
    "distill.soft.loss: there is no loss 'kll'; did you mean 'kl'? "
    '(known: kl, mse)'
  )
  many = unknown('token', 'x', [f'{i:04}' for i in range(300)])
  assert str(many).endswith(', 0199 and 100 more)')


@pytest.mark.parametrize(
  ('where', 'error', 'text', 'entry'),
  [
    ('teachers.a.', UserError('x', entry='train'), 'teachers.a.train: x',
     'teachers.a.train'),
    ('teachers.a.', UserError('train: x'), 'teachers.a.train: x', ''),
    ('teachers.a.', UserError('teachers.a.b: x'), 'teachers.a.b: x', ''),
    ('distill.a: ', UserError('x'), 'distill.a: x', 'distill.a'),
    ('distill.a: ', UserError('x', entry='distill.a.kw'), 'distill.a.kw: x',
     'distill.a.kw'),
    ('arms.b: ', UserError('x', entry='distill.a'), 'arms.b: distill.a: x',
     'arms.b'),
    ('', UserError('x', entry='train'), 'train: x', 'train'),
  ],
)  # fmt: skip
def test_an_error_is_put_into_its_place(where, error, text, entry):
  with pytest.raises(UserError) as caught, within(where):
    raise error
  assert (str(caught.value), caught.value.entry) == (text, entry)


def test_what_an_error_knows_goes_with_it():
  with pytest.raises(UnknownName) as caught, within('students.s.model: '):
    raise unknown('layer', 'head', ['stem'])
  assert (caught.value.kind, caught.value.name) == ('layer', 'head')


def test_any_exception_becomes_one_that_names_the_entry():
  with (
    pytest.raises(UserError, match=r'^data: KeyError: .*test_errors') as caught,
    blamed('data'),
  ):
    raise KeyError('x')
  assert caught.value.entry == 'data'


@pytest.mark.parametrize(
  'error',
  [
    OSError(28, 'full'),
    SafetensorError('I/O error: no room (os error 28)'),
    ValueError("RESOURCE_EXHAUSTED: no room [os_error_code='28']"),
  ],
)
def test_a_full_disk_is_told_by_whatever_writes_to_it(error):
  with (
    pytest.raises(UserError, match=r'^x cannot be written: No space left'),
    writing('x'),
  ):
    raise error
