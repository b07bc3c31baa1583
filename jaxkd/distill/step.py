"""One member's step: how a batch becomes a gradient, and a gradient an update.

Read from `step` down. A batch is augmented, and perhaps written on by the
student (`rollout`); every net sees it through a view of its own (`_seen`);
teachers give their outputs (`teach`, the one place where their gradient is
stopped); nets that train give theirs (`_forward`); every term gets a `Context`
of both and gives a loss (`_loss`); the gradient of their sum becomes an update
(`_updated`). Everything here is for one member; a population maps it.

The carry of a member is a dict: ``train`` (parameters of the ``nets`` and of
the ``terms``), ``state`` (what nets and terms remember, and the statistics of
the running mean), ``opt``, ``step``, ``seed``, and ``average`` (the running
mean of the parameters) where there is one.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxkd.data import views
from jaxkd.distill import fusion, masks, running_mean
from jaxkd.distill.roles import AVERAGE, Role, copies_of
from jaxkd.errors import UserError, unknown
from jaxkd.keys import fold
from jaxkd.paths import replaced
from jaxkd.train import trainable
from jaxkd.train.population import Learner, Rows
from jaxkd.types import Context, Metric, Term


class Recipe(NamedTuple):
  """What a member trains with, made anew from the member's own values.

  Attributes:
    terms: the loss, term by term.
    optimizer: any optax transformation.
    accumulate: the batch is taken in this many parts, one after another.
    average: decay of the running mean of the parameters; 0 for none.
    parts: part of the loss -> its terms, where the optimiser is to have the
      gradient of each part; empty for one gradient of the sum.
  """

  terms: dict[str, Term]
  optimizer: optax.GradientTransformation
  accumulate: int = 1
  average: float = 0.0
  parts: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class System(NamedTuple):
  """Teachers, students and how they learn: all that steps have in common.

  Attributes:
    students: the roles that train.
    teachers: the frozen groups. Their variables, with a leading axis of the
      group's nets, are the argument ``frozen`` of init, step and evaluate.
    recipe: makes terms and optimiser from the member's own values, a dict from
      config entry to number (traced; empty for most).
    metrics: what `evaluate` measures of each net.
    example: a batch of shapes, as one member gets it from the loader.
    augment: ``(batch, seed) -> batch``, what all roles see of it in training;
      see `jaxkd.data.augment`.
    rollout: ``(student, batch, key) -> batch``, what the student writes and
      then learns from, where ``student`` gives its outputs in evaluation for
      inputs as the data have them (a dict of these where several roles train).
      It has no gradient.
    decode: what else a net is measured by; see `jaxkd.tasks`.
  """

  students: Mapping[str, Role]
  teachers: Mapping[str, Role]
  recipe: Callable[[dict], Recipe]
  example: dict
  metrics: Mapping[str, Metric] = MappingProxyType({})
  augment: Callable[..., dict] | None = None
  rollout: Callable[..., dict] | None = None
  decode: Callable[..., dict] | None = None

  @property
  def nets(self) -> dict[str, Role]:
    """Every net that trains: one for each copy of a role."""
    return {
      copy: role
      for name, role in self.students.items()
      for copy in copies_of(name, role.copies)
    }


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
    batch = _prepared(system, carry, example, key)
    contexts, now = _contexts(system, made.terms, carry, frozen, batch, key)
    before = carry['state']['nets']
    return contexts, {n: replaced(before[n], now['nets'][n]) for n in nets}

  shapes, moved = jax.eval_shape(traced, carry, frozen, system.example)
  train, state = carry['train'], carry['state']
  if made.average:
    state['average'] = {
      name: running_mean.at(moved[name], state['nets'][name]) for name in nets
    }
  train['terms'], state['terms'] = {}, {}
  for name, term, _ in _trained(system, made.terms):
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
    The new carry, and pairs (sum, count) by name: the loss, that of each term
    and the norm of the gradient.
  """
  made = system.recipe(hyper)
  carry = _compressed(system, carry)
  key = fold(jax.random.key(carry['seed']), 'step', carry['step'])
  batch = _prepared(system, carry, batch, key)
  gradients, (values, state) = _gradients(
    system, made, carry, frozen, batch, key
  )
  total = functools.reduce(optax.tree.add, gradients.values())
  new = _updated(system, made, carry, state, total, gradients)
  one = jnp.ones((), jnp.float32)
  measured = {
    'loss': (sum(values.values()), one),
    'gradient_norm': (optax.tree.norm(total), one),
  }
  return new, measured | {f'loss/{k}': (v, one) for k, v in values.items()}


