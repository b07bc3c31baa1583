"""One member's step: forward all, add up the terms, update what trains.

This is the one place where the teachers' gradient is stopped.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxkd.data import views
from jaxkd.distill import fusion, running_mean
from jaxkd.distill.terms import AVERAGE, Entry
from jaxkd.errors import UserError, unknown
from jaxkd.keys import fold
from jaxkd.paths import replaced
from jaxkd.students import inherit
from jaxkd.tasks.metrics import Metric, examples
from jaxkd.train import trainable
from jaxkd.train.population import Learner, Rows
from jaxkd.types import Compression, Context, Net


class Kept(NamedTuple):
  """What is kept on disk of a group's outputs.

  Attributes:
    outputs: their names.
    top: how many of the largest logits; 0 for all.
    dir: the folder; empty for one in the run's own.
    stage: what the group is called below it.
    model: what the nets are, as text.
  """

  outputs: tuple[str, ...]
  top: int = 0
  dir: str = ''
  stage: str = ''
  model: str = ''


class Role(NamedTuple):
  """A net that takes part: it trains, or it teaches.

  Attributes:
    net: the model.
    view: how it sees the examples while the student trains; of a group that
      is made of others, how each of them does, by their names.
    eval_view: how it sees them in evaluation.
    copies: how many of it train together, seeing each other as peers.
    shape: of one example as the net sees it.
    reads: the groups and the locations whose outputs it takes, one behind
      the other, in place of the examples; empty for the examples.
    init: where its first values come from; see `jaxkd.students.inherit`.
    freeze: a glob of the parameters that do not train; `net` was built with it
      too, so that layers below it run as in evaluation.
    average_view: how its running mean sees the examples while it teaches;
      empty for as the net itself does.
    at: the config entry that it comes from, for error messages.
    kept: what is kept on disk of its outputs, if anything.
    fit: what gives its variables, if it is not trained but fitted; see
      `jaxkd.distill.fitted`.
    compression: how it trains, if it is to end smaller than it is built.
  """

  net: Net
  view: Any = ''
  eval_view: Any = ''
  copies: int = 1
  shape: Any = ()
  reads: tuple[tuple[str, str], ...] = ()
  init: str = inherit.RANDOM
  freeze: str = ''
  average_view: str = ''
  at: str = 'role'
  kept: Kept | None = None
  fit: Callable[..., dict] | None = None
  compression: Compression | None = None

  @property
  def apply(self) -> Callable:
    """That of the net, as it trains."""
    return (self.compression or self.net).apply


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

  terms: dict[str, Entry]
  optimizer: optax.GradientTransformation
  accumulate: int = 1
  average: float = 0.0
  parts: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def learner(
  students: Mapping[str, Role],
  teachers: Mapping[str, Role],
  recipe: Callable[[dict], Recipe],
  metrics: Mapping[str, Metric],
  *,
  example: dict,
  decode: Callable[..., dict] | None = None,
  mix: Callable[..., dict] | None = None,
  look: Callable[[str, Context], None] = lambda name, context: None,
) -> Learner:
  """The pure functions of one member: init, step, evaluate.

  Args:
    students: the roles that train.
    teachers: the frozen groups; their variables, with a leading axis of the
      group's members, are the argument ``frozen`` of all three functions.
    recipe: makes terms and optimiser from the member's own values, a dict
      from config entry to number (traced; empty for most).
    metrics: what `evaluate` measures of each net.
    example: a batch of shapes, as one member gets it from the loader.
    decode: what else a net is measured by; see `jaxkd.tasks`.
    mix: ``(batch, seed) -> batch``, what all roles see of it while they train;
      see `jaxkd.data.augment`.
    look: is told the name of each term and the shapes of its context whenever
      `init` is traced.
  """
  nets = {
    copy: role
    for name, role in students.items()
    for copy in copies_of(name, role.copies)
  }

  def see(batch, seed, frozen, field):
    """The batch with each role's own view of the inputs; equal views once."""
    roles = {**nets, **{name: teachers[name] for name in frozen}}
    texts = {
      name: getattr(role, field)
      for name, role in roles.items()
      if not role.reads
    }
    if field == 'view':
      texts |= {
        f'{AVERAGE}/{name}': role.average_view or role.view
        for name, role in nets.items()
        if not role.reads
      }
    return {**batch, 'inputs': shown(texts, batch, seed)}

  def mixed(batch, carry):
    """The batch as it is to be learnt; whole, before it is cut into parts."""
    return mix(batch, seed=carry['seed']) if mix else batch

  def taken(name, inputs, targets, prefix=''):
    """What a net that trains sees, or reads in its place."""
    reads = nets[name].reads
    return read(nets[name], targets) if reads else inputs[f'{prefix}{name}']

  def forward(variables, inputs, targets, key, prefix=''):
    """Outputs and new states of nets that train."""
    outputs, states = {}, {}
    for name in filter(variables.__contains__, nets):
      x = taken(name, inputs, targets, prefix)
      outputs[name], states[name] = nets[name].apply(
        variables[name],
        x,
        key=fold(key, 'net', f'{prefix}{name}'),
        train=True,
      )
    return outputs, states

  def trained(entries):
    """The terms with the net that each trains: one for each copy of it."""
    for name, (term, of, *_) in entries.items():
      copies = copies_of(of, students[of].copies)
      for copy in copies:
        yield name if copy == of else f'{name}/{copy}', term, of, copy

  def drawn(entries, carry, frozen):
    """The groups, one net of those of which no more is looked at in a step.

    It is taken before the forward pass, and so costs as much as one teacher.

    Returns:
      The variables, and what each group of which one is left is called then.
    """
    readers = [*nets.values(), *(teachers[name] for name in frozen)]
    whole = {group for role in readers for group, _ in role.reads}
    whole |= {name for entry in entries.values() for name in entry.teachers}
    draws = [draw for entry in entries.values() for draw in entry.draws]
    called, found = {}, dict(frozen)
    for group, draw in fusion.alone(whole, draws).items():
      if group in frozen:  # it may be a role, which trains
        count = len(jax.tree.leaves(frozen[group])[0])
        i = draw.index(count, carry['seed'], carry['step'])
        found[group] = jax.tree.map(lambda x, i=i: x[i][None], frozen[group])
        called[group] = draw.name
    return found, called

  def contexts(entries, batch, outputs, means, targets, carry, key):
    """What each term may look at."""
    found = {}
    for name, _, _, copy in trained(entries):
      peers = {}
      for role, of in students.items():
        # A net without peers is its own: one layer of it may teach another.
        names = copies_of(role, of.copies)
        others = [n for n in names if n != copy] or names
        them = [outputs[other] for other in others]
        peers[role] = jax.tree.map(lambda *x: jnp.stack(x), *them)
      if copy in means:
        peers[AVERAGE] = jax.tree.map(lambda x: x[None], means[copy])
      them = {**targets, **jax.lax.stop_gradient(peers)}
      for draw in entries[name.partition('/')[0]].draws:
        if draw.name not in them:
          them[draw.name] = draw.pick(them, carry['seed'], carry['step'])
      found[name] = Context(
        batch,
        outputs[copy],
        them,
        carry['step'],
        fold(key, 'term', name),
        taken(copy, batch['inputs'], targets),
      )
    return found

  def compute(made, carry, frozen, batch, key):
    """The context of each term; new states of the nets and of their means."""
    frozen, alone = drawn(made.terms, carry, frozen)
    batch = see(batch, carry['seed'], frozen, 'view')
    inputs = batch['inputs']
    targets = teach(teachers, frozen, inputs, batch.pop('taught', {}))
    targets = {alone.get(name, name): them for name, them in targets.items()}
    outputs, states = forward(running_mean.trained(carry), inputs, targets, key)
    means, own = running_mean.result(carry), carry['state']['average']
    asked = any(AVERAGE in entry.groups for entry in made.terms.values())
    if not asked:
      means = {name: means[name] for name in own if own[name]}
    seen, after = forward(means, inputs, targets, key, f'{AVERAGE}/')
    means = seen if asked else {}
    given = contexts(made.terms, batch, outputs, means, targets, carry, key)
    moved = {n: running_mean.at(own[n], after.get(n, {})) for n in own}
    return given, {'nets': states, 'average': moved}

  def init(seed, hyper, frozen, given=MappingProxyType({})):
    """The carry of a member before its first step."""
    key = jax.random.key(seed)
    variables = {
      name: inherit.start(
        role.init,
        role.net.init(fold(key, 'init', name)),
        frozen,
        at=f'{role.at}.init',
      )
      for name, role in nets.items()
    }
    variables |= {
      name: role.compression.start(variables[name])
      for name, role in nets.items()
      if role.compression
    }
    train = {'nets': {name: v['params'] for name, v in variables.items()}}
    state = {
      name: {**v['state'], **given.get(name, {})}
      for name, v in variables.items()
    }
    state = {'nets': state, 'average': {}}
    made = recipe(hyper)
    carry = {
      'train': train,
      'state': state,
      'step': jnp.zeros((), jnp.int32),
      'seed': jnp.asarray(seed, jnp.uint32),
    }
    if made.average:
      carry['average'] = train['nets']

    def traced(carry, frozen, example):
      """The contexts, and what a forward pass changes of each net's state."""
      given, now = compute(made, carry, frozen, mixed(example, carry), key)
      both = carry['state']['nets'], now['nets']
      return given, {
        name: replaced(*(states[name] for states in both)) for name in nets
      }

    shapes, moved = jax.eval_shape(traced, carry, frozen, example)
    if made.average:
      state['average'] = {
        n: running_mean.at(moved[n], state['nets'][n]) for n in nets
      }
    train['terms'], state['terms'] = {}, {}
    for name, term, _, _ in trained(made.terms):
      look(name, shapes[name])
      train['terms'][name], state['terms'][name] = term.init(
        fold(key, 'init', 'term', name), shapes[name]
      )
    trains, _ = trainable.split(train, still(train))
    return {**carry, 'opt': made.optimizer.init(trains)}

  def updated(carry):
    """The carry with what is due before this step in nets that get smaller."""
    params, states = carry['train']['nets'], dict(carry['state']['nets'])
    for name, role in nets.items():
      if role.compression:
        now = {'params': params[name], 'state': states[name]}
        states[name] = role.compression.update(now, carry['step'])
    return {**carry, 'state': {**carry['state'], 'nets': states}}

  def still(train):
    """The paths of the nets' parameters that do not train."""
    return {
      f'nets/{name}/{path}'
      for name, params in train['nets'].items()
      for path in inherit.frozen(params, nets[name].freeze, at=nets[name].at)
    }

  def step(carry, batch, frozen, hyper):
    """The carry after one more batch, and what was measured on it."""
    made = recipe(hyper)
    carry = updated(carry)
    batch = mixed(batch, carry)
    key = fold(jax.random.key(carry['seed']), 'step', carry['step'])
    trains, rest = trainable.split(carry['train'], still(carry['train']))

    def counts(state, batch, key):
      """What each term divides by; of the nets only what masks come from."""
      now = {**carry, 'state': state}
      given, _ = compute(made, now, frozen, batch, key)
      return {
        name: term.count(given[name])
        for name, term, _, _ in trained(made.terms)
      }

    def loss(trains, state, batch, key, totals):
      train = trainable.join(trains, rest)
      now = {**carry, 'train': train, 'state': state}
      given, states = compute(made, now, frozen, batch, key)
      values, kept = {}, {}
      for name, term, _, _ in trained(made.terms):
        context = given[name]._replace(totals=totals and totals[name])
        each, kept[name] = term.loss(
          train['terms'][name], state['terms'][name], context
        )
        values[name] = each.astype(jnp.float32).mean()
      state = {**states, 'terms': jax.lax.stop_gradient(kept)}
      return _sums(values, made.parts), (values, state)

    def gradient(trains, state, batch, key, totals):
      """The gradient of each part, from one forward pass."""
      of = lambda trains: loss(trains, state, batch, key, totals)  # noqa: E731
      sums, pull, aux = jax.vjp(of, trains, has_aux=True)
      chosen = {
        part: {p: jnp.float32(p == part) for p in sums} for part in sums
      }
      return {part: pull(one)[0] for part, one in chosen.items()}, aux

    gradients, (values, state) = _in_parts(
      gradient,
      counts,
      trains,
      carry['state'],
      batch,
      key,
      made.accumulate,
    )
    total = functools.reduce(optax.tree.add, gradients.values())
    extra = {'parts': gradients} if made.parts else {}
    optimizer = optax.with_extra_args_support(made.optimizer)
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
          still=inherit.frozen(params, nets[name].freeze, at=nets[name].at),
        )
        for name, params in train['nets'].items()
      }
    one = jnp.ones((), jnp.float32)
    measured = {
      'loss': (sum(values.values()), one),
      'gradient_norm': (optax.tree.norm(total), one),
    }
    return new, measured | {f'loss/{k}': (v, one) for k, v in values.items()}

  def decoded(apply, variables, x, outputs, frozen):
    """The outputs that metrics ask for and a forward pass does not give."""
    alone = {
      name: jax.tree.map(lambda x: x[0], tree)
      for name, tree in frozen.items()
      if len(jax.tree.leaves(tree)[0]) == 1
    }
    return decode(
      lambda inputs: apply(variables, inputs)[0],
      x,
      {metric.output for metric in metrics.values()} - outputs.keys(),
      {
        name: lambda inputs, name=name: teachers[name].net.apply(
          alone[name], inputs
        )[0]
        for name in alone
      },
    )

  def evaluate(carry, batch, frozen):
    """What the metrics of each net measure on one batch."""
    batch = see(batch, carry['seed'], frozen, 'eval_view')
    targets = teach(teachers, frozen, batch['inputs'])
    counted = examples(batch)
    if counted is None:
      counted = jnp.ones(batch['id'].shape, bool)
    measured, results = {}, running_mean.result(carry)
    for name, role in nets.items():
      variables = results[name]
      x = read(role, targets) if role.reads else batch['inputs'][name]
      outputs, _ = role.apply(variables, x)
      if decode is not None:
        outputs |= decoded(role.apply, variables, x, outputs, frozen)
      prefix = '' if len(nets) == 1 else f'{name}/'
      for called, metric in metrics.items():
        if metric.output not in outputs:
          continue
        if not metric.teacher or metric.teacher in targets:
          found = metric.measure(outputs, batch, targets)
          if metric.whole:
            found = Rows((counted, *found))
          measured[prefix + called] = found
    return measured

  # Traced once for all that asks: shapes, the check before a run, the run.
  return Learner(*(jax.jit(f, inline=True) for f in (init, step, evaluate)))


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


