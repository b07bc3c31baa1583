"""Groups of teachers: trained by the run, or restored from an earlier one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import shapes as shape_lib
from jaxkd.data import inputs, views
from jaxkd.data.sources import Source
from jaxkd.distill.roles import Group, Role
from jaxkd.errors import UserError, within
from jaxkd.models import (
  hugging_face,
  hugging_face_vision,
  precision,
  pytorch,
)
from jaxkd.models.given import Given
from jaxkd.paths import by_path
from jaxkd.students import stored


def members(entry: Mapping[str, Any], seeds: int) -> int:
  """How many nets a group has in all."""
  return entry['count'] * (seeds if entry['per_seed'] else 1)


def held(entry: Mapping[str, Any], variables: dict) -> dict:
  """The variables of a trained group, in the type that its entry says."""
  return precision.held(variables, entry['train']['param_dtype'])


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
  """A group made of others, from their groups and those that these read.

  It works on shapes too.
  """
  per_member = any(group.per_member for group in parts.values())

  def lift(x, own):
    """[1, T, ...], or [S, 1, T, ...] where some part is each seed's own."""
    shape = (*x.shape[:1], 1, *x.shape[1:]) if own else (1, *x.shape)
    whole = (seeds, *shape) if per_member and not own else shape
    return jnp.broadcast_to(jnp.reshape(x, shape), whole)

  variables = {
    kind: {
      name: shape_lib.mapped(
        lambda x, own=group.per_member: lift(x, own), group.variables[kind]
      )
      for name, group in parts.items()
    }
    for kind in ('params', 'state')
  }
  return Group(role, variables, per_member)


def shapes(entry: Mapping[str, Any], role: Role, seeds: int) -> Group:
  """The shapes of a group, before it is trained."""
  lead = (seeds, entry['count']) if entry['per_seed'] else (entry['count'],)
  one = jax.eval_shape(
    lambda key: held(entry, role.net.init(key)), jax.random.key(0)
  )
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
  folder: Path | Given,
) -> dict:
  """The variables of a group that was trained before, [members, ...].

  Args:
    name: the group's.
    entry: its complete entry in the config.
    role: its net.
    seeds: how many the students have.
    folder: where the nets were exported to, a file of PyTorch's weights, a
      folder of Hugging Face, or nets that exist with their weights.

  Raises:
    UserError: no such net, another architecture, or too few members.
  """
  at = f'teachers.{name}.restore'
  with within(f'{at}: '):
    if isinstance(folder, Given):
      variables = folder.variables
      there = len(jax.tree.leaves(variables)[0])
    elif entry['restore'].startswith(pytorch.PREFIX):
      like = jax.eval_shape(role.net.init, jax.random.key(0))
      one = pytorch.load(folder, entry['model'], like)
      variables, there = jax.tree.map(lambda x: x[None], one), 1
    elif hugging_face.is_folder(entry['restore']):
      like = jax.eval_shape(role.net.init, jax.random.key(0))
      dtype = entry['train']['param_dtype']
      if hugging_face_vision.family(folder):
        one = _of_images(entry, role, like, folder)
      else:
        one = hugging_face.load(folder, like, dtype=dtype)
      variables, there = jax.tree.map(lambda x: x[None], one), 1
    else:
      variables, spec = stored.load(folder)
      check_same(variables, role, spec, at)
      there = spec['members']
  variables = jax.device_get(variables)  # each job puts them on its devices
  wanted = members(entry, seeds)
  exactly = entry['per_seed'] or isinstance(folder, Given)
  if there < wanted or (exactly and there != wanted):
    holds = 'gives' if isinstance(folder, Given) else 'holds'
    raise UserError(
      f'{at}: {folder} {holds} {there} nets and {wanted} are wanted '
      f'(count × seeds where per_seed is set); change '
      f'teachers.{name}.count or train.seeds'
    )
  variables = jax.tree.map(lambda x: x[:wanted], variables)
  check_finite(variables, f'{at}: {folder}')
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


def check_finite(variables: dict, where: str) -> None:
  """Refuses weights with which nothing can be computed.

  Args:
    variables: a net's, or several ones'.
    where: what holds them, for errors.

  Raises:
    UserError: some are infinite or not a number.
  """
  for path, x in by_path(variables).items():
    if not np.isfinite(x).all():
      raise UserError(
        f'{where} holds weights that are infinite or not a number ({path}); '
        'train that net again, or restore another'
      )


