import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.errors import Stopped, UserError
from jaxkd.train import execution as execution_module
from jaxkd.train import fit as fit_module
from jaxkd.train.best import Selection
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.execution import Execution, Plan, fastest
from jaxkd.train.fit import fit
from jaxkd.train.population import Learner, Population

PLAN = Plan(12, eval_every=4, save_every=6, log_every=2, members='vmap')


class Numbers:
  """Batches that are a function of the step."""

  def __init__(self, bad_from=99):
    self._bad_from = bad_from

  def batch(self, step):
    value = np.inf if step >= self._bad_from else 1 + step % 3
    return {'x': np.full((2, 4), value, np.float32)}

  def iterate(self, start, stop, part=None):
    return map(self.batch, range(start, stop))


def learner():
  def init(seed, hyper, shared, given):
    return {'w': jax.random.normal(jax.random.key(seed)), 'n': jnp.int32(0)}

  def step(carry, batch, shared, hyper):
    w = carry['w'] - 0.1 * (carry['w'] - batch['x'].mean())
    one = jnp.ones(())
    return {'w': w, 'n': carry['n'] + 1}, {'loss/a': (w, one), 'loss': (w, one)}

  return Learner(init, step, None)


def run(directory, plan=PLAN, batches=None, made=None, **kw):
  made = made or learner()
  with Checkpoints(directory) as checkpoints:
    return fit(
      lambda mode: Population(made, seeds=[0, 1], mode=mode),
      batches or Numbers(),
      lambda population, carry: {
        'validation/w': np.asarray(population.stacked(carry)['w'])
      },
      plan,
      checkpoints,
      **kw,
    )


def same(first, second):
  one = first.population.stacked(first.carry)
  two = second.population.stacked(second.carry)
  np.testing.assert_array_equal(one['w'], two['w'])
  assert first.history == second.history


def test_evaluates_on_time_and_at_the_end(tmp_path):
  result = run(tmp_path, PLAN._replace(steps=10))
  assert result.history['step'] == [4, 8, 10]
  metrics = result.history['metrics']
  assert set(metrics) == {'train/loss', 'train/loss/a', 'validation/w'}
  assert np.shape(metrics['validation/w']) == (3, 2)


@pytest.mark.parametrize('members', ['vmap', 'sequence'])
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(tmp_path, members):
  plan = PLAN._replace(members=members)
  whole = run(tmp_path / 'whole', plan)
  stop = threading.Event()

  class Stops(Numbers):
    def batch(self, step):
      if step == 6:  # in the middle of what is logged
        stop.set()
      return super().batch(step)

  with pytest.raises(Stopped, match='after step 7 of 12'):
    run(tmp_path / 'broken', plan, Stops(), stop=stop)
  same(run(tmp_path / 'broken', plan), whole)


class Counting(Population):
  """Keeps how many batches each call was given."""

  calls = ()

  def step(self, carry, totals, *batches):
    Counting.calls += (len(batches),)
    return super().step(carry, totals, *batches)


@pytest.mark.parametrize('members', ['vmap', 'unroll', 'sequence'])
def test_steps_of_one_call_are_those_of_many(tmp_path, monkeypatch, members):
  plan = PLAN._replace(members=members, log_every=6)
  one = run(tmp_path / 'one', plan._replace(steps_per_execution=1))
  monkeypatch.setattr(Counting, 'calls', ())
  monkeypatch.setitem(globals(), 'Population', Counting)
  several = run(tmp_path / 'three', plan._replace(steps_per_execution=3))
  # Never past an evaluation (4, 8), a look (6) or a checkpoint (6).
  assert Counting.calls == (3, 1, 1, 1, 1, 1, 3, 1)
  assert several.execution == Execution(members, 3)
  first, second = one.history['metrics'], several.history['metrics']
  for name in first:
    np.testing.assert_allclose(first[name], second[name], rtol=1e-6)


def test_several_steps_at_once_stop_and_go_on_as_an_unbroken_run(tmp_path):
  plan = PLAN._replace(
    eval_every=6, log_every=6, steps_per_execution=2
  )  # fmt: skip
  whole = run(tmp_path / 'whole', plan)
  stop = threading.Event()

  class Stops(Numbers):
    def batch(self, step):
      if step == 6:
        stop.set()
      return super().batch(step)

  with pytest.raises(Stopped, match='after step 8 of 12'):
    run(tmp_path / 'broken', plan, Stops(), stop=stop)
  same(run(tmp_path / 'broken', plan), whole)