def evaluate(system: System, carry: dict, batch: dict, frozen: dict) -> dict:
  """What the metrics of each net measure on one batch."""
  batch = _seen(system, batch, carry['seed'], frozen, 'eval_view')
  targets = teach(system.teachers, frozen, batch['inputs'])
  counted = masks.examples(batch)
  if counted is None:
    counted = jnp.ones(batch['id'].shape, bool)
  measured, results, nets = {}, running_mean.result(carry), system.nets
  for name, role in nets.items():
    variables = results[name]
    x = read(role, targets) if role.reads else batch['inputs'][name]
    outputs, _ = role.apply(variables, x)
    if system.decode is not None:
      outputs |= _decoded(system, role.apply, variables, x, outputs, frozen)
    prefix = '' if len(nets) == 1 else f'{name}/'
    for called, metric in system.metrics.items():
      if metric.output and metric.output not in outputs:
        continue
      if not metric.teacher or metric.teacher in targets:
        found = metric.measure(outputs, batch, targets)
        if metric.whole:
          found = Rows((counted, *found))
        measured[prefix + called] = found
  return measured


def teach(
  roles: Mapping[str, Role],
  frozen: Mapping[str, dict],
  inputs: Mapping[str, Any],
  known: Mapping[str, dict] = MappingProxyType({}),
) -> dict[str, dict]:
  """Outputs of groups, each [T, B, ...], in evaluation mode.

  Args:
    roles: the net of each group.
    frozen: group -> its variables, [T, ...].
    inputs: group -> what it sees, of those that read no other.
    known: group -> outputs that are known already, each [B, T, ...].
  """
  found = {
    name: {at: jnp.moveaxis(x, 1, 0) for at, x in outputs.items()}
    for name, outputs in known.items()
  }

  def outputs(name):
    if name in found:
      return found[name]
    role = roles[name]
    if role.reads:
      for group, _ in role.reads:
        if group in frozen:
          outputs(group)
      x = read(role, found)
    else:
      x = inputs[name]
    forward = lambda v: role.net.apply(v, x)[0]  # noqa: E731
    if len(jax.tree.leaves(frozen[name])[0]) > 1:
      found[name] = jax.vmap(forward)(frozen[name])
    else:
      # One teacher: without vmap its products are plain, not batched by one.
      alone = forward(jax.tree.map(lambda x: x[0], frozen[name]))
      found[name] = jax.tree.map(lambda x: x[None], alone)
    return found[name]

  names = dict.fromkeys((*frozen, *known))
  return jax.lax.stop_gradient({name: outputs(name) for name in names})


def read(role: Role, targets: Mapping[str, dict]) -> Array:
  """What a role takes in place of the examples, [B, ...].

  Args:
    role: it reads some groups.
    targets: group -> outputs, each [1, B, ...].

  Raises:
    UserError: a group or an output that is not there, or of several nets.
  """
  at, each = f'{role.at}.reads', []
  for group, location in role.reads:
    if group not in targets:
      raise unknown('teacher', group, targets, at)
    if location not in targets[group]:
      raise unknown('output', location, targets[group], at)
    found = targets[group][location]
    if len(found) != 1:
      raise UserError(
        f'{at}: {group} has {len(found)} nets, and what they give can be read '
        f'of one only; set teachers.{group}.count=1'
      )
    each.append(found[0])
  return each[0] if len(each) == 1 else jnp.concatenate(each, axis=-1)


