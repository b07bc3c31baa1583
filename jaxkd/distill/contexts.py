"""From a batch to what each term may look at.

Every net sees the inputs through a view of its own, teachers give their outputs
(their gradient is stopped here and nowhere else), nets that train give theirs,
and every term gets a `Context` of both.
"""

import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data import views
from jaxkd.distill import fusion, running_mean
from jaxkd.distill.roles import AVERAGE, Role, copies_of
from jaxkd.distill.system import System
from jaxkd.errors import UserError, unknown
from jaxkd.keys import fold
from jaxkd.types import Context, Term


def contexts(
  system: System,
  terms: Mapping[str, Term],
  carry: dict,
  frozen: dict,
  batch: dict,
  key: Array,
) -> tuple[dict[str, Context], dict]:
  """What each term may look at; new states of the nets and of their means."""
  frozen, alone = _drawn(system, terms, carry, frozen)
  batch = seen(system, batch, carry['seed'], frozen, 'view')
  known = batch.pop('cached_outputs', {})
  targets = teach(system.teachers, frozen, batch['inputs'], known)
  targets = {alone.get(name, name): them for name, them in targets.items()}
  see = functools.partial(_forward, system, batch['inputs'], targets, key)
  outputs, states = see(running_mean.variables(carry))
  # The running means see the batch too if a term compares with them, or if they
  # have statistics of BatchNorm to update.
  means, own = running_mean.result(carry), carry['state']['average']
  asked = any(AVERAGE in term.groups for term in terms.values())
  if not asked:
    means = {name: means[name] for name in own if own[name]}
  outputs_of_means, after = see(means, prefix=f'{AVERAGE}/')
  means = outputs_of_means if asked else {}
  moved = {n: running_mean.at(own[n], after.get(n, {})) for n in own}
  found = {}
  for name, term, copy in terms_by_net(system, terms):
    them = {
      **targets,
      **jax.lax.stop_gradient(_peers(system, copy, outputs, means)),
    }
    for draw in term.draws:
      if draw.name not in them:
        them[draw.name] = draw.pick(them, carry['seed'], carry['step'])
    found[name] = Context(
      batch,
      outputs[copy],
      them,
      carry['step'],
      fold(key, 'term', name),
      _taken(system, copy, batch['inputs'], targets),
    )
  return found, {'nets': states, 'average': moved}


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
    name: jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), dict(outputs))
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


def _drawn(system, terms, carry, frozen):
  """Groups cut down to the net that is drawn, where nothing needs the rest.

  It is taken before the forward pass, and so costs as much as one teacher.

  Returns:
    The variables, and {group: name of the draw} of those that were cut down.
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


def seen(system, batch, seed, frozen, field):
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


def terms_by_net(
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