@pytest.mark.parametrize(('faster', 'chosen'), [(True, 2), (False, 1)])
def test_several_steps_at_once_where_that_is_faster(
  tmp_path, monkeypatch, faster, chosen
):
  def step_times(ways, batch):
    several = 1e-3 * (0.5 if faster else 2)
    return [several if steps > 1 else 1e-3 for _, steps in ways]

  monkeypatch.setattr(execution_module, '_step_times', step_times)
  assert run(tmp_path / 'short').execution.steps == 1
  monkeypatch.setattr(execution_module, 'LONG_RUN', 12)
  plan = PLAN._replace(save_every=4)
  assert run(tmp_path / 'long', plan).execution.steps == chosen
  monkeypatch.setattr(execution_module, 'SHORT_STEP', 1e-4)
  assert run(tmp_path / 'slow', plan).execution.steps == 1


def test_a_finished_run_is_found_finished(tmp_path):
  first = run(tmp_path)
  seen = []
  again = run(tmp_path, on_log=lambda step, values: seen.append(step))
  assert seen == []
  same(first, again)


def test_what_becomes_infinite_is_named_and_not_saved(tmp_path):
  with pytest.raises(
    UserError, match=r'^loss and a became .* step 9 in member 0, 1; lower'
  ):
    run(tmp_path, batches=Numbers(bad_from=8))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 6


@pytest.mark.parametrize('members', ['vmap', 'sequence'])
def test_one_member_may_diverge_and_the_other_trains_on(tmp_path, members):
  def step(carry, batch, shared, hyper):
    # For one step alone, so that it must be remembered, resumed or not.
    bad = (carry['seed'] == 1) & (carry['n'] == 4)
    loss = jnp.where(bad, jnp.inf, 1.0)
    new = {**carry, 'n': carry['n'] + 1}
    return new, {'loss': (loss, jnp.ones(()))}

  def init(seed, hyper, shared, given):
    return {'seed': seed, 'n': jnp.int32(0), 'w': jnp.ones(())}

  plan = PLAN._replace(members=members, may_diverge=True)
  made, stop, seen = Learner(init, step, None), threading.Event(), []

  class Stops(Numbers):
    def batch(self, step):
      if step == 6:
        stop.set()
      return super().batch(step)

  with pytest.raises(Stopped):
    run(tmp_path, plan, Stops(), made, stop=stop)
  metrics = run(tmp_path, plan, made=made).history['metrics']
  assert np.isnan(metrics['train/loss']).tolist() == [
    [False, False], [False, True], [False, True],
  ]  # fmt: skip
  np.testing.assert_array_equal(
    np.isnan(metrics['validation/w']), np.isnan(metrics['train/loss'])
  )
  run(
    tmp_path / 'seen',
    plan._replace(eval_every=99),
    made=made,
    on_log=lambda step, values: seen.append(len(next(iter(values.values())))),
  )
  assert seen == [2, 2, 1, 1, 1, 1]  # what is shown is of those that go on


def test_all_may_diverge(tmp_path):
  plan = PLAN._replace(may_diverge=True)
  result = run(tmp_path, plan, Numbers(bad_from=6))
  assert np.isnan(result.history['metrics']['validation/w'][-1]).all()


def test_the_choice_of_auto_is_kept_from_the_start(tmp_path):
  class Killed(Numbers):
    def iterate(self, start, stop, part=None):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run(tmp_path, PLAN._replace(members='auto'), Killed())
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 0


def test_auto_keeps_its_choice(tmp_path):
  stop = threading.Event()
  stop.set()
  plan = PLAN._replace(members='auto')
  with pytest.raises(Stopped):
    run(tmp_path, plan, stop=stop)
  with Checkpoints(tmp_path) as checkpoints:
    shapes = Population(learner(), seeds=[0, 1], mode='vmap')
    totals = shapes.no_totals(Numbers().batch(0))
    found = checkpoints.restore({'carry': shapes.shapes, 'totals': totals})
  chosen = Execution(*found[2]['execution'])
  assert chosen.mode in ('vmap', 'sequence')
  result = run(tmp_path, plan)
  assert result.execution == chosen
  assert result.population.mode == chosen.mode


