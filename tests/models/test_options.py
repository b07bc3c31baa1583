"""Options of models are of the types that they are annotated with."""

from collections.abc import Sequence

import numpy as np
import pytest

from jaxkd.errors import UserError
from jaxkd.models import options


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
  options.check(name, value, annotation, at='kw')


@pytest.mark.parametrize(
  ('name', 'value', 'annotation', 'message'),
  [
    ('width', 0, int, 'kw: 0 should be a whole number above 0'),
    ('width', 2.5, int, 'whole number'),
    ('attention', True, int, 'whole number$'),
    ('init', float('nan'), float, 'nan should be a number above 0'),
    ('dropout', '1', float, 'a number$'),
    ('widths', 'abc', Sequence[int], 'a list of whole numbers'),
    ('bins', (2, 0), Sequence[int], 'a list, each a whole number above 0'),
    ('auxiliary', 'yes', bool, "'yes' should be True or False"),
    ('stem', 3, str, 'a text'),
  ],
)
def test_others_are_named(name, value, annotation, message):
  with pytest.raises(UserError, match=message):
    options.check(name, value, annotation, at='kw')
