"""One member's step: how a batch becomes a gradient, and a gradient an update.

Read from `step` down. A batch is augmented, and perhaps written by the student
(`_prepared`). Every net sees it and gives its outputs, and every term gets a
`Context` of these (`contexts.py`). The terms give losses (`_loss`); the
gradient of their sum (`_gradients`) becomes an update (`_updated`). Everything
here is for one member; `train/population.py` maps it over many.

The carry of a member is a dict: ``train`` (parameters of the ``nets`` and of
the ``terms``), ``state`` (what nets and terms remember, and the statistics of
the running mean), ``opt``, ``step``, ``seed``, and ``average`` (the running
mean of the parameters) where there is one.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxkd.distill import running_mean
from jaxkd.distill.contexts import contexts, shown, terms_by_net
from jaxkd.distill.evaluation import evaluate
from jaxkd.distill.system import Recipe, System
from jaxkd.keys import fold
from jaxkd.paths import replaced
from jaxkd.train import trainable
from jaxkd.train.population import Learner
from jaxkd.types import Context

MEASURED = 'measured'  # the field of a rollout's batch that is reported


def learner(
  system: System,
  look: Callable[[str, Context], None] = lambda name, context: None,
) -> Learner:
  """The pure functions of one member: init, step, evaluate.

  Args:
    system: who learns what from whom.
    look: is told the name of each term and the shapes of its context whenever
      `init` is traced.
  """
  functions = (functools.partial(init, look=look), step, evaluate)
  # Traced once for all that asks: shapes, the check before a run, the run.
  return Learner(
    *(jax.jit(functools.partial(f, system), inline=True) for f in functions)
  )


def init(
  system: System,
  seed: Array,
  hyper: dict,
  frozen: Mapping[str, dict],
  given: Mapping[str, dict] = MappingProxyType({}),
  *,
  look: Callable[[str, Context], None],
) -> dict:
  """The carry of a member before its first step.

  Args:
    system: who learns what from whom.
    seed: uint32 [].
    hyper: the member's own values.
    frozen: group -> its variables.
    given: net -> parameters and state that it starts with in place of those
      that it draws, by kind and name.
    look: see `learner`.
  """
  key, nets, made = jax.random.key(seed), system.nets, system.recipe(hyper)
  variables = {}
  for name, role in nets.items():
    own = role.net.init(fold(key, 'init', name))
    own = {**own, **role.start(own, frozen)}
    if name in given:
      own = {kind: {**own[kind], **given[name].get(kind, {})} for kind in own}
    variables[name] = role.compression.start(own) if role.compression else own
  carry = {
    'train': {'nets': {name: v['params'] for name, v in variables.items()}},
    'state': {
      'nets': {name: v['state'] for name, v in variables.items()},
      'average': {},
    },
    'step': jnp.zeros((), jnp.int32),
    'seed': jnp.asarray(seed, jnp.uint32),
  }
  if made.average:
    carry['average'] = carry['train']['nets']

  def traced(carry, frozen, example):
    """The contexts, and what a forward pass changes of each net's state."""
    batch, _ = _prepared(system, carry, example, key)
    found, now = contexts(system, made.terms, carry, frozen, batch, key)
    before = carry['state']['nets']
    return found, {n: replaced(before[n], now['nets'][n]) for n in nets}

  shapes, moved = jax.eval_shape(traced, carry, frozen, system.example)
  train, state = carry['train'], carry['state']
  if made.average:
    state['average'] = {
      name: running_mean.at(moved[name], state['nets'][name]) for name in nets
    }
  train['terms'], state['terms'] = {}, {}
  for name, term, _ in terms_by_net(system, made.terms):
    look(name, shapes[name])
    train['terms'][name], state['terms'][name] = term.init(
      fold(key, 'init', 'term', name), shapes[name]
    )
  trains, _ = _split(system, train)
  return {**carry, 'opt': made.optimizer.init(trains)}


def step(
  system: System, carry: dict, batch: dict, frozen: dict, hyper: dict
) -> tuple[dict, dict]:
  """The carry after one more batch, and what was measured on it.

  Args:
    system: who learns what from whom.
    carry: of the member.
    batch: its inputs, labels and so on, each [B, ...].
    frozen: group -> its variables.
    hyper: the member's own values.

  Returns:
    The new carry, and pairs (sum, count) by name: the loss, that of each term,
    the norm of the gradient, and what a rollout measured.
  """
  made = system.recipe(hyper)
  carry = _compressed(system, carry)
  key = fold(jax.random.key(carry['seed']), 'step', carry['step'])
  batch, written = _prepared(system, carry, batch, key)
  gradients, (values, state) = _gradients(
    system, made, carry, frozen, batch, key
  )
  total = functools.reduce(optax.tree.add, gradients.values())
  new = _updated(system, made, carry, state, total, gradients)
  one = jnp.ones((), jnp.float32)
  measured = {
    'loss': (sum(values.values()), one),
    'gradient_norm': (optax.tree.norm(total), one),
    **{f'rollout/{k}': (v, one) for k, v in written.items()},
  }
  return new, measured | {f'loss/{k}': (v, one) for k, v in values.items()}