def shown(texts: Any, batch: Mapping[str, Any], seed: Array) -> Any:
  """What views show of a batch; equal views are computed once.

  Args:
    texts: a tree of views, as in the config.
    batch: has ``inputs``, ``epoch`` and ``id``, each [B, ...].
    seed: of the draws.

  Returns:
    A tree like `texts` of inputs, each [B, ...].
  """
  where = {'epoch': batch['epoch'], 'id': batch['id']}
  seen = {
    text: views.apply(views.parse(text), batch['inputs'], seed=seed, **where)
    for text in sorted(set(jax.tree.leaves(texts)))
  }
  return jax.tree.map(lambda text: seen[text], texts)


def _prepared(system: System, carry: dict, batch: dict, key: Array) -> dict:
  """The batch as it is to be learnt; whole, before it is cut into parts."""
  if system.augment:
    batch = system.augment(batch, seed=carry['seed'])
  if not system.rollout:
    return batch

  def outputs_of(role, variables):
    def outputs(inputs):
      seen = shown(role.eval_view, {**batch, 'inputs': inputs}, carry['seed'])
      return role.apply(variables, seen)[0]

    return outputs

  variables = running_mean.trained(carry)
  each = {n: outputs_of(role, variables[n]) for n, role in system.nets.items()}
  student = each if len(each) > 1 else next(iter(each.values()))
  return jax.lax.stop_gradient(
    system.rollout(student, batch, fold(key, 'rollout'))
  )


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
    """What each term divides by; of the nets only what masks come from."""
    now = {**carry, 'state': state}
    given, _ = _contexts(system, made.terms, now, frozen, batch, key)
    terms = _trained(system, made.terms)
    return {name: term.count(given[name]) for name, term, _ in terms}

  arguments = trains, carry['state'], batch, key
  if made.accumulate == 1:
    return gradient(*arguments, None)
  return _in_parts(gradient, counts, *arguments, made.accumulate)


def _loss(system, made, carry, frozen, batch, key, totals):
  """The sum of the terms, by part of the loss; and their values and states."""
  given, states = _contexts(system, made.terms, carry, frozen, batch, key)
  params, memory = carry['train']['terms'], carry['state']['terms']
  values, kept = {}, {}
  for name, term, _ in _trained(system, made.terms):
    context = given[name]._replace(totals=totals and totals[name])
    each, kept[name] = term.loss(params[name], memory[name], context)
    values[name] = each.astype(jnp.float32).mean()
  state = {**states, 'terms': jax.lax.stop_gradient(kept)}
  return _sums(values, made.parts), (values, state)


def _contexts(
  system: System,
  terms: Mapping[str, Term],
  carry: dict,
  frozen: dict,
  batch: dict,
  key: Array,
) -> tuple[dict[str, Context], dict]:
  """What each term may look at; new states of the nets and of their means."""
  frozen, alone = _drawn(system, terms, carry, frozen)
  batch = _seen(system, batch, carry['seed'], frozen, 'view')
  known = batch.pop('cached_outputs', {})
  targets = teach(system.teachers, frozen, batch['inputs'], known)
  targets = {alone.get(name, name): them for name, them in targets.items()}
  see = functools.partial(_forward, system, batch['inputs'], targets, key)
  outputs, states = see(running_mean.trained(carry))
  # The means see the batch too: terms may look at them, and their statistics
  # are their own.
  means, own = running_mean.result(carry), carry['state']['average']
  asked = any(AVERAGE in term.groups for term in terms.values())
  if not asked:
    means = {name: means[name] for name in own if own[name]}
  seen, after = see(means, prefix=f'{AVERAGE}/')
  means = seen if asked else {}
  moved = {n: running_mean.at(own[n], after.get(n, {})) for n in own}
  contexts = {}
  for name, term, copy in _trained(system, terms):
    them = {
      **targets,
      **jax.lax.stop_gradient(_peers(system, copy, outputs, means)),
    }
    for draw in term.draws:
      if draw.name not in them:
        them[draw.name] = draw.pick(them, carry['seed'], carry['step'])
    contexts[name] = Context(
      batch,
      outputs[copy],
      them,
      carry['step'],
      fold(key, 'term', name),
      _taken(system, copy, batch['inputs'], targets),
    )
  return contexts, {'nets': states, 'average': moved}