def teach(
  roles: Mapping[str, Role],
  frozen: Mapping[str, dict],
  inputs: Mapping[str, Any],
  kept: Mapping[str, dict] = MappingProxyType({}),
) -> dict[str, dict]:
  """Outputs of groups, each [T, B, ...], in evaluation mode.

  Args:
    roles: the net of each group.
    frozen: group -> its variables, [T, ...].
    inputs: group -> what it sees, of those that read no other.
    kept: group -> outputs that are known already, each [B, T, ...].
  """
  found = {
    name: {at: jnp.moveaxis(x, 1, 0) for at, x in outputs.items()}
    for name, outputs in kept.items()
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

  names = dict.fromkeys((*frozen, *kept))
  return jax.lax.stop_gradient({name: outputs(name) for name in names})


def copies_of(role: str, copies: int) -> list[str]:
  """The names of a role's nets: its own, or `role/0`, `role/1`, ..."""
  return [role] if copies == 1 else [f'{role}/{i}' for i in range(copies)]


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


def _in_parts(gradient, counts, train, state, batch, key, parts):
  """The gradient over a batch taken in equal parts, one after another.

  Equal to the gradient over the whole batch where `accumulation.adds_up` for
  every term and no net looks across examples. What terms divide by is counted
  first, over all parts: sums add up, and means of parts do not.
  """
  if parts == 1:
    return gradient(train, state, batch, key, None)
  batches = jax.tree.map(
    lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch
  )
  keys = jax.vmap(lambda index: fold(key, 'part', index))(jnp.arange(parts))
  totals = jax.lax.map(lambda part: counts(state, *part), (batches, keys))
  totals = jax.tree.map(lambda x: x.mean(0), totals)

  def add(carried, part):
    total, state = carried
    gradients, (values, state) = gradient(train, state, *part, totals)
    return (jax.tree.map(jnp.add, total, gradients), state), values

  one = jax.tree.map(lambda x: x[0], (batches, keys))
  shapes, _ = jax.eval_shape(gradient, train, state, *one, totals)
  zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  (total, state), values = jax.lax.scan(add, (zero, state), (batches, keys))
  gradients = jax.tree.map(lambda x: x / parts, total)
  return gradients, (jax.tree.map(lambda v: v.mean(0), values), state)
