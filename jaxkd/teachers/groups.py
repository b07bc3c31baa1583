"""Groups of teachers: trained here, or restored from where they are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import keys
from jaxkd import shapes as shape_lib
from jaxkd.data import augment, inputs, partition, views
from jaxkd.data.index import LabelIndex
from jaxkd.data.sources import Source
from jaxkd.distill.step import Role
from jaxkd.distill.training import Group, Job
from jaxkd.errors import UserError, within
from jaxkd.models import pytorch
from jaxkd.paths import by_path
from jaxkd.students import stored
from jaxkd.teachers import specialists


def job(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  *,
  stage: str,
  labels: LabelIndex,
  data: Mapping[str, Any],
  seeds: list[int],
  groups: Mapping[str, Group] | None = None,
  subsets: np.ndarray | None = None,
) -> Job:
  """The population that trains a group.

  Its members are the group's T teachers, or T for each of the seeds of the
  students; each has a seed and a part of the data of its own.

  Args:
    name: the group's.
    entry: its complete entry in the config.
    role: its net.
    stage: where its checkpoints go.
    labels: of the training examples.
    data: the section of the config.
    seeds: of the students' members.
    groups: the groups that it reads or learns from.
    subsets: of specialists: the classes of each, bool [members, K].
  """
  own = seeds if entry['per_seed'] else seeds[:1]
  part = entry['data']
  its_own = part['fraction'] or part['partition']
  with within(f'teachers.{name}.' if its_own else ''):
    weights = [
      partition.weights(
        labels,
        fraction=part['fraction'] or data['fraction']['teachers'],
        partition=part['partition'] or data['partition']['teachers'],
        count=entry['count'],
        seed=partition.seed_of(seed, f'teachers/{name}', data['draw']),
        role='' if its_own else 'teachers',
      )
      for seed in own
    ]
  weights, state = np.concatenate(weights), {}
  if subsets is not None:
    share = entry['specialize']['own']
    if labels.each:
      raise UserError(
        f'teachers.{name}.specialize.of: specialists need one class for each '
        f'example, and these have {" x ".join(map(str, labels.each))} labels; '
        'leave it empty'
      )
    classes = labels.classes
    weights = weights * specialists.weights(classes, subsets, own=share)
    state = {
      'subset': subsets.astype(np.float32),
      'dustbin': specialists.dustbin_bias(classes, subsets, own=share),
    }
  return Job(
    stage=stage,
    students={name: role._replace(copies=1)},
    groups={
      other: _shared_out(group, entry, f'teachers.{name}', other)
      for other, group in (groups or {}).items()
    },
    distill=entry['distill'],
    train=entry['train'],
    seeds=[
      keys.seed(seed, f'teachers/{name}/{index}')
      for seed in own
      for index in range(entry['count'])
    ],
    weights=weights,
    order=data['order'],
    together=data['together'],
    augment=_augment(name, part['augment'], data['augment']['teachers']),
    at=f'teachers.{name}.',
    given={name: {'specialist': state}} if state else {},
  )


def _augment(name: str, own: str, common: str) -> augment.Augment:
  """How a group's batches are mixed: as it says, or as for all teachers."""
  if not own:
    return augment.Augment(common, 'data.augment.teachers')
  text = '' if own == augment.NONE else own
  return augment.Augment(text, f'teachers.{name}.data.augment')


def _shared_out(group: Group, entry, at: str, other: str) -> Group:
  """A group as the members of another, T for each seed, look at it."""
  if not group.per_member:
    return group
  if not entry['per_seed']:
    raise UserError(
      f'{at}.per_seed: {other} has teachers for each seed, so what learns from '
      f'it must too; set it, or unset teachers.{other}.per_seed'
    )

  def repeated(x):
    if isinstance(x, jax.ShapeDtypeStruct):
      members = x.shape[0] * entry['count']
      return jax.ShapeDtypeStruct((members, *x.shape[1:]), x.dtype)
    return jnp.repeat(x, entry['count'], axis=0)

  return group._replace(variables=jax.tree.map(repeated, group.variables))


def group(
  entry: Mapping[str, Any], role: Role, variables: dict, seeds: int
) -> Group:
  """A trained group, from variables with a leading axis of its members."""
  if entry['per_seed']:
    variables = jax.tree.map(
      lambda x: x.reshape(seeds, entry['count'], *x.shape[1:]), variables
    )
  return Group(role, variables, entry['per_seed'])


def join(role: Role, parts: Mapping[str, Group], seeds: int) -> Group:
  """A group that is made of others, from theirs and what these read.

  Of shapes too.
  """
  per_member = any(group.per_member for group in parts.values())

  def lift(x, own):
    """[1, T, ...], or [S, 1, T, ...] where some part is each seed's own."""
    shape = (*x.shape[:1], 1, *x.shape[1:]) if own else (1, *x.shape)
    whole = (seeds, *shape) if per_member and not own else shape
    if isinstance(x, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(whole, x.dtype)
    return jnp.broadcast_to(jnp.reshape(x, shape), whole)

  variables = {
    kind: {
      name: jax.tree.map(
        lambda x, own=group.per_member: lift(x, own), group.variables[kind]
      )
      for name, group in parts.items()
    }
    for kind in ('params', 'state')
  }
  return Group(role, variables, per_member)


def shapes(entry: Mapping[str, Any], role: Role, seeds: int) -> Group:
  """The group before it is trained: its shapes."""
  lead = (seeds, entry['count']) if entry['per_seed'] else (entry['count'],)
  one = jax.eval_shape(role.net.init, jax.random.key(0))
  return Group(
    role,
    jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), one
    ),
    entry['per_seed'],
  )