def _drawn(system, terms, carry, frozen):
  """The groups, one net of those of which no more is looked at in a step.

  It is taken before the forward pass, and so costs as much as one teacher.

  Returns:
    The variables, and what each group of which one is left is called then.
  """
  readers = [
    *system.nets.values(),
    *(system.teachers[name] for name in frozen),
  ]
  whole = {group for role in readers for group, _ in role.reads}
  whole |= {name for term in terms.values() for name in term.teachers}
  draws = [draw for term in terms.values() for draw in term.draws]
  called, found = {}, dict(frozen)
  for group, draw in fusion.alone(whole, draws).items():
    if group in frozen:  # it may be a role, which trains
      count = len(jax.tree.leaves(frozen[group])[0])
      i = draw.index(count, carry['seed'], carry['step'])
      found[group] = jax.tree.map(lambda x, i=i: x[i][None], frozen[group])
      called[group] = draw.name
  return found, called


def _seen(system, batch, seed, frozen, field):
  """The batch with each role's own view of the inputs."""
  roles = {**system.nets, **{name: system.teachers[name] for name in frozen}}
  texts = {
    name: getattr(role, field) for name, role in roles.items() if not role.reads
  }
  if field == 'view':
    texts |= {
      f'{AVERAGE}/{name}': role.average_view or role.view
      for name, role in system.nets.items()
      if not role.reads
    }
  return {**batch, 'inputs': shown(texts, batch, seed)}


def _taken(system, name, inputs, targets, prefix=''):
  """What a net that trains sees, or reads in its place."""
  role = system.nets[name]
  return read(role, targets) if role.reads else inputs[f'{prefix}{name}']


def _forward(system, inputs, targets, key, variables, *, prefix=''):
  """Outputs and new states of nets that train."""
  outputs, states, nets = {}, {}, system.nets
  for name in filter(variables.__contains__, nets):
    x = _taken(system, name, inputs, targets, prefix)
    outputs[name], states[name] = nets[name].apply(
      variables[name], x, key=fold(key, 'net', f'{prefix}{name}'), train=True
    )
  return outputs, states


def _trained(
  system: System, terms: Mapping[str, Term]
) -> Iterator[tuple[str, Term, str]]:
  """Each term and the net that it trains: one for each copy of its role."""
  for name, term in terms.items():
    of = term.of or next(iter(system.students))
    for copy in copies_of(of, system.students[of].copies):
      yield name if copy == of else f'{name}/{copy}', term, copy


def _peers(system, copy, outputs, means):
  """What a net sees of the others that train, by role, each [T, B, ...]."""
  peers = {}
  for role, of in system.students.items():
    # A net without peers is its own: one layer of it may teach another.
    names = copies_of(role, of.copies)
    others = [name for name in names if name != copy] or names
    them = [outputs[other] for other in others]
    peers[role] = jax.tree.map(lambda *x: jnp.stack(x), *them)
  if copy in means:
    peers[AVERAGE] = jax.tree.map(lambda x: x[None], means[copy])
  return peers


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
    for path in system.nets[name].frozen(params)
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
        made.average,
        still=system.nets[name].frozen(params),
      )
      for name, params in train['nets'].items()
    }
  return new


def _decoded(system, apply, variables, x, outputs, frozen):
  """The outputs that metrics ask for and a forward pass does not give."""
  alone = {
    name: jax.tree.map(lambda x: x[0], tree)
    for name, tree in frozen.items()
    if len(jax.tree.leaves(tree)[0]) == 1
  }
  return system.decode(
    lambda inputs: apply(variables, inputs)[0],
    x,
    {m.output for m in system.metrics.values()} - {'', *outputs},
    {
      name: lambda inputs, name=name: system.teachers[name].net.apply(
        alone[name], inputs
      )[0]
      for name in alone
    },
  )


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

  Equal to the gradient over the whole batch where `accumulation.adds_up` for
  every term and no net looks across examples. What terms divide by is counted
  first, over all parts: sums add up, and means of parts do not.
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