@pytest.mark.parametrize(
  ('steps', 'tried'),
  [(300, [['sequence']]), (301, [['sequence'], ['sequence', 'vmap']])],
)
def test_auto_compiles_another_mode_where_it_can_save_time(
  monkeypatch, steps, tried
):
  seen = []

  def step_times(ways, batch):
    modes = [population.mode for population, _ in ways]
    seen.append(modes)
    return [{'sequence': 1e-2, 'vmap': 1e-3}[mode] for mode in modes]

  def make(mode):
    return Population(learner(), seeds=[0, 1], mode=mode)

  monkeypatch.setattr(execution_module, '_step_times', step_times)
  plan = PLAN._replace(steps=steps, members='auto')
  population, execution = fastest(make, Numbers().batch(0), plan)
  assert seen == tried
  assert population.mode == execution.mode == tried[-1][-1]


def test_modes_are_timed_in_turns():
  """What slows the machine for a while slows each of them."""
  order = []

  class Noted(Population):
    def step(self, *args):
      order.append(self.mode)
      return super().step(*args)

  def make(mode):
    return Noted(learner(), seeds=[0, 1], mode=mode)

  plan = PLAN._replace(steps=10**9, members='auto', steps_per_execution=1)
  fastest(make, Numbers().batch(0), plan)
  assert order[-24:] == ['sequence', 'vmap'] * 12


def test_weights_that_the_last_step_ruined_are_refused(tmp_path):
  def step(carry, batch, shared, hyper):
    ruined = jnp.where(carry['n'] == 11, jnp.nan, carry['w'])
    new = {'w': ruined, 'n': carry['n'] + 1}
    return new, {'loss': (jnp.ones(()), jnp.ones(()))}

  made = learner()._replace(step=step)
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(UserError, match=r'the array w became .* at step 12 in'),
  ):
    fit(
      lambda mode: Population(made, seeds=[0, 1], mode=mode),
      Numbers(),
      lambda population, carry: {},
      PLAN,
      checkpoints,
    )


@pytest.mark.parametrize('steps', [1, 3])
@pytest.mark.parametrize('members', ['vmap', 'sequence'])
def test_what_was_no_number_first_is_named(tmp_path, members, steps):
  """By its own step, though all is looked at some steps later."""

  def init(seed, hyper, shared, given):
    return {'n': jnp.int32(0), 'seed': seed}

  def step(carry, batch, shared, hyper):
    def until(last):
      bad = (carry['n'] >= last) & (carry['seed'] == 1)
      return jnp.where(bad, jnp.nan, 1.0), jnp.ones(())

    new = {**carry, 'n': carry['n'] + 1}
    return new, {'loss/a': until(5), 'loss/b': until(4), 'loss/c': until(99)}

  faults = []

  def explain(fault):
    faults.append(fault)
    return 'explained'

  plan = PLAN._replace(
    eval_every=12, log_every=3, save_every=12, members=members,
    steps_per_execution=steps,
  )  # fmt: skip
  with pytest.raises(UserError, match='explained'):
    run(tmp_path, plan, made=Learner(init, step, None), explain=explain)
  assert faults == [
    fit_module.Fault((1,), 5, ('loss/b',), ('loss/a', 'loss/c'))
  ]


def test_no_checkpoint_holds_what_is_not_a_number(tmp_path):
  """A step may ruin the weights whose loss was finite."""

  def step(carry, batch, shared, hyper):
    w = jnp.where(carry['n'] == 5, jnp.nan, carry['w'])
    return {'w': w, 'n': carry['n'] + 1}, {'loss': (jnp.ones(()),) * 2}

  made = learner()._replace(step=step)
  with pytest.raises(UserError, match=r'the array w became .* at step 6 in'):
    run(tmp_path, made=made)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step() is None


def by_target(targets):
  """Moves w by a tenth each step; members are best where it meets a target."""
  targets = jnp.asarray(targets)

  def init(seed, hyper, shared, given):
    return {'w': jnp.zeros(()), 'seed': seed, 'opt': jnp.zeros(3)}

  def step(carry, batch, shared, hyper):
    found = {**carry, 'w': carry['w'] + 0.1}
    gap = jnp.abs(found['w'] - targets[carry['seed']])
    return found, {'loss': (gap, jnp.ones(()))}

  return Learner(init, step, None)


TARGETS = (0.4, 1.0)  # met at the steps 4 and 10


def without_opt(carry):
  return {name: x for name, x in carry.items() if name != 'opt'}


BEST = Selection('validation/gap', False, 0, without_opt)
OFTEN = PLAN._replace(steps=16, eval_every=2, best=BEST)


def select(directory, plan=OFTEN, seeds=(0, 1), batches=None, **kw):
  def gap(population, carry):
    w = np.asarray(population.stacked(carry)['w'])
    values = np.abs(w - np.array(TARGETS)[list(seeds)])
    return {'validation/gap': values.astype(np.float32)}

  with Checkpoints(directory) as checkpoints:
    return fit(
      lambda mode: Population(by_target(TARGETS), seeds=list(seeds), mode=mode),
      batches or Numbers(),
      gap,
      plan,
      checkpoints,
      **kw,
    )


