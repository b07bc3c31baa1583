"""What a config says of arrays."""

import pytest

from jaxkd.data import conventions
from jaxkd.errors import UserError


def test_only_what_is_told_to_be_free_has_no_limits():
  assert conventions.of(layout='features').limits is None
  assert conventions.of(range='any').limits is None
  assert (
    conventions.of().limits == conventions.of(range=[0, 255]).limits == (0, 1)
  )


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_classes': -1}, r'num_classes: -1 should be'),
    ({'num_classes': 2.0}, r'num_classes: 2\.0 should be'),
    ({'num_classes': True}, r'num_classes: True should be'),
    ({'classes': 'first'}, r"classes: 'first' should be .*'sorted'"),
    ({'classes': 3}, 'classes: 3 should be'),
    ({'classes': (1, 1)}, r'classes: \(1, 1\) lists a label twice'),
    ({'classes': (1, 2), 'num_classes': 2}, 'classes: it already sets the num'),
    ({'range': (1, 0)}, r'range: \(1, 0\) should be'),
    ({'range': (0,)}, r'range: \(0,\) should be'),
    ({'range': (0, float('inf'))}, 'range: .* should be'),
    ({'range': (0, float('nan'))}, 'range: .* should be'),
    ({'range': ('a', 'b')}, 'range: .* should be'),
    ({'range': 'none'}, "range: 'none' should be"),
    ({'range': 255}, 'range: 255 should be'),
    ({'layout': 'CHW'}, "layout: 'CHW' should be one of 'NHWC', 'NCHW', 'f"),
  ],
)  # fmt: skip
def test_invalid_conventions_are_refused(options, message):
  with pytest.raises(UserError, match=rf'^data\.kw\.{message}'):
    conventions.of(**options)
