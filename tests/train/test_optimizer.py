import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd.distill.dot import dot
from jaxkd.errors import UserError
from jaxkd.run import config, config_values
from jaxkd.train import optimizer


def train(**given):
  return config.plain(config.complete({'train': given}))['train']


def updates(made):
  params = {'w': jnp.ones(3)}
  got, _ = made.update({'w': jnp.full(3, 2.0)}, made.init(params), params)
  return np.asarray(got['w'])


def test_any_optimiser_of_optax_by_name():
  made = optimizer.optimizer(
    train(
      optimizer=dict(name='sgd', kw=dict(momentum=0.9)),
      schedule='constant',
      learning_rate=0.5,
    )
  )
  np.testing.assert_allclose(updates(made), -1.0)


def test_the_gradient_is_clipped():
  made = optimizer.optimizer(
    train(
      optimizer=dict(name='sgd', kw={}),
      schedule='constant',
      learning_rate=1.0,
      clip=1.0,
    )
  )
  np.testing.assert_allclose(np.linalg.norm(updates(made)), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'options', 'want'),
  [
    ('constant', {}, [2.0, 2.0, 2.0]),
    ('cosine', {}, [2.0, 1.0, 0.0]),
    ('linear', dict(end_value=0.0), [2.0, 1.0, 0.0]),
    ('exponential', dict(decay_rate=0.25), [2.0, 1.0, 0.5]),
    ('exponential_decay', dict(decay_rate=0.25), [2.0, 1.0, 0.5]),
    ('warmup_cosine', dict(warmup_steps=5), [0.0, 2.0, 0.0]),
    (
      'piecewise_constant',
      dict(boundaries_and_scales={4: 0.1}),
      [2.0, 0.2, 0.2],
    ),
  ],
)
def test_any_schedule_of_optax_by_name(name, options, want):
  made = optimizer.schedule(name, 2.0, 10, options, at='train.schedule')
  np.testing.assert_allclose([made(s) for s in (0, 5, 10)], want, atol=1e-6)


def test_a_schedule_of_ones_own_is_given_the_rate_and_the_steps():
  for name in ('optax:cosine_decay_schedule', f'{__name__}:_halving'):
    made = optimizer.schedule(name, 2.0, 10, {}, at='train.schedule')
    assert (made(0), made(10)) == (2.0, 0.0 if 'optax' in name else 1.0)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    (f'{__name__}:_halving', dict(wide=1), r'train\.schedule_kw: .*_h.*wide'),
    ('optax:cosin', {}, r"train\.schedule: .*'cosin'"),
    ('scale_by', {}, 'no schedule'),
  ],
)
def test_what_is_no_schedule_is_refused(name, options, message):
  with pytest.raises(UserError, match=message):
    optimizer.schedule(name, 2.0, 9, options, at='train.schedule')


def _halving(init_value, decay_steps):
  return lambda step: init_value * 0.5 ** (step / decay_steps)


def test_a_warm_up_ends_before_the_last_step():
  options = dict(warmup_steps=9)
  made = optimizer.schedule('warmup_cosine', 2.0, 10, options, at='schedule')
  assert made(9) == 2.0
  with pytest.raises(UserError, match=r'schedule_kw.warmup_steps: .* make 9'):
    optimizer.schedule('warmup_cosine', 2.0, 9, options, at='schedule')


def test_a_mapped_learning_rate():
  given = train(optimizer=dict(name='sgd', kw={}), schedule='cosine')

  def update(rate):
    made = optimizer.optimizer({**given, 'learning_rate': rate})
    params = {'w': jnp.ones(3)}
    return made.update(params, made.init(params), params)[0]['w'][0]

  got = jax.vmap(update)(jnp.array([0.1, 0.2]))
  np.testing.assert_allclose(got, [-0.1, -0.2], rtol=1e-6)


def test_which_schedules_take_a_mapped_rate():
  given = train(optimizer=dict(name='sgd', kw={}), schedule='cosine', steps=10)
  assert optimizer.takes_traced_rate(given)
  warm = dict(schedule='warmup_cosine', schedule_kw=dict(warmup_steps=1))
  assert not optimizer.takes_traced_rate({**given, **warm})
  assert not optimizer.takes_traced_rate({**given, 'by_path': {'a': warm}})


@pytest.mark.parametrize('name', ['rprop', 'sm3'])
def test_optimisers_that_take_no_schedule_are_given_the_number(name):
  given = train(optimizer=dict(name=name), schedule='constant')
  assert (updates(optimizer.optimizer(given)) <= 0).all()
  with pytest.raises(UserError, match=rf'^train.schedule: optax.{name} takes'):
    optimizer.optimizer({**given, 'schedule': 'cosine'})


