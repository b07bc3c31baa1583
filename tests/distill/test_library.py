"""Factories of terms, ours and a user's own, by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.distill import library
from jaxkd.errors import UserError
from jaxkd.types import Term

ADAPTING = dict(
  adapter='', adapter_kw={}, teacher_adapter='', teacher_adapter_kw={}
)


def scaled(*, size=2.0):
  """A term that says nothing of what it looks at."""

  def loss(params, state, context):
    return params['scale'] * context.student['logits'].sum(-1), state

  return Term(lambda key, context: ({'scale': jnp.float32(size)}, {}), loss)


def told(at, teacher, sides, mask, num_data, entry, size=1.0, **more):
  """What a factory is given, kept in the name of the role."""
  seen = at, teacher, sides.layers, mask, num_data, entry, size, more
  return scaled()._replace(of=repr(seen))


def reduced():
  return Term(
    lambda key, context: ({}, {}),
    lambda params, state, context: (context.student['logits'].mean(), state),
  )


def broken(*, size):
  raise KeyError(size)


def none():
  return losses.kl


def make(name, kw=None, **given):
  adapting = ADAPTING | given.pop('adapting', {})
  name = name if name in library.__all__ else f'{__name__}:{name}'
  given = dict(entry='distill.x') | given
  return library.make(name, kw or {}, adapting=adapting, **given)


def test_a_term_that_says_nothing_looks_where_its_entry_does(context):
  term = make('scaled', dict(size=3.0), at=('map', 'map'), teacher='main')
  assert (term.teachers, term.layers) == (('main',), ({'map'}, {'map'}))
  params, state = term.init(jax.random.key(0), context)
  value, _ = term.loss(params, state, context)
  want = 3 * context.student['logits'].sum(-1)
  np.testing.assert_allclose(value, want, rtol=1e-6)


def test_a_factory_is_given_what_it_names():
  term = make(
    'told',
    dict(width=4),
    at=('map', 'logits'),
    teacher=('main', 'b'),
    adapting=dict(adapter='linear'),
    mask='valid',
    num_data=7,
  )
  layers = frozenset({'map'}), frozenset({'logits'})
  seen = ('map', 'logits'), ('main', 'b'), layers, 'valid', 7, 'distill.x'
  assert term.of == repr((*seen, 1.0, {'width': 4}))


@pytest.mark.parametrize(
  ('name', 'given', 'message'),
  [
    ('scald', {}, r"^distill\.x\.term: there is no term 'scald'.*'scaled'"),
    ('scaled', dict(kw=dict(siz=1)), r"^distill\.x\.kw: .*'siz'.*'size'"),
    ('told', dict(kw=dict(at=1)), r'^distill\.x\.kw\.at: it is given to'),
    (
      'scaled',
      dict(adapting=dict(adapter='linear')),
      r'^distill\.x\.adapter: the term .*scaled does not support',
    ),
    ('scaled', dict(mask='valid'), r'^distill\.x\.mask: .*does not support'),
    ('broken', dict(kw=dict(size=1)), r'^distill\.x\.term: KeyError: 1'),
    ('none', {}, r'^distill\.x\.term: .*should give a jaxkd\.Term'),
  ],
)
def test_factories_that_do_not_fit(name, given, message):
  with pytest.raises(UserError, match=message):
    make(name, **given)
  with pytest.raises(UserError, match=r"no term 'critc'.*'critic'"):
    library.find('critc', at='distill.x.term')


def test_a_loss_has_a_value_for_each_example(context):
  with pytest.raises(UserError, match=r'shape \[\] and .* each of the 6'):
    make('reduced').loss({}, {}, context)


def test_where_the_batch_has_a_mask_a_term_without_one_says_all(context):
  batch = {**context.batch, 'valid': np.arange(6) < 3}
  context = context._replace(batch=batch)
  with pytest.raises(
    UserError, match=r'x\.mask: .*term .*scaled can leave out'
  ):
    make('scaled').init(jax.random.key(0), context)
  assert make('scaled', mask='all').init(jax.random.key(0), context)[0]


def test_options_are_those_with_a_value():
  options = library.options('adversary', at='t')
  assert options == dict(
    loss='kl', option='temperature', low=1.0, high=21.0, ramp=0
  )
  assert library.options(f'{__name__}:told', at='t') == {'size': 1.0}
