"""Models that are fitted at once and not trained by gradient steps.

They have a method ``fit(inputs, labels, ids, *, num_classes, seed, **options)
-> variables``. It is given all batches that a net would have trained on, as one
array: the views or the layers that the model reads, with the labels and the
numbers of the examples.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import compilation
from jaxkd.distill.contexts import read, shown, teach
from jaxkd.distill.roles import Role
from jaxkd.errors import UserError, within
from jaxkd.train import population, sharding


def is_fitted(roles: Mapping[str, Role]) -> bool:
  """Whether these nets are fitted.

  Raises:
    UserError: some are, and others are trained at the same time.
  """
  fitted = [name for name, role in roles.items() if role.fit]
  if fitted and len(fitted) < len(roles):
    raise UserError(
      f'{roles[fitted[0]].at}.model: it is fitted and not trained, so no other '
      'net can train beside it; make it a group of teachers, or an arm'
    )
  return bool(fitted)


def check(distill: Mapping[str, Any], roles: Mapping[str, Role]) -> None:
  """Refuses terms that a fitted model would ignore.

  Args:
    distill: the terms in use.
    roles: the nets.

  Raises:
    UserError: a term that looks at teachers.
  """
  for name, entry in distill.items():
    if entry['teacher']:
      at = next(iter(roles.values())).at
      raise UserError(
        f'distill.{name}.teacher: {at}.model is fitted to the labels and looks '
        'at no teacher; leave the term out'
      )


def fit(
  roles: Mapping[str, Role],
  teachers: Mapping[str, Role],
  frozen: Mapping[str, dict],
  axes: Mapping[str, int | None],
  batches: Iterable[dict],
  seeds: list[int],
) -> dict[str, dict]:
  """The variables of each net, [members, ...].

  Args:
    roles: the nets.
    teachers: the groups that they read.
    frozen: group -> its variables, [T, ...], or [members, T, ...].
    axes: group -> 0 where they are the latter, else None.
    batches: each of all members, [members, B, ...], or of one for all.
    seeds: of the members.

  Raises:
    UserError: what the model has against the examples.
  """
  nets = {**roles, **{name: teachers[name] for name in frozen}}
  texts = {name: role.view for name, role in nets.items() if not role.reads}

  @compilation.jit
  def seen(frozen, batch, seed):
    inputs = shown(texts, batch, seed)
    given = teach(teachers, frozen, inputs, batch.get('cached_outputs', {}))
    return {
      name: read(role, given) if role.reads else inputs[name]
      for name, role in roles.items()
    }

  met = [[] for _ in seeds]
  for batch in batches:
    whole = batch['id'].ndim > 1
    for member, seed in enumerate(seeds):
      own = population.take(batch, member) if whole else batch
      its = {
        name: population.take(tree, member) if axes[name] == 0 else tree
        for name, tree in frozen.items()
      }
      inputs = sharding.fetch(seen(its, own, np.uint32(seed)))
      met[member].append((inputs, own['labels'], own['id']))
  found = {name: [] for name in roles}
  for member, seed in enumerate(seeds):
    inputs, labels, ids = jax.tree.map(
      lambda *x: np.concatenate(x), *met[member]
    )
    for name, role in roles.items():
      with within(f'{role.at}.kw.'):
        found[name].append(role.fit(inputs[name], labels, ids, seed=seed))
  return {
    name: jax.tree.map(lambda *x: jnp.stack(x), *each)
    for name, each in found.items()
  }