def test_an_optimiser_of_ones_own():
  given = train(optimizer=dict(name='optax:adam', kw={}))
  assert isinstance(
    optimizer.optimizer(given), optax.GradientTransformationExtraArgs
  )


def test_an_optimiser_whose_result_is_not_what_it_trains_is_refused():
  name = 'optax.contrib:schedule_free_sgd'
  message = r'^train\.optimizer\.name: a schedule-free .* take another'
  with pytest.raises(UserError, match=message):
    optimizer.optimizer(train(optimizer=dict(name=name, kw={})))
  free = optax.contrib.schedule_free_adamw(0.1)
  inside = optax.chain(optax.clip(1.0), free)
  with pytest.raises(UserError, match=r'^mine: a schedule-free'):
    optimizer.check_result(inside, 'mine')
  ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.5))
  sam = optax.contrib.sam(optax.sgd(0.1), ascent)
  for given in (sam, optax.chain(optax.clip(1.0), sam)):
    with pytest.raises(UserError, match=r'^mine: sharpness-aware minimisation'):
      optimizer.check_result(given, 'mine')
  for other in (optax.adamw(0.1), optax.MultiSteps(optax.sgd(0.1), 2)):
    optimizer.check_result(other, 'mine')


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(optimizer=dict(name='adamx')), "train.optimizer.name.*'adamax'"),
    (
      dict(optimizer=dict(name='sgd', kw=dict(momentun=0.9))),
      "train.optimizer.kw.*'momentum'",
    ),
    (dict(schedule='cosin'), "train.schedule: .*'cosin'"),
    (
      dict(schedule='linear'),
      r'train.schedule_kw: optax.linear_schedule: .*end_value',
    ),
  ],
)
def test_names_that_optax_does_not_have(given, message):
  with pytest.raises(UserError, match=message):
    optimizer.optimizer(train(**given))


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('adamw', dict(weight_decay=-1e-4), 'weight_decay: -0.0001 .* 0 or more'),
    ('adam', dict(b2=1.0), 'b2: 1.0 .* from 0 to below 1'),
    ('adam', dict(eps=math.nan), 'eps: nan should be 0 or more'),
    ('sgd', dict(momentum=9), 'momentum: 9 should be above -1 and below 1'),
    ('adan', dict(b3=1.5), 'b3: 1.5 should be from 0 to below 1'),
    ('adafactor', dict(decay_rate=-0.8), 'decay_rate: -0.8 .* above 0'),
  ],
)
def test_constants_with_which_no_optimiser_learns(name, options, message):
  given = train(optimizer=dict(name=name, kw=options))
  with pytest.raises(UserError, match=rf'^train\.optimizer\.kw\.{message}'):
    optimizer.optimizer(given)


NETS, TERMS = np.array([3.0, 4.0]), np.array([0.6, 0.8])  # of length 5 and 1


def whole(nets=NETS, terms=TERMS):
  tree = {'nets': {'student': {'w': nets}}, 'terms': {'game': {'w': terms}}}
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def taken(made, params=None, **extra):
  """The updates of a gradient of `whole()`, of nets and of terms."""
  params = whole() if params is None else params
  got, _ = jax.jit(optax.with_extra_args_support(made).update)(
    whole(), made.init(params), params, **extra
  )
  return got['nets']['student']['w'], got['terms']['game']['w']


def sgd(by_path, **given):
  given = (
    dict(optimizer=dict(name='sgd'), schedule='constant', learning_rate=0.1)
    | given
  )
  return train(**given, by_path=by_path)


@pytest.mark.parametrize('path', ['terms/game', 'terms', 'terms/*/w', '*game*'])
def test_a_path_has_a_rate_of_its_own(path):
  nets, terms = taken(optimizer.optimizer(sgd({path: dict(learning_rate=2)})))
  np.testing.assert_allclose(nets, -0.1 * NETS, rtol=1e-6)
  np.testing.assert_allclose(terms, -2.0 * TERMS, rtol=1e-6)