def _prepared(system: System, carry: dict, batch: dict, key: Array) -> tuple:
  """The batch as it is to be learnt, whole, before it is cut into parts.

  Returns:
    The batch, and the means of what a rollout measured of its examples.
  """
  if system.augment:
    batch = system.augment(batch, seed=carry['seed'])
  if not system.rollout:
    return batch, {}

  def outputs_of(role, variables):
    def outputs(inputs):
      seen = shown(role.eval_view, {**batch, 'inputs': inputs}, carry['seed'])
      return role.apply(variables, seen)[0]

    return outputs

  variables = running_mean.variables(carry)
  each = {n: outputs_of(role, variables[n]) for n, role in system.nets.items()}
  student = each if len(each) > 1 else next(iter(each.values()))
  batch = system.rollout(student, batch, fold(key, 'rollout'))
  batch = jax.lax.stop_gradient(dict(batch))
  measured = batch.pop(MEASURED, {})
  return batch, {k: x.astype(jnp.float32).mean() for k, x in measured.items()}


def _gradients(
  system: System, made: Recipe, carry: dict, frozen: dict, batch: dict, key
):
  """The gradient of each part of the loss; each term's value; the new state."""
  trains, rest = _split(system, carry['train'])

  def loss(trains, state, batch, key, totals):
    now = {**carry, 'train': trainable.join(trains, rest), 'state': state}
    return _loss(system, made, now, frozen, batch, key, totals)

  def gradient(trains, state, batch, key, totals):
    """The gradient of each part, from one forward pass."""
    of = lambda trains: loss(trains, state, batch, key, totals)  # noqa: E731
    sums, pull, aux = jax.vjp(of, trains, has_aux=True)
    chosen = {part: {p: jnp.float32(p == part) for p in sums} for part in sums}
    return {part: pull(one)[0] for part, one in chosen.items()}, aux

  def counts(state, batch, key):
    """Denominators of each term; XLA drops what no mask depends on."""
    now = {**carry, 'state': state}
    given, _ = contexts(system, made.terms, now, frozen, batch, key)
    terms = terms_by_net(system, made.terms)
    return {name: term.count(given[name]) for name, term, _ in terms}

  arguments = trains, carry['state'], batch, key
  if made.accumulate == 1:
    return gradient(*arguments, None)
  return _in_parts(gradient, counts, *arguments, made.accumulate)


def _loss(system, made, carry, frozen, batch, key, totals):
  """The sum of the terms, by part of the loss; and their values and states."""
  given, states = contexts(system, made.terms, carry, frozen, batch, key)
  params, memory = carry['train']['terms'], carry['state']['terms']
  values, kept = {}, {}
  for name, term, _ in terms_by_net(system, made.terms):
    context = given[name]._replace(totals=totals and totals[name])
    each, kept[name] = term.loss(params[name], memory[name], context)
    values[name] = each.astype(jnp.float32).mean()
  state = {**states, 'terms': jax.lax.stop_gradient(kept)}
  return _sums(values, made.parts), (values, state)


def _compressed(system, carry):
  """The carry with what is due before this step in nets that get smaller."""
  params, states = carry['train']['nets'], dict(carry['state']['nets'])
  for name, role in system.nets.items():
    if role.compression:
      now = {'params': params[name], 'state': states[name]}
      states[name] = role.compression.update(now, carry['step'])
  return {**carry, 'state': {**carry['state'], 'nets': states}}


def _split(system, train):
  """What of all parameters trains, and what is frozen."""
  still = {
    f'nets/{name}/{path}'
    for name, params in train['nets'].items()
    for path in system.nets[name].untrained(params)
  }
  return trainable.split(train, still)


def _updated(system, made, carry, state, total, gradients):
  """The carry after the optimiser's update."""
  extra = {'parts': gradients} if made.parts else {}
  optimizer = optax.with_extra_args_support(made.optimizer)
  trains, rest = _split(system, carry['train'])
  updates, opt = optimizer.update(total, carry['opt'], trains, **extra)
  train = trainable.join(optax.apply_updates(trains, updates), rest)
  new = {
    'train': train,
    'state': state,
    'opt': opt,
    'step': carry['step'] + 1,
    'seed': carry['seed'],
  }
  if made.average:
    new['average'] = {
      name: running_mean.updated(
        carry['average'][name],
        params,
        running_mean.share_kept(made.average, carry['step']),
        still=system.nets[name].untrained(params),
      )
      for name, params in train['nets'].items()
    }
  return new


def _sums(values: dict, parts: Mapping[str, tuple[str, ...]]) -> dict:
  """The loss, part by part; all of it is one part where none are named."""
  if not parts:
    return {'': sum(values.values())}
  term = lambda name: name.partition('/')[0]  # noqa: E731
  return {
    part: sum(value for name, value in values.items() if term(name) in names)
    + jnp.zeros((), jnp.float32)
    for part, names in parts.items()
  }


def _in_parts(gradient, counts, trains, state, batch, key, parts):
  """The gradient over a batch taken in equal parts, one after another.

  Exact where no term and no net mixes examples: `accumulation.adds_up` is asked
  of every term before. Denominators are counted over the whole batch first,
  since a mean of means would weigh unequal parts alike.
  """
  batches = jax.tree.map(
    lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch
  )
  keys = jax.vmap(lambda index: fold(key, 'part', index))(jnp.arange(parts))
  totals = jax.lax.map(lambda part: counts(state, *part), (batches, keys))
  totals = jax.tree.map(lambda x: x.mean(0), totals)

  def add(carried, part):
    total, state = carried
    gradients, (values, state) = gradient(trains, state, *part, totals)
    return (jax.tree.map(jnp.add, total, gradients), state), values

  one = jax.tree.map(lambda x: x[0], (batches, keys))
  shapes, _ = jax.eval_shape(gradient, trains, state, *one, totals)
  zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  (total, state), values = jax.lax.scan(add, (zero, state), (batches, keys))
  gradients = jax.tree.map(lambda x: x / parts, total)
  return gradients, (jax.tree.map(lambda v: v.mean(0), values), state)
