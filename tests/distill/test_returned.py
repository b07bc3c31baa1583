import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.distill.location import Sides
from jaxkd.distill.returned import Checks
from jaxkd.errors import UserError

BOTH = Sides(None, None, ('map', 'map'), ('main',))
CHECKS = Checks('term', 'mine', BOTH, 'valid', takes_mask=False, named=False)
SENTENCES = jnp.ones((2, 3), bool)


@pytest.mark.parametrize('counts', [None, jnp.ones(2, bool), SENTENCES])
def test_one_float_per_example_is_a_loss(counts):
  takes = CHECKS._replace(takes_mask=True)
  takes.result(jnp.ones(2), counts, 2, jnp.ones((2, 3, 4)))


@pytest.mark.parametrize(
  ('result', 'counts', 'message'),
  [
    (
      jnp.ones(2, int),
      None,
      r'^term: the loss mine returns int.*floats',
    ),
    (jnp.ones(3), None, r'^term: .* the shape \[3\] .* per example, \[2\]'),
    (jnp.ones((2, 4)), SENTENCES, r'^term\.mask: .*\[2, 3\] and the loss \[2'),
    (jnp.ones(2), SENTENCES, r'^term\.mask: the loss mine .*takes `valid`'),
  ],
)
def test_what_is_no_loss_or_does_not_fit_the_mask(result, counts, message):
  with pytest.raises(UserError, match=message):
    CHECKS.result(result, counts, 2, jnp.ones((2, 3, 4)))


def test_a_loss_that_combines_positions_takes_no_fractions_of_them():
  takes = CHECKS._replace(takes_mask=True)
  with pytest.raises(UserError, match='make it a bool'):
    takes.result(jnp.ones(2), SENTENCES * 0.5, 2, jnp.ones((2, 3, 4)))


def test_a_mask_of_positions_needs_outputs_with_these_positions():
  CHECKS.positions(None, np.ones((2, 5)))
  CHECKS.positions(SENTENCES, [np.ones((2, 5)), np.ones((2, 3, 4))])
  with pytest.raises(UserError, match="'map' of the student has no such"):
    CHECKS.positions(SENTENCES, np.ones((2, 5)))


def test_unequal_shapes_are_explained():
  """The remedy is an adapter where one would help, else other layers."""
  narrow, wide = (np.ones((2, 3)),), (np.ones((2, 4)),)

  def said(value):
    return CHECKS.mismatch(ValueError('unequal'), narrow, wide, value)

  assert said(lambda student: student).endswith(
    "set term.adapter='linear' or choose other layers"
  )

  def fails(student):
    raise ValueError

  assert said(fails).endswith('(unequal); choose other layers')
  same = CHECKS.mismatch(ValueError('why'), narrow, narrow, fails)
  assert same == 'term: the loss mine: why'
