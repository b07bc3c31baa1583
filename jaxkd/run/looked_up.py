"""What groups without a net give in a run, and who looks at it.

See `jaxkd.teachers.external`.
"""

import jax

from jaxkd.data import examples as examples_lib
from jaxkd.distill.roles import Group, Role
from jaxkd.errors import UserError
from jaxkd.run import cached_outputs, evaluate, terms
from jaxkd.run.plan import Round
from jaxkd.run.types import Session


def group(role: Role) -> Group:
  """The group of such a role."""
  variables = role.net.init(jax.random.key(0))
  return Group(role, jax.tree.map(lambda x: x[None], variables))


def check(part: Round, name: str) -> list[str]:
  """Checks who looks at a group.

  Args:
    part: the round.
    name: the group's.

  Returns:
    Notes on the group for the output and the row.

  Raises:
    UserError: a net reads it in evaluation, of which there are no outputs.
  """
  role = part.teachers[name]
  for reader in _readers(part, name):
    for split in ('validation', 'test'):
      if split not in role.external.splits:
        raise UserError(
          f'{reader.at}.reads: {name} has only outputs for '
          f'{" and ".join(sorted(role.external.splits))}, and what reads it is '
          f'evaluated on {split}; name a file with these too'
        )
  found, text = [*role.external.notes], role.external.name
  own = f' as {role.view} shows them' if role.view else ''
  found.append(
    f'the teachers {name} are {text}: the outputs for the examples{own} are '
    'kept on disk and looked up, and no net computes them'
  )
  for arm, roles in part.students.items():
    seen = {r.view for r in roles.values() if r.view and r.view != role.view}
    if seen and name in {
      group
      for term in terms.in_use(part.arms[arm]['distill']).values()
      for group in terms.groups_of(term)
    }:
      found.append(
        f'the students of {part.prefix}{arm} see {" and ".join(sorted(seen))}, '
        f'and the outputs of {name} are for the examples{own or " without it"}'
      )
  return found


def _readers(part: Round, name: str) -> list[Role]:
  """The nets that read the outputs of a group."""
  roles = [role for own in part.students.values() for role in own.values()]
  roles += part.teachers.values()
  return [r for r in roles if name in (group for group, _ in r.reads)]


def prepared(session: Session, part: Round, name: str, group: Group) -> dict:
  """Writes the outputs for evaluation; the metrics of the test split.

  No metrics where there are no outputs for it.
  """
  if _readers(part, name):  # which are evaluated while they train
    cached_outputs.of_split(session, name, group, 'validation')
  if 'test' not in group.role.external.splits:
    return {}
  outputs = cached_outputs.of_split(session, name, group, 'test')
  test = session.source.splits['test']

  def read(numbers):
    found = outputs.look(0, numbers)
    own = {at: x[:, 0] for at, x in found.items()}
    return {**test.fetch(numbers), 'inputs': own}

  splits = {
    **session.source.splits,
    'test': examples_lib.streamed(test).read_by(read),
  }
  return evaluate.evaluate(
    session._replace(source=session.source._replace(splits=splits)),
    {name: group.role._replace(eval_view='')},
    {name: group.variables},
    'test',
  )