def restore(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  seeds: int,
  folder: Path,
) -> dict:
  """The variables of a group that was trained before, [members, ...].

  Args:
    name: the group's.
    entry: its complete entry in the config.
    role: its net.
    seeds: how many the students have.
    folder: where the nets were exported to, or a file of PyTorch's weights.

  Raises:
    UserError: no such net, one of another architecture, or too few members.
  """
  at = f'teachers.{name}.restore'
  with within(f'{at}: '):
    if entry['restore'].startswith(pytorch.PREFIX):
      like = jax.eval_shape(role.net.init, jax.random.key(0))
      one = pytorch.load(folder, entry['model'], like)
      variables, there = jax.tree.map(lambda x: x[None], one), 1
    else:
      variables, spec = stored.load(folder)
      check_same(variables, role, spec, at)
      there = spec['members']
  wanted = entry['count'] * (seeds if entry['per_seed'] else 1)
  if there < wanted or (entry['per_seed'] and there != wanted):
    raise UserError(
      f'{at}: {folder} holds {there} nets and {wanted} are wanted '
      f'(count × seeds where per_seed is set); change '
      f'teachers.{name}.count or train.seeds'
    )
  variables = jax.tree.map(lambda x: x[:wanted], variables)
  for path, x in by_path(variables).items():
    if np.isnan(np.asarray(x)).any():
      raise UserError(
        f'{at}: {folder} holds weights that are not a number ({path}); train '
        'that net again, or restore another'
      )
  special = entry['specialize']
  if special['of']:
    subsets = np.asarray(variables['state']['specialist']['subset'])
    held = subsets.reshape(-1, entry['count'], subsets.shape[-1]).sum(1).max()
    if held > special['overlap']:
      raise UserError(
        f'{at}: a class is in {held:g} of the subsets that are stored there; '
        f'set teachers.{name}.specialize.overlap to that'
      )
  return variables


def differences(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  folder: Path,
  source: Source,
) -> list[str]:
  """How a restored group was shown its data, where that is not as here.

  Args:
    name: the group's.
    entry: its complete entry in the config.
    role: its net.
    folder: where the nets were exported to, or a file of PyTorch's weights.
    source: the data that it is shown here.

  Returns:
    Notes for whoever reads the row.

  Raises:
    UserError: its classes have other names than those of the data.
  """
  if entry['restore'].startswith(pytorch.PREFIX):
    if 'standardize' in role.eval_view:
      return []  # how, such a file does not tell
    return [
      f'the teachers {name} come from PyTorch, where inputs are mostly '
      'standardised, and see values as the data have them, for there is no '
      f'standardize in teachers.{name}.views.eval'
    ]
  spec = stored.description(folder)
  _check_classes(name, entry, spec, source)
  notes, here = [], shape_lib.as_json(role.shape)
  if role.reads:
    return notes
  said = f'the restored teachers {name} were'
  shape = spec.get('input_shape', here)
  if shape != here:
    there = shape_lib.said(shape_lib.from_json(shape))
    notes.append(
      f'{said} trained on examples of {there} and see '
      f'{shape_lib.said(role.shape)} here'
    )
  own = views.parse(role.eval_view).text
  view = views.parse(spec.get('view', own)).text
  if view != own:
    notes.append(
      f'{said} evaluated with the view {view!r} and have {own!r} here'
    )
  if 'inputs' in spec:
    there, those = inputs.from_json(spec['inputs']), inputs.of(source)
    if inputs.scales(there) != inputs.scales(those):
      notes.append(
        f'{said} trained on {inputs.said(there)} and see {inputs.said(those)} '
        'here'
      )
  return notes


def _check_classes(
  name: str, entry: Mapping[str, Any], spec: Mapping, source: Source
) -> None:
  """Refuses a group that means another class by a number than the data do."""
  there, here = spec.get('classes', ()), source.classes
  own = spec.get('num_classes') != len(there) or entry['classes']
  if own or len(there) != len(here):
    return  # other classes, which the config says, or another architecture
  numbers = tuple(map(str, range(len(here))))
  if numbers in (tuple(there), tuple(here)):
    return  # no names are known
  for number, (a, b) in enumerate(zip(there, here, strict=True)):
    if a != b:
      raise UserError(
        f'teachers.{name}.restore: class {number} is {a!r} there and {b!r} in '
        f'{source.name}; restore a teacher of the same classes, or set '
        f'teachers.{name}.classes={len(here)} if they mean the same'
      )


def check_same(variables: dict, role: Role, spec: Mapping, at: str) -> None:
  """Refuses stored variables, [members, ...], of another architecture."""
  own = jax.eval_shape(role.net.init, jax.random.key(0))
  there = {path: jnp.shape(x)[1:] for path, x in by_path(variables).items()}
  here = {path: jnp.shape(x) for path, x in by_path(own).items()}
  if there == here:
    return
  path = min(
    path for path in {*there, *here} if there.get(path) != here.get(path)
  )
  raise UserError(
    f'{at}: what is stored there is a {spec["model"]} with {spec["kw"]}, '
    f'another architecture: {path} is {there.get(path, "missing")} there and '
    f'{here.get(path, "missing")} here'
  )
