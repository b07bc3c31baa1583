"""Which groups of teachers a job needs: for its step, and as inputs."""

from collections.abc import Mapping
from types import MappingProxyType

from jaxkd.distill import fusion
from jaxkd.distill.roles import Group, Role
from jaxkd.run.build import behind
from jaxkd.run.recipe import entries_of
from jaxkd.run.types import Job


def used_groups(job: Job) -> dict[str, Group]:
  """Groups whose parameters the step needs.

  The job's nets start from them, or learn from them or read them where their
  outputs are not cached.
  """
  computed = computed_groups(job)
  starts = {role.starts_from for role in job.students.values()}
  started = with_read(starts, job.groups)
  return {
    name: group
    for name, group in job.groups.items()
    if name in started or name in computed
  }


def start_only(job: Job) -> set[str]:
  """Groups that the job's nets start from, and whose outputs no step needs."""
  return used_groups(job).keys() - computed_groups(job).keys()


def computed_groups(job: Job) -> dict[str, Group]:
  """Groups that the step runs, as their outputs are not cached."""
  return {
    name: group
    for name, group in groups_looked_at(job).items()
    if not group.role.cache
  }


def groups_looked_at(job: Job) -> dict[str, Group]:
  """Groups whose outputs the step needs, computed or cached."""
  names = {name for entry in entries_of(job).values() for name in entry.groups}
  return with_read(names, job.groups, job.students, behind_cached=False)


def drawn_groups(job: Job) -> set[str]:
  """Groups of which the step runs one net, drawn anew for each batch."""
  whole = {
    name for entry in entries_of(job).values() for name in entry.teachers
  }
  draws = [draw for entry in entries_of(job).values() for draw in entry.draws]
  return set(fusion.alone(whole, draws))


def read_groups(
  students: Mapping[str, Role], groups: Mapping[str, Group]
) -> dict[str, Group]:
  """The groups without which the nets have no input."""
  return with_read(set(), groups, students)


def with_read(
  names: set[str],
  groups: Mapping[str, Group],
  roles: Mapping[str, Role] = MappingProxyType({}),
  *,
  behind_cached: bool = True,
) -> dict[str, Group]:
  """The groups of these names, and all that they and the roles read.

  Args:
    names: of groups.
    groups: all of them.
    roles: nets that may read some.
    behind_cached: whether groups whose outputs are cached count as readers.
  """
  nets = {
    name: group.role._replace(reads=())
    if group.role.cache and not behind_cached
    else group.role
    for name, group in groups.items()
  }
  read = {group for role in roles.values() for group, _ in role.reads}
  return {name: groups[name] for name in behind(names | read, nets)}


def frozen_of(groups: Mapping[str, Group]) -> tuple[dict, dict]:
  """The groups' variables, and the axis of members that each has."""
  variables = {name: group.variables for name, group in groups.items()}
  axes = {name: 0 if g.per_member else None for name, g in groups.items()}
  return variables, axes