def differences(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  folder: Path | Given,
  source: Source,
  kind: str = 'softmax',
) -> list[str]:
  """How the data and views of a restored group differ from those of this run.

  Args:
    name: the group's.
    entry: its complete entry in the config.
    role: its net.
    folder: where the nets were exported to, a file of PyTorch's weights, a
      folder of Hugging Face, or nets that exist with their weights.
    source: the data that it is shown here.
    kind: what logits are in this run, see `jaxkd.tasks`.

  Returns:
    Notes for the row.

  Raises:
    UserError: its classes have other names than those of the data, its logits
      are of another kind, or its labels were standardised otherwise.
  """
  if isinstance(folder, Given):
    _check_given(name, entry, role, folder.made, source, kind)
    seen = inputs.said(inputs.of(source))
    view = f'{seen} through {role.eval_view}' if role.eval_view else seen
    return [
      f'the teachers {name} are nets that {folder} gives with their weights '
      f'(SHA-256 {folder.checksum[:12]}...), and in evaluation see {view}'
    ]
  if entry['restore'].startswith(pytorch.PREFIX):
    notes = []
    if any(source.standardized):
      notes.append(
        f'the teachers {name} come from PyTorch, and what they predict is '
        'taken for labels that are standardised as those of this run are'
      )
    if 'standardize' not in role.eval_view:  # else how is not known
      notes.append(
        f'the teachers {name} come from PyTorch, where inputs are mostly '
        'standardised, and see values as the data have them, for there is no '
        f'standardize in teachers.{name}.views.eval'
      )
    return notes
  if hugging_face.is_folder(entry['restore']) and hugging_face_vision.family(
    folder
  ):
    return _differences_of_images(name, entry, role, folder, source, kind)
  if hugging_face.is_folder(entry['restore']):
    rows = hugging_face.options(folder)['vocabulary']
    classes = entry['classes'] or source.num_classes
    if rows == classes:
      return []
    return [
      f'the heads of the teachers {name} have {rows:,} rows, of which the '
      f'first {classes:,} are tokens of {source.name}; probabilities are over '
      'these'
    ]
  spec = stored.description(folder)
  _check_classes(name, entry, spec, source)
  _check_kind(name, entry, spec.get('logits', kind), kind)
  _check_standardized(name, spec, source)
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
  view = views.parse(spec.get('view', own), stored=True).text
  if view != own:
    notes.append(
      f'{said} evaluated with the view {view!r} and have {own!r} here'
    )
  param_dtype = spec.get('param_dtype', precision.FULL)
  if param_dtype != entry['train']['param_dtype']:
    notes.append(
      f'{said} trained with parameters in {param_dtype} and have them in '
      f'{entry["train"]["param_dtype"]} here'
    )
  if 'inputs' in spec:
    there, those = inputs.from_json(spec['inputs']), inputs.of(source)
    if inputs.scales(there) != inputs.scales(those):
      notes.append(
        f'{said} trained on {inputs.said(there)} and see {inputs.said(those)} '
        'here'
      )
  return notes


def _check_given(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  made: Any,
  source: Source,
  kind: str,
) -> None:
  """Refuses a net that says of itself, as `jaxkd.load` gives it, what differs.

  Such a net has its view within.
  """
  classes = getattr(made, 'classes', ())
  spec = {
    'classes': classes,
    'num_classes': len(classes),
    'standardized': getattr(made, 'standardized', source.standardized),
  }
  _check_classes(name, entry, spec, source)
  _check_kind(name, entry, getattr(made, 'logits', kind), kind)
  _check_standardized(name, spec, source)
  own = getattr(made, 'view', '')
  if 'standardize' in own and 'standardize' in role.eval_view:
    raise UserError(
      f'teachers.{name}.views.eval: the net standardises what it is given '
      f'itself, by its view {own!r}; leave standardize out of both views here'
    )


def _of_images(
  entry: Mapping[str, Any], role: Role, like: Any, folder: Path
) -> dict:
  """The variables of a net for images in a folder of Hugging Face."""
  outputs = jax.eval_shape(
    lambda v, x: role.net.apply(v, x)[0], like, shape_lib.batch(role.shape)
  )
  count = outputs['logits'].shape[-1]
  hugging_face_vision.check(folder, role.shape, count)
  tensors = dict(hugging_face.tensors(folder))
  return pytorch.placed(tensors, entry['model'], like, folder)


def _differences_of_images(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  folder: Path,
  source: Source,
  kind: str,
) -> list[str]:
  """The same of a net for images in a folder of Hugging Face."""
  there = hugging_face_vision.classes(folder)
  spec = {'classes': there, 'num_classes': len(there)}
  _check_classes(name, entry, spec, source)
  _check_kind(name, entry, hugging_face_vision.kind(folder) or kind, kind)
  _check_standardized(name, {}, source)  # such a folder does not say how
  shown = hugging_face_vision.view(folder)
  own, wanted = (views.parse(t).text for t in (role.eval_view, shown.text))
  notes = [f'the net of the teachers {name} {note}' for note in shown.notes]
  if own == wanted:
    notes += [
      f'the teachers {name} see images through {own!r}, as their folder says'
    ] * bool(own)
  else:
    notes.append(
      f'the teachers {name} were evaluated with {wanted!r}, as their folder '
      f'says, and have {own!r} here'
    )
  return notes


def _check_classes(
  name: str, entry: Mapping[str, Any], spec: Mapping, source: Source
) -> None:
  """Refuses a group whose class numbers mean other classes than the data's."""
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


# What logits are, see `jaxkd.tasks`.
_KINDS = {
  'softmax': 'a softmax over the classes',
  'sigmoids': 'a sigmoid for each class',
  'values': 'measured values',
}


def _check_kind(
  name: str, entry: Mapping[str, Any], there: str, here: str
) -> None:
  """Refuses a group whose logits mean something else than those of the run."""
  if there != here and not entry['classes']:
    raise UserError(
      f'teachers.{name}.restore: it gives logits of {_KINDS[there]}, and nets '
      f'of this task of {_KINDS[here]}; restore a teacher of the same task, or '
      f'set teachers.{name}.classes to the number that it tells apart and '
      'compare its layers alone'
    )


def _check_standardized(name: str, spec: Mapping, source: Source) -> None:
  """Refuses a group whose predictions have another unit than the labels."""
  there, here = (
    tuple(map(tuple, found))
    for found in (spec.get('standardized', ()), source.standardized)
  )
  if there != here:
    said = [
      f'the means {each[0]} and the deviations {each[1]}' if each else 'nothing'
      for each in (there, here)
    ]
    raise UserError(
      f'teachers.{name}.restore: its labels were standardised by {said[0]}, '
      f'and those of {source.name} by {said[1]}; restore a teacher of the same '
      'training split'
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
    f'{here.get(path, "missing")} here; set model and kw to what is there'
  )