@pytest.mark.parametrize('members', ['vmap', 'unroll', 'sequence'])
def test_each_member_keeps_its_best_step(tmp_path, members):
  result = select(tmp_path, OFTEN._replace(members=members))
  assert result.best_step == (4, 10)
  np.testing.assert_allclose(result.best['w'], TARGETS, rtol=1e-5)
  assert set(result.best) == {'w', 'seed'}
  np.testing.assert_allclose(
    result.population.stacked(result.carry)['w'], 1.6, rtol=1e-5
  )
  assert run(tmp_path / 'last').best is None


def test_training_ends_once_no_member_was_better_for_long_enough(tmp_path):
  patient = BEST._replace(patience=3)
  result = select(tmp_path, OFTEN._replace(best=patient))
  assert result.best_step == (4, 10)
  assert result.history['step'][-1] == 16  # 10 and three looks
  plan = OFTEN._replace(best=BEST._replace(patience=1))
  result = select(tmp_path / 'less', plan)
  assert result.history['step'] == [2, 4, 6, 8, 10, 12]
  again = select(tmp_path / 'less', plan)
  assert again.history == result.history
  assert again.best_step == (4, 10)
  np.testing.assert_array_equal(again.best['w'], result.best['w'])


def test_a_member_that_is_done_does_not_depend_on_the_others(tmp_path):
  """Its metric gets better again, after its patience has run out."""
  plan = OFTEN._replace(best=BEST._replace(patience=2))
  values = {2: (3, 9), 4: (4, 8), 6: (4, 7), 8: (1, 6), 10: (0, 5), 12: (0, 4)}

  def found(members):
    step = [0]

    def evaluate(population, carry):
      step[0] += 2
      own = values.get(step[0], (0, 4))
      return {'validation/gap': np.array([own[m] for m in members], float)}

    with Checkpoints(tmp_path / str(members)) as checkpoints:
      return fit(
        lambda mode: Population(
          by_target(TARGETS), seeds=members, batch_axis=None, mode=mode
        ),
        Numbers(),
        evaluate,
        plan,
        checkpoints,
      )

  alone, both = found([0]), found([0, 1])
  assert alone.history['step'] == [2, 4, 6]
  assert both.history['step'][-1] == 16
  assert alone.best_step == (2,)
  assert both.best_step == (2, 12)
  np.testing.assert_array_equal(alone.best['w'], both.best['w'][:1])


@pytest.mark.parametrize('members', ['vmap', 'sequence'])
def test_a_choice_that_was_stopped_ends_as_an_unbroken_one(tmp_path, members):
  plan = OFTEN._replace(members=members, best=BEST._replace(patience=3))
  whole = select(tmp_path / 'whole', plan)
  stop = threading.Event()

  class Stops(Numbers):
    def batch(self, step):
      if step == 6:  # the best step of the first member is past
        stop.set()
      return super().batch(step)

  with pytest.raises(Stopped):
    select(tmp_path / 'broken', plan, batches=Stops(), stop=stop)
  broken = select(tmp_path / 'broken', plan)
  assert broken.history == whole.history
  assert broken.best_step == whole.best_step
  np.testing.assert_array_equal(broken.best['w'], whole.best['w'])


def test_a_metric_that_is_never_a_number_chooses_nothing(tmp_path):
  message = r'early_stopping\.metric: validation/gap of member 0 was not'
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(UserError, match=message),
  ):
    fit(
      lambda mode: Population(by_target(TARGETS), seeds=[0, 1], mode=mode),
      Numbers(),
      lambda population, carry: {'validation/gap': np.full(2, np.nan)},
      OFTEN,
      checkpoints,
    )


def test_a_member_that_diverges_has_no_best_step(tmp_path):
  plan = OFTEN._replace(may_diverge=True)

  def evaluate(population, carry):
    return {'validation/w': np.asarray(population.stacked(carry)['w'])}

  with Checkpoints(tmp_path) as checkpoints:
    result = fit(
      lambda mode: Population(learner(), seeds=[0, 1], mode=mode),
      Numbers(bad_from=5),
      evaluate,
      plan._replace(best=BEST._replace(metric='validation/w')),
      checkpoints,
    )
  assert not np.isfinite(result.best['w']).any()
  assert np.isnan(result.history['metrics']['validation/w'][-1]).all()
