"""What teachers are together: their weights by validation, and their tests."""

import jax
import numpy as np

from jaxkd import tasks
from jaxkd.distill import fusion
from jaxkd.distill.roles import Group
from jaxkd.run import evaluate, job_groups, jobs
from jaxkd.run.plan import Round
from jaxkd.run.types import Session
from jaxkd.teachers import many, mixture


def add_validated_weights(
  session: Session, part: Round, groups: dict[str, Group]
) -> None:
  """Adds the weights of teachers that are found on the validation split."""
  for names in jobs.weighed(part, groups):
    called = fusion.validated(names)
    if called not in groups:
      parts = [groups[name] for name in names]
      groups[called] = mixture.found(
        [evaluate.log_likelihoods(session, g, 'validation') for g in parts],
        parts,
      )


def tested_joined(session: Session, name: str, group: Group) -> dict:
  """What groups of teachers reach together on the test split."""
  variables = jax.tree.map(lambda x: x[:, 0], group.by_seed)
  return evaluate.evaluate(
    session, {name: group.role}, {name: variables}, 'test'
  )


def tested_ensemble(
  session: Session, part: Round, name: str, groups: dict[str, Group]
) -> dict[str, np.ndarray]:
  """What the teachers of a group reach together on the test split."""
  fuse = getattr(tasks.find(part.config['task']), 'ensemble', None)
  group = groups[name]
  role = group.role._replace(net=many.ensemble(group.role.net, fuse), copies=1)
  read = job_groups.read_groups({name: role}, groups)
  return evaluate.evaluate(
    session, {name: role}, {name: group.by_seed}, 'test', groups=read
  )
