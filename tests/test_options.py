"""Options by name and by the types that they are annotated with."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models, options
from jaxkd.errors import UserError


@pytest.mark.parametrize(
  ('name', 'value', 'annotation'),
  [
    ('width', 3, int),
    ('width', np.int64(3), int),
    ('attention', 0, int),
    ('dropout', 0, float),
    ('widths', (), Sequence[int]),
    ('widths', [4, 5], Sequence[int]),
    ('auxiliary', False, bool),
    ('stem', 'deep', str),
    ('other', object(), object),
  ],
)
def test_right_ones_pass(name, value, annotation):
  positive = name in models.SIZES
  options.check_type(value, annotation, at='kw', positive=positive)


@pytest.mark.parametrize(
  ('name', 'value', 'annotation', 'message'),
  [
    ('width', 0, int, 'kw: 0 should be a whole number above 0'),
    ('width', 2.5, int, 'whole number'),
    ('attention', True, int, 'whole number$'),
    ('init', float('nan'), float, 'nan should be a number above 0'),
    ('dropout', '1', float, 'a number$'),
    ('widths', 'abc', Sequence[int], 'a list of whole numbers'),
    ('bins', (2, 0), Sequence[int], 'a list of whole numbers above 0'),
    ('auxiliary', 'yes', bool, "'yes' should be True or False"),
    ('stem', 3, str, 'a text'),
  ],
)
def test_others_are_named(name, value, annotation, message):
  positive = name in models.SIZES
  with pytest.raises(UserError, match=message):
    options.check_type(value, annotation, at='kw', positive=positive)


def loss(student, *, power: float = 2.0, kind: Literal['l1', 'l2'] = 'l2'):
  return student, power, kind


def needy(x, size: int, *, sides: tuple[float, float] | str = '', **more):
  return x, size, sides, more


@pytest.mark.parametrize(
  ('value', 'annotation', 'message'),
  [
    (True, int | float, 'True should be a number'),
    ('x', int | float | None, "'x' should be a number or None"),
    ((1, 2, 3), tuple[float, float] | str, 'a list of 2 numbers or a text'),
    ([1, 'a'], Sequence[float], 'a list of numbers'),
    ('l3', Literal['l1', 'l2'], "should be 'l1' or 'l2'"),
    (3, dict, '3 should be a dict'),
    ([[1], [2.5]], Sequence[Sequence[int]], 'a list of lists of whole numbers'),
    (float('inf'), float | None, 'inf should be a number or None'),
  ],
)
def test_annotations_of_several_parts(value, annotation, message):
  assert options.fault(value, annotation).endswith(message)


@pytest.mark.parametrize(
  ('value', 'annotation'),
  [
    (None, float | None),
    (3, float | None),
    ([1, 2.5], tuple[float, float] | str),
    ('any', tuple[float, float] | str),
    ((), tuple[int, ...]),
    ({}, Mapping[str, int]),
    (jnp.ones(()), float),
    (object(), jnp.dtype),
    (object(), inspect.Parameter.empty),
  ],
)
def test_what_fits_or_is_not_ours_to_judge(value, annotation):
  assert options.fault(value, annotation) == ''


@pytest.mark.parametrize(
  ('function', 'given', 'message'),
  [
    (loss, dict(powr=3), r"kw: there is no option of it 'powr'; .*'power'"),
    (loss, dict(power='3'), "kw.power: '3' should be a number"),
    (needy, dict(any=3), "kw: it needs the option 'size'; set it"),
    (needy, dict(size=0), 'kw.size: 0 should be a whole number above 0'),
  ],
)
def test_options_of_a_function(function, given, message):
  takes = options.parameters_of(function)
  first = {next(iter(takes))}
  with pytest.raises(UserError, match=f'^{message}'):
    options.check(
      given, takes, name='it', at='kw', filled=first, positive={'size'}
    )


def test_a_class_is_called_without_itself():
  class Model:
    def __init__(self, width: int, *, rngs: 'NoSuchName'):  # noqa: F821
      pass

  assert list(options.parameters_of(Model)) == ['width', 'rngs']
