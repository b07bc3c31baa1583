"""What users give to a step, checked."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxkd.distill import accumulation
from jaxkd.distill.model import Model, PyTree, dtype_of, is_int
from jaxkd.distill.roles import AVERAGE
from jaxkd.distill.step import learner
from jaxkd.distill.system import System
from jaxkd.errors import UserError, unknown
from jaxkd.train import sharding
from jaxkd.train.optimizer import check_result
from jaxkd.types import Context, Metric, Term


def check_kinds(student, teachers, terms, optimizer, metrics) -> None:
  """Refuses what is not of the kind that a step takes."""
  dicts = {
    'teachers': (teachers, "{'main': teacher}"),
    'terms': (terms, "{'soft': distill.term(...)}"),
    'metrics': (metrics, "{'top1': function}"),
  }
  for what, (given, like) in dicts.items():
    if not isinstance(given, Mapping):
      raise UserError(
        f'distill.step: {what} should be a dict, as {like}, not {brief(given)}'
      )
  students = student if isinstance(student, Mapping) else {'student': student}
  models = {f'student {name!r}': (model,) for name, model in students.items()}
  for name, group in teachers.items():
    several = isinstance(group, Sequence)
    models[f'teachers[{name!r}]'] = group if several else (group,)
  for name, group in models.items():
    for model in group:
      if not isinstance(model, Model):
        raise UserError(
          f'distill.step: {name}: {brief(model)} is no model; make one with '
          'distill.net'
        )
  of_optax = (getattr(optimizer, name, None) for name in ('init', 'update'))
  if isinstance(optimizer, type) or not all(map(callable, of_optax)):
    raise UserError(
      f'distill.step: {brief(optimizer)} is no optimiser; give one of optax, '
      'as optax.adamw(1e-3)'
    )
  check_result(optimizer, 'distill.step: optimizer')
  for name, metric in metrics.items():
    if not isinstance(metric, Metric) and not callable(metric):
      raise UserError(
        f'metrics[{name!r}]: {brief(metric)} should be a function of outputs '
        'and batch, or a Metric'
      )


def check_numbers(members, accumulate, average, mesh) -> None:
  """Refuses numbers that are none of members, parts or a running mean."""
  for what, number in (('members', members), ('accumulate', accumulate)):
    if not is_int(number) or number < 1:
      raise UserError(
        f'distill.step: {what}={number!r} should be a number, 1 or more'
      )
  is_number = isinstance(average, int | float) and not isinstance(average, bool)
  if not is_number or not 0 <= average < 1:
    raise UserError(
      f'distill.step: average={average!r} should be 0, or a decay below 1, '
      'e.g. 0.99'
    )
  if mesh is not None:
    axes = sharding.MEMBER, sharding.DATA
    if tuple(mesh.axis_names) != axes or members % mesh.shape[sharding.MEMBER]:
      raise UserError(
        f'distill.step: a mesh of {dict(mesh.shape)} is not for {members} '
        'members; make it with distill.mesh(members, batch_size)'
      )


def check_names(students, groups, terms) -> None:
  """Refuses names and terms that cannot be told apart."""
  if not students or not terms:
    what = 'terms' if students else 'student'
    raise UserError(f'distill.step: give at least one of {what}')
  for name in (*students, *groups):
    if not isinstance(name, str) or name in ('', AVERAGE) or '/' in name:
      raise UserError(
        f'distill.step: {name!r} cannot be the name of a net; rename it'
      )
  for name in students:
    if name in groups:
      raise UserError(
        f'distill.step: a student and a group of teachers are both called '
        f'{name}; rename one'
      )
  for name, term in terms.items():
    if not isinstance(name, str) or not name or '/' in name:
      raise UserError(
        f'distill.step: {name!r} cannot be the name of a term; rename it'
      )
    if not isinstance(term, Term):
      raise UserError(
        f'terms[{name!r}]: {term!r} is no Term; make one with distill.term'
      )
    if not term.of and len(students) > 1:
      raise UserError(
        f'terms[{name!r}]: several nets train ({", ".join(students)}); choose '
        'one by of='
      )
    if term.of and term.of not in students:
      raise unknown('student', term.of, students, f'terms[{name!r}]: of')
    of = term.of or next(iter(students))
    ours, theirs = term.layers
    if of in term.groups and len(ours) == 1 and ours == theirs:
      raise UserError(
        f'terms[{name!r}]: {of} would be compared with itself; name another '
        'teacher, or two of its layers in at'
      )
  trained = {term.of for term in terms.values()}
  for name in students if len(students) > 1 else ():
    if name not in trained:
      raise UserError(
        f'distill.step: no term trains {name}; give one with of={name!r}'
      )


def check_weights(students, groups, members, same_start) -> None:
  """Refuses teachers without weights, and members that would start alike."""
  for name, models in groups.items():
    if not models or any(model.variables is None for model in models):
      raise UserError(
        f'teachers: {name} has no weights; give a trained nnx.Module or '
        '(module, variables)'
      )
  for name, model in students.items():
    if model.variables is not None and members > 1 and not same_start:
      raise UserError(
        f'{name}: all {members} members would start from the weights of one '
        'module; give distill.net a function from nnx.Rngs to a module, which '
        'draws weights for each seed, or set same_start=True'
      )


def check_parts(parts, terms) -> None:
  """Refuses parts of the loss that do not have each term once."""
  for part, names in parts.items():
    if isinstance(names, str):
      raise UserError(
        f'distill.step: parts: {part} should be a tuple of terms, as '
        f'({names!r},)'
      )
  named = [name for names in parts.values() for name in names]
  for name in named:
    if name not in terms:
      raise unknown('term', name, terms, 'distill.step: parts')
  for name in terms if parts else ():
    if named.count(name) != 1:
      raise UserError(
        f'distill.step: parts: the term {name} is in {named.count(name)} of '
        f'the parts {", ".join(parts)}; put it into one'
      )


def check_adds_up(system: System, frozen: dict, batch: dict) -> None:
  """Refuses terms of which parts of a batch give another gradient.

  Args:
    system: what trains, whose teachers' variables are `frozen`.
    frozen: group -> variables.
    batch: of shapes.
  """
  contexts: dict[str, Context] = {}
  made = learner(
    system._replace(example=numbered(batch, 0)), look=contexts.__setitem__
  )
  jax.eval_shape(made.init, jax.ShapeDtypeStruct((), jnp.uint32), {}, frozen)
  for name, term in system.recipe({}).terms.items():
    if not accumulation.adds_up(term, contexts[name]):
      raise UserError(
        f'terms[{name!r}]: it looks at the whole batch, or draws for it, which '
        'parts of a batch cannot; set accumulate=1 or leave the term out'
      )


def seeds_of(
  seed: int | Sequence[int], members: int, *, alike: bool
) -> list[int]:
  """The seed of each member.

  Args:
    seed: of the first, whom the others follow; or of all.
    members: how many there are.
    alike: whether two may have the same.

  Raises:
    UserError: they are no seeds, or not so many.
  """
  try:
    given = np.asarray(seed)
  except (TypeError, ValueError):
    given = np.asarray(None)
  if given.ndim == 0 and given.dtype.kind in 'iu':
    seeds = [int(given) + i for i in range(members)]
  else:
    seeds = given.tolist() if given.dtype.kind in 'iu' else []
  if len(seeds) != members or given.ndim > 1:
    raise UserError(
      f'step.init: {brief(seed)} should be a seed, or one for each of the '
      f'{members} members'
    )
  for each in seeds:
    if not 0 <= each < 2**32:
      raise UserError(
        f'step.init: the seed {each} should be from 0 to {2**32 - 1}'
      )
    if seeds.count(each) > 1 and not alike:
      raise UserError(
        f'step.init: several members have the seed {each} and would be the '
        'same; give each a seed of its own'
      )
  return seeds


def checked_batch(
  batch: Mapping[str, PyTree],
  axes: int,
  members: int,
  mesh: Mesh | None,
  *,
  parts: int = 1,
  at: str = '',
) -> dict:
  """A batch of arrays that all have the same leading axes.

  Args:
    batch: of the user.
    axes: 2 where there is an axis of members before that of examples, else 1.
    members: how many there are.
    mesh: the devices that share it.
    parts: that it is taken in.
    at: what comes before an error.

  Raises:
    UserError: naming the field that does not fit.
  """
  if not isinstance(batch, Mapping):
    raise UserError(
      f'{at}a batch should be a dict of arrays, not {brief(batch)}'
    )
  if 'inputs' not in batch or not jax.tree.leaves(batch['inputs']):
    known = {name for name in batch if name != 'inputs'}
    raise unknown('field of the batch', 'inputs', known, at.rstrip(': '))
  cached_in(batch)
  batch, sizes = dict(batch), {}
  for name, tree in batch.items():
    narrowed = functools.partial(_narrowed, name=name)
    for x in jax.tree.leaves(tree):
      if not _is_array(x) or np.ndim(x) < axes:
        lead = 'members and examples' if axes == 2 else 'examples'
        raise UserError(
          f'{at}the field {name} of the batch holds {x!r:.40}; give arrays of '
          f'numbers, of NumPy or JAX, with a leading axis of {lead}, and leave '
          'other fields out'
        )
      sizes[name] = x.shape[:axes]
    batch[name] = jax.tree.map(narrowed, tree)
  wrong = {n for n, size in sizes.items() if size != sizes['inputs']}
  if wrong:
    raise UserError(
      f'{at}the field {min(wrong)} of the batch is of '
      f'{sizes[min(wrong)][-1]} examples and its inputs of '
      f'{sizes["inputs"][-1]}; give equally many'
    )
  for name in ('id', 'epoch'):
    if name in batch and not jnp.issubdtype(batch[name].dtype, jnp.integer):
      raise UserError(
        f'{at}the field {name} of the batch is {batch[name].dtype}; give whole '
        'numbers'
      )
  size = sizes['inputs'][-1]
  if not size:
    raise UserError(f'{at}the batch has no examples; leave it out')
  if axes == 2 and sizes['inputs'][0] != members:
    raise UserError(
      f'the batch is for {sizes["inputs"][0]} members, and there are '
      f'{members}; its leading axis is that of members'
    )
  if size % parts:
    raise UserError(
      f'a batch of {size} cannot be taken in {parts} parts; leave the last '
      'batch of an epoch out, or choose another accumulate'
    )
  if mesh is not None and size % mesh.shape[sharding.DATA]:
    raise UserError(
      f'a batch of {size} cannot be shared by {mesh.shape[sharding.DATA]} '
      'devices; leave the last batch of an epoch out, or choose '
      'distill.mesh(members, batch_size)'
    )
  return batch


def _narrowed(x: Any, *, name: str) -> Any:
  """An array of a type that JAX has, as int32 for int64.

  Raises:
    UserError: numbers that this type cannot hold.
  """
  dtype = dtype_of(x)
  if isinstance(x, jax.Array) or x.dtype == dtype:
    return x
  x = np.asarray(x)
  if np.issubdtype(dtype, np.integer) and x.size:
    most = np.iinfo(dtype)
    if x.min() < most.min or x.max() > most.max:
      raise UserError(
        f'the field {name} of the batch holds numbers beyond {dtype}; '
        'number from 0 on, or set jax_enable_x64'
      )
  return x.astype(dtype)


def cached_in(batch: Mapping[str, PyTree]) -> dict:
  """The outputs that come with a batch, by group."""
  cached = batch.get('cached_outputs', {})
  groups = cached.values() if isinstance(cached, Mapping) else [cached]
  if not all(isinstance(outputs, Mapping) for outputs in groups):
    raise UserError(
      'the field cached_outputs of the batch should be a dict of dicts, group '
      '-> output -> [B, T, ...]'
    )
  return cached


def _is_array(x: Any) -> bool:
  """Whether it is an array of numbers, of NumPy or JAX."""
  if isinstance(x, jax.Array):
    return True
  numpy = isinstance(x, np.ndarray | np.generic)
  return numpy and (x.dtype.kind in 'biufc' or x.dtype == jnp.bfloat16)


def brief(x: Any) -> str:
  """The beginning of what it looks like."""
  return f'{(repr(x).splitlines() or [""])[0]:.60}'


def numbered(batch: Mapping[str, PyTree], step: int | Array) -> dict:
  """A batch whose examples have numbers: those that it has, or their place."""
  like = jax.tree.leaves(batch['inputs'])[0]
  size = like.shape[:1]
  if isinstance(like, jax.ShapeDtypeStruct):
    number = jax.ShapeDtypeStruct(size, jnp.int32)
    return {'id': number, 'epoch': number, **batch}
  return {
    'id': jnp.arange(size[0], dtype=jnp.int32),
    'epoch': jnp.full(size, step, jnp.int32),
    **batch,
  }
