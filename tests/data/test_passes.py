"""Passes over many examples, in parts, shown if they take long."""

import contextlib

import numpy as np
import pytest

from jaxkd.data import passes


@pytest.fixture
def shown():
  """What was shown of passes."""
  told = []

  @contextlib.contextmanager
  def stage(name, steps):
    told.append((name, steps))
    yield lambda step, values: told.append(step)

  with passes.shown_by(stage):
    yield told


@pytest.mark.parametrize(
  ('count', 'each', 'sizes'),
  [
    (600, 0, [256, 256, 88]),
    (5, 2**23, [2, 2, 1]),
    (3, 2**30, [1, 1, 1]),
    (0, 1, []),
  ],
)
def test_parts_are_small_enough(count, each, sizes):
  found = [*passes.parts(count, each, 'x')]
  assert [len(part) for part in found] == sizes
  if found:
    np.testing.assert_array_equal(np.concatenate(found), np.arange(count))


def test_what_takes_long_is_shown(shown, monkeypatch):
  assert len([*passes.over('abc' * 200, 'letters')]) == 600
  assert shown == []
  monkeypatch.setattr(passes, 'PATIENCE', -1)
  assert ''.join(passes.over('abc' * 200, 'letters')) == 'abc' * 200
  assert shown == [('letters', 600), 256, 512, 600]


def test_nothing_is_shown_elsewhere(monkeypatch):
  monkeypatch.setattr(passes, 'PATIENCE', -1)
  assert len([*passes.parts(600, 0, 'x')]) == 3
