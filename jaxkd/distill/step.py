"""One member's step: forward all, add up the terms, update what trains.

This is the one place where the teachers' gradient is stopped.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd.data import views
from jaxkd.distill.terms import Entry
from jaxkd.keys import fold
from jaxkd.tasks.metrics import Metric
from jaxkd.train.population import Learner
from jaxkd.types import Context, Net


class Role(NamedTuple):
  """A net that takes part: it trains, or it teaches.

  Attributes:
    net: the model.
    view: how it sees the examples while the student trains.
    eval_view: how it sees them in evaluation.
    copies: how many of it train together, seeing each other as peers.
  """

  net: Net
  view: str = ''
  eval_view: str = ''
  copies: int = 1


class Recipe(NamedTuple):
  """What a member trains with, made anew from the member's own values.

  Attributes:
    terms: the loss, term by term.
    optimizer: any optax transformation.
    accumulate: the batch is taken in this many parts, one after another.
    average: decay of the running mean of the parameters; 0 for none.
  """

  terms: dict[str, Entry]
  optimizer: optax.GradientTransformation
  accumulate: int = 1
  average: float = 0.0


def learner(
  students: Mapping[str, Role],
  teachers: Mapping[str, Role],
  recipe: Callable[[dict], Recipe],
  metrics: Mapping[str, Metric],
  *,
  example: dict,
  start: Mapping[str, dict] | None = None,
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
    start: variables that a role starts from, instead of fresh ones.
  """
  start = dict(start or {})
  nets = {
    copy: role
    for name, role in students.items()
    for copy in copies_of(name, role.copies)
  }

  def see(batch, seed, frozen, field):
    """The batch with each role's own view of the inputs; equal views once."""
    roles = {**nets, **{name: teachers[name] for name in frozen}}
    texts = {name: getattr(role, field) for name, role in roles.items()}
    seen = {
      text: views.apply(
        views.parse(text),
        batch['inputs'],
        seed=seed,
        epoch=batch['epoch'],
        id=batch['id'],
      )
      for text in sorted(set(texts.values()))
    }
    return {**batch, 'inputs': {name: seen[t] for name, t in texts.items()}}

  def teach(frozen, inputs):
    """Outputs of the frozen groups, each [T, B, ...], in evaluation mode."""

    def outputs(name):
      apply = teachers[name].net.apply
      forward = lambda v: apply(v, inputs[name])[0]  # noqa: E731
      if len(jax.tree.leaves(frozen[name])[0]) > 1:
        return jax.vmap(forward)(frozen[name])
      # One teacher: without vmap its products are plain, not batched by one.
      alone = forward(jax.tree.map(lambda x: x[0], frozen[name]))
      return jax.tree.map(lambda x: x[None], alone)

    return jax.lax.stop_gradient({name: outputs(name) for name in frozen})

  def forward(train, state, inputs, key):
    """Outputs and new states of the nets that train."""
    outputs, states = {}, {}
    for name, role in nets.items():
      outputs[name], states[name] = role.net.apply(
        {'params': train['nets'][name], 'state': state['nets'][name]},
        inputs[name],
        key=fold(key, 'net', name),
        train=True,
      )
    return outputs, states

  def trained(entries):
    """The terms with the net that each trains: one for each copy of it."""
    for name, (term, of, _) in entries.items():
      copies = copies_of(of, students[of].copies)
      for copy in copies:
        yield name if copy == of else f'{name}/{copy}', term, of, copy

  def contexts(entries, batch, outputs, targets, step, key):
    """What each term may look at."""
    found = {}
    for name, _, _, copy in trained(entries):
      peers = {
        role: [
          outputs[other]
          for other in copies_of(role, students[role].copies)
          if other != copy
        ]
        for role in students
      }
      peers = {
        role: jax.tree.map(lambda *x: jnp.stack(x), *them)
        for role, them in peers.items()
        if them
      }
      found[name] = Context(
        batch,
        outputs[copy],
        {**targets, **jax.lax.stop_gradient(peers)},
        step,
        fold(key, 'term', name),
      )
    return found

  def init(seed, hyper, frozen):
    """The carry of a member before its first step."""
    key = jax.random.key(seed)
    variables = {
      name: start[name] if name in start else role.net.init(
        fold(key, 'init', name)
      )
      for name, role in nets.items()
    }  # fmt: skip
    train = {'nets': {name: v['params'] for name, v in variables.items()}}
    state = {'nets': {name: v['state'] for name, v in variables.items()}}
    made = recipe(hyper)

    def shown(train, state, frozen, batch):
      batch = see(batch, seed, frozen, 'view')
      outputs, _ = forward(train, state, batch['inputs'], key)
      targets = teach(frozen, batch['inputs'])
      step = jnp.zeros((), jnp.int32)
      return contexts(made.terms, batch, outputs, targets, step, key)

    shapes = jax.eval_shape(shown, train, state, frozen, example)
    train['terms'], state['terms'] = {}, {}
    for name, term, _, _ in trained(made.terms):
      train['terms'][name], state['terms'][name] = term.init(
        fold(key, 'init', 'term', name), shapes[name]
      )
    carry = {
      'train': train,
      'state': state,
      'opt': made.optimizer.init(train),
      'step': jnp.zeros((), jnp.int32),
      'seed': jnp.asarray(seed, jnp.uint32),
    }
    return {**carry, 'average': train['nets']} if made.average else carry

  def step(carry, batch, frozen, hyper):
    """The carry after one more batch, and what was measured on it."""
    made = recipe(hyper)
    key = fold(jax.random.key(carry['seed']), 'step', carry['step'])

    def loss(train, state, batch, key):
      batch = see(batch, carry['seed'], frozen, 'view')
      outputs, states = forward(train, state, batch['inputs'], key)
      targets = teach(frozen, batch['inputs'])
      given = contexts(made.terms, batch, outputs, targets, carry['step'], key)
      values, kept = {}, {}
      for name, term, _, _ in trained(made.terms):
        each, kept[name] = term.loss(
          train['terms'][name], state['terms'][name], given[name]
        )
        values[name] = each.astype(jnp.float32).mean()
      state = {'nets': states, 'terms': jax.lax.stop_gradient(kept)}
      return sum(values.values()), (values, state)

    gradients, (values, state) = _in_parts(
      jax.grad(loss, has_aux=True),
      carry['train'],
      carry['state'],
      batch,
      key,
      made.accumulate,
    )
    updates, opt = made.optimizer.update(
      gradients, carry['opt'], carry['train']
    )
    train = optax.apply_updates(carry['train'], updates)
    new = {
      'train': train,
      'state': state,
      'opt': opt,
      'step': carry['step'] + 1,
      'seed': carry['seed'],
    }
    if made.average:
      new['average'] = optax.incremental_update(
        train['nets'], carry['average'], 1 - made.average
      )
    one = jnp.ones((), jnp.float32)
    measured = {
      'loss': (sum(values.values()), one),
      'gradient_norm': (optax.tree.norm(gradients), one),
    }
    return new, measured | {f'loss/{k}': (v, one) for k, v in values.items()}

  def evaluate(carry, batch, frozen):
    """Sums and counts of the metrics of each net over one batch."""
    batch = see(batch, carry['seed'], frozen, 'eval_view')
    targets = teach(frozen, batch['inputs'])
    params = carry.get('average', carry['train']['nets'])
    measured = {}
    for name, role in nets.items():
      variables = {
        'params': params[name],
        'state': carry['state']['nets'][name],
      }
      outputs, _ = role.net.apply(variables, batch['inputs'][name])
      prefix = '' if len(nets) == 1 else f'{name}/'
      for called, metric in metrics.items():
        if not metric.teacher or metric.teacher in targets:
          measured[prefix + called] = metric.measure(outputs, batch, targets)
    return measured

  return Learner(init, step, evaluate)


def copies_of(role: str, copies: int) -> list[str]:
  """The names of a role's nets: its own, or `role/0`, `role/1`, ..."""
  return [role] if copies == 1 else [f'{role}/{i}' for i in range(copies)]


def _in_parts(gradient, train, state, batch, key, parts):
  """The gradient over a batch taken in equal parts, one after another.

  Equal to the gradient over the whole batch where every term is a mean over
  examples and no net looks across them.
  """
  if parts == 1:
    return gradient(train, state, batch, key)
  batches = jax.tree.map(
    lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch
  )

  def add(carried, part):
    total, state = carried
    index, batch = part
    gradients, (values, state) = gradient(
      train, state, batch, fold(key, 'part', index)
    )
    return (jax.tree.map(jnp.add, total, gradients), state), values

  zero = jax.tree.map(jnp.zeros_like, train)
  (total, state), values = jax.lax.scan(
    add, (zero, state), (jnp.arange(parts), batches)
  )
  gradients = jax.tree.map(lambda x: x / parts, total)
  return gradients, (jax.tree.map(lambda v: v.mean(0), values), state)
