"""Checks the names by which entries of a config refer to each other.

These are the names of groups of teachers, of students and of terms. All unknown
ones are found here, before anything is built.
"""

from collections.abc import Collection, Mapping
from typing import Any

from jaxkd import losses
from jaxkd.distill.roles import AVERAGE
from jaxkd.errors import UserError, unknown, within
from jaxkd.run import terms
from jaxkd.students import inherit


def check(config: Mapping[str, Any], arms: Mapping[str, dict]) -> None:
  """Refuses references to entries that do not exist.

  Args:
    config: of a round, complete.
    arms: the config of each of its arms, with tuned terms in use.

  Raises:
    UserError: an unknown name, or one name for two things.
  """
  teachers = config['teachers']
  trained = sorted({name for own in arms.values() for name in own['students']})
  for name in trained:
    if name in teachers:
      raise UserError(
        f'students.{name}: a group of teachers has this name too; rename one'
      )
  for name in (*trained, *teachers):
    if name == AVERAGE:
      raise UserError(
        f'{name}: this is what terms call the running mean of a net; rename it'
      )
  for name, entry in teachers.items():
    with within(f'teachers.{name}.'):
      _check_net(entry, teachers)
      _check_terms(entry['distill'], [name], teachers, teachers)
      _check_parts(entry['train'], entry['distill'])
  for arm, own in arms.items():
    if not own['students']:
      raise UserError('name at least one student', entry='students')
    for name, entry in own['students'].items():
      with within(f'students.{name}.'):
        _check_net(entry, teachers)
    made_of = own['data']['generated']['teacher']
    if own['data']['generated']['name'] and made_of:
      known(made_of, teachers, 'data.generated.teacher')
    with within(f'arms.{arm}: ' if config['arms'] else ''):
      roles = [*own['students']]
      _check_terms(own['distill'], roles, [*teachers, *roles], teachers)
      _check_parts(own['train'], own['distill'])


def known(
  name: str, names: Collection[str], entry: str, kind: str = 'teacher'
) -> None:
  """Refuses an unknown name.

  Raises:
    UserError: it is not.
  """
  if name not in names:
    raise unknown(kind, name, names, entry)


def _check_net(entry: Mapping[str, Any], teachers: Collection[str]) -> None:
  """Checks the groups that a net reads, starts from or is made of."""
  for name in entry['reads'][::2]:
    known(name, teachers, 'reads')
  for name in entry.get('made_of', ()):
    known(name, teachers, 'made_of')
  start = inherit.source(entry['init'])
  if start and start not in teachers:
    ways = [inherit.RANDOM, *teachers]
    raise unknown('way to start', entry['init'], ways, 'init')
  if generalist := entry.get('specialize', {}).get('of', ''):
    known(generalist, teachers, 'specialize.of')


def _check_terms(
  distill: Mapping[str, Any],
  roles: Collection[str],
  nets: Collection[str],
  teachers: Mapping[str, dict],
) -> None:
  """Checks that a term has weight > 0, and that what such terms name exists."""
  used = terms.in_use(distill)
  if not used:
    raise UserError(
      'no term has a weight above 0, so nothing would train', entry='distill'
    )
  for name, term in used.items():
    at = f'distill.{name}'
    for group in terms.groups_of(term):
      known(group, [*nets, AVERAGE], f'{at}.teacher')
      _check_joined(term, teachers.get(group, {}), f'{at}.teacher: {group}')
    if term['of']:
      known(term['of'], roles, f'{at}.of', 'role')
    if term['when'] and term['otherwise']:
      others = [other for other in distill if other != name]
      known(term['otherwise'], others, f'{at}.otherwise', 'term')


def _check_joined(
  term: Mapping[str, Any], teacher: Mapping[str, Any], at: str
) -> None:
  """Refuses a group fused by a softmax for a loss of sigmoids."""
  sigmoid = term['loss'] in [loss.__name__ for loss in losses.OF_SIGMOIDS]
  if sigmoid and teacher.get('made_of') and teacher['fuse'] != 'mean_logits':
    raise UserError(
      f'{at} is fused by a softmax over the classes, and the loss '
      f'{term["loss"]} takes the sigmoid of each; set fuse of that group to '
      "'mean_logits'"
    )


def _check_parts(train: Mapping[str, Any], distill: Collection[str]) -> None:
  """Checks the terms that `train.parts` names."""
  for names in train['parts'].values():
    for name in names:
      known(name, distill, 'train.parts', 'term')
