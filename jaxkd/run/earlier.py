"""Where nets are restored from: a file, a folder, or an earlier round."""

import itertools
from pathlib import Path
from typing import NamedTuple

import jax

from jaxkd import files, models
from jaxkd.data import array_files
from jaxkd.distill.roles import Role
from jaxkd.errors import UserError, several, unknown
from jaxkd.models import external, hugging_face, pytorch
from jaxkd.models.given import Given
from jaxkd.run import stored_nets
from jaxkd.run.plan import Round
from jaxkd.students import single_file
from jaxkd.teachers import groups as teachers

_PYTORCH = ('.pt', '.pth', '.bin')
_WEIGHTS = (hugging_face.WEIGHTS, hugging_face.INDEX)
_READS = {
  pytorch.PREFIX: 'weights of PyTorch',
  hugging_face.PREFIX: 'a folder of Hugging Face',
  external.OUTPUTS: 'outputs of a teacher',
}


class Made(NamedTuple):
  """Nets that a round leaves to later ones."""

  stage: str
  entry: dict
  role: Role
  members: int


def restored_from(
  name: str, part: Round, rounds: list[Round]
) -> Given | Path | Made:
  """Where a group of teachers is restored from.

  Nets that a function gives, a path, or a stage of an earlier round:
  ``pytorch:PATH`` is a file of weights, see `jaxkd.models.pytorch`, and
  ``hf:PATH`` a folder of them, see `jaxkd.models.hugging_face`;
  ``r01/teachers/main`` is a group of teachers, ``r01/students/student`` the
  role `student` of that round's better arm, ``r01/students/ARM/student`` that
  of another arm.

  Args:
    name: the group's.
    part: the round that it is of.
    rounds: those of the run, in order.

  Raises:
    UserError: there is no such file, folder or net.
  """
  if part.teachers[name].given:
    return part.teachers[name].given
  restore, at = part.config['teachers'][name]['restore'], _entry(name)
  if restore.startswith(pytorch.PREFIX):
    return files.path(restore.removeprefix(pytorch.PREFIX), at=at)
  if hugging_face.is_folder(restore):
    return hugging_face.folder(restore, at=at)
  made = {}
  for earlier in itertools.takewhile(lambda r: r.prefix != part.prefix, rounds):
    made |= _made(earlier)
  if restore in made:
    return made[restore]
  folder = files.path(restore, at=at, remote=True)
  if f'{restore.split("/")[0]}/' in [r.prefix for r in rounds] or (
    made and not folder.exists()
  ):
    raise unknown('folder or net of an earlier round', restore, made, at)
  _check_kind(restore, folder, at)
  return stored_nets.find_net(folder, at=f'{at}: ')


def _check_kind(restore: str, path: Path, at: str) -> None:
  """Refuses what another prefix of ``restore`` reads, and names that."""
  prefix = ''
  if path.suffix in _PYTORCH:
    prefix = pytorch.PREFIX
  elif path.suffix in array_files.ENDINGS and not single_file.is_file(path):
    prefix = external.OUTPUTS
  elif any((path / own).is_file() for own in _WEIGHTS):
    prefix = hugging_face.PREFIX
  if prefix:
    raise UserError(
      f'{at}: {restore!r} is no net of a run; write {prefix + restore!r} to '
      f'read it as {_READS[prefix]}'
    )


def nets_of(
  name: str, part: Round, rounds: list[Round], directory: Path
) -> Given | Path:
  """The same, once earlier rounds have left their nets in the workdir."""
  found = restored_from(name, part, rounds)
  if isinstance(found, Made):
    return stored_nets.net_folder(directory, found.stage)
  return found


def choice(name: str, part: Round, found: Given | Path) -> list[str]:
  """The note that says which student of a run is restored, if it has several.

  Args:
    name: of the group that it is to be.
    part: the round of that group.
    found: what `restored_from` gave.
  """
  if isinstance(found, Given):
    return []
  restore = part.config['teachers'][name]['restore']
  others = stored_nets.other_students(restore, found)
  if not others:
    return []
  return [
    f'the restored teachers {name} are the student '
    f'{found.parent.name}/{found.name} of {restore}, which has '
    f'{several(others)} too'
  ]


def _made(part: Round) -> dict[str, Made]:
  """The nets of a round that later rounds can restore, by name."""
  made = {}
  for name, role in part.teachers.items():
    entry = part.config['teachers'][name]
    if not entry['restore'] and not entry['made_of']:
      stage = f'{part.prefix}teachers/{name}'
      count = teachers.members(entry, len(part.seeds))
      made[stage] = Made(stage, entry, role, count)
  better = part.config['report']['compare']['better'].split('/')[-1]
  for arm, own in part.students.items():
    for name, role in own.items():
      stage = f'{part.prefix}students/{arm}/{name}'
      entry = part.arms[arm]['students'][name]
      if entry['logit_shift']:  # no longer a net of its model alone
        continue
      made[stage] = Made(stage, entry, role, len(part.seeds))
      if arm == better:
        made[f'{part.prefix}students/{name}'] = made[stage]
  return made


def check_made(made: Made, name: str, part: Round) -> None:
  """Refuses nets of an earlier round of another number or other shapes.

  Args:
    made: what is restored.
    name: of the group that it is to be.
    part: the round of that group.

  Raises:
    UserError: it cannot be that group.
  """
  entry, at = part.config['teachers'][name], _entry(name)
  count = teachers.members(entry, len(part.seeds))
  short = made.members < count
  if short or (entry['per_seed'] and made.members != count):
    raise UserError(
      f'{at}: {made.stage} makes {made.members} nets and {count} are wanted '
      '(count × seeds where per_seed is set); change the count'
    )
  shapes = teachers.shapes(
    {**entry, 'per_seed': False, 'count': 1}, made.role, 0
  )
  model, kw = made.entry['model'], made.entry['kw']
  variables = jax.eval_shape(
    lambda v: models.merged(model, kw, v)[1], shapes.variables
  )
  teachers.check_same(variables, part.teachers[name], made.entry, at)


def _entry(name: str) -> str:
  """The config entry that says where a group is restored from."""
  return f'teachers.{name}.restore'