def test_a_path_has_all_else_of_the_others():
  """Momentum, decay and the schedule; but another schedule its own options."""
  given = dict(
    schedule='piecewise_constant',
    schedule_kw=dict(boundaries_and_scales={0: 0.5}),
    weight_decay=0.01,
    optimizer=dict(name='sgd', kw=dict(momentum=0.9, nesterov=True)),
  )
  same = optimizer.optimizer(sgd({'terms': {}}, **given))
  want = taken(optimizer.optimizer(sgd({}, **given)))
  for got, wanted in zip(taken(same), want, strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
  own = dict(schedule='constant', optimizer=dict(kw={}), weight_decay=0.0)
  nets, terms = taken(optimizer.optimizer(sgd({'terms': own}, **given)))
  np.testing.assert_allclose(nets, want[0], rtol=1e-6)
  np.testing.assert_allclose(terms, -0.1 * TERMS, rtol=1e-6)


def test_a_rate_that_is_changed_later_is_that_of_a_path_too():
  """As by an arm, or a grid; a path's own rate stays."""
  given = sgd({'terms': dict(weight_decay=0.0)}) | {'learning_rate': 0.2}
  nets, terms = taken(optimizer.optimizer(given))
  np.testing.assert_allclose(nets, -0.2 * NETS, rtol=1e-6)
  np.testing.assert_allclose(terms, -0.2 * TERMS, rtol=1e-6)
  given = config.put(
    sgd({'terms': dict(learning_rate=1.0)}), 'learning_rate', 0.2
  )
  np.testing.assert_allclose(
    taken(optimizer.optimizer(given))[1], -TERMS, rtol=1e-6
  )


def test_each_is_clipped_by_its_own_length():
  own = {'terms': dict(clip=0.5)}
  nets, terms = taken(optimizer.optimizer(sgd(own, clip=1.0)))
  np.testing.assert_allclose(nets, -0.1 * NETS / 5, rtol=1e-5)
  np.testing.assert_allclose(terms, -0.1 * TERMS / 2, rtol=1e-5)


def test_a_mapped_rate_of_a_path():
  given = sgd({'terms': dict(learning_rate=1.0)})

  def update(rate):
    own = config.put(given, 'by_path.terms.learning_rate', rate)
    return taken(optimizer.optimizer(own))[1]

  got = jax.vmap(update)(jnp.array([0.5, 2.0]))
  np.testing.assert_allclose(got, [-0.5 * TERMS, -2 * TERMS], rtol=1e-6)


def test_an_optimiser_of_parts_sees_those_of_what_it_trains():
  """The same as without the other, whose parts it never sees."""
  parts = {'task': whole(0.25 * NETS), 'distill': whole(0.75 * NETS)}
  name = dict(name='jaxkd.distill.dot:dot', kw=dict(momentum=0.5, delta=0.25))
  own = {'terms': dict(optimizer=dict(name='sgd'), learning_rate=1.0)}
  made = optimizer.optimizer(sgd(own, optimizer=name))
  state = made.init(whole())
  alone = dot(0.1, momentum=0.5, delta=0.25)
  kept = alone.init(whole()['nets'])
  for _ in range(2):
    got, state = made.update(whole(), state, whole(), parts=parts)
    want, kept = alone.update(
      whole()['nets'], kept, parts={k: v['nets'] for k, v in parts.items()}
    )
    jax.tree.map(np.testing.assert_array_equal, got['nets'], want)
    np.testing.assert_allclose(got['terms']['game']['w'], -TERMS, rtol=1e-6)


@pytest.mark.parametrize(
  ('paths', 'message'),
  [
    (
      {'terms/gane': {}},
      r"^train\.by_path: there is no path 'terms/gane'.*'terms/game'",
    ),
    ({'term': {}}, r"^train\.by_path: there is no path 'term'.*'terms'"),
    (
      {'terms': {}, 'terms/game': {}},
      r'^train\.by_path: terms and terms/game both match terms/game/w',
    ),
  ],
)
def test_paths_that_name_nothing_or_the_same(paths, message):
  made = optimizer.optimizer(sgd(paths))
  with pytest.raises(UserError, match=message):
    made.init(whole())


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    (dict(rate=1.0), r"^train\.by_path\.terms: .*no entry 'rate'"),
    (
      dict(learning_rate='1'),
      r'^train\.by_path\.terms\.learning_rate: .*number',
    ),
    (
      dict(learning_rate=0.0),
      r'^train\.by_path\.terms\.learning_rate: 0\.0 sh',
    ),
    (dict(clip=-1.0), r'^train\.by_path\.terms\.clip: -1\.0 should'),
    (
      dict(optimizer=dict(name='adamx')),
      r"^train\.by_path\.terms\.optimizer\.name: .*'adamax'",
    ),
    (
      dict(schedule='linear'),
      r'^train\.by_path\.terms\.schedule_kw: optax',
    ),
  ],
)
def test_entries_of_a_path_that_make_no_sense(entry, message):
  def check():
    given = {'train': {'by_path': {'terms': entry}}}
    made = config.plain(config.complete(given))
    config_values.check(made)
    optimizer.optimizer(made['train'])

  with pytest.raises(UserError, match=message):
    check()


def test_an_entry_that_an_arm_brings_is_checked_too():
  given = sgd({}) | {'by_path': {'terms': dict(rate=1.0)}}
  with pytest.raises(UserError, match=r"by_path\.terms: there is no entry 'ra"):
    optimizer.optimizer(given)
