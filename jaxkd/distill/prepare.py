"""What users give to a step, checked and made ready."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxkd.distill import accumulation, masks
from jaxkd.distill.model import Model, PyTree, dtype_of
from jaxkd.distill.roles import AVERAGE, Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import System
from jaxkd.errors import UserError, unknown, within
from jaxkd.models import frozen
from jaxkd.train import sharding
from jaxkd.types import Metric, Term


def check_names(students, groups, terms) -> None:
  """Refuses names and terms that cannot be told apart."""
  if not students or not terms:
    what = 'terms' if students else 'student'
    raise UserError(f'distill.step: give at least one of {what}')
  for name in (*students, *groups):
    if name == AVERAGE or '/' in name:
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


def check_parts(
  parts: Mapping[str, Sequence[str]], terms: Mapping[str, Term]
) -> None:
  """Refuses parts of the loss that are not all of it, each term once."""
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


def check_accumulate(system: System, frozen: dict, batch: dict) -> None:
  """Refuses terms of which parts of a batch give another gradient.

  Args:
    system: of the step.
    frozen: shapes of the teachers' variables.
    batch: shapes of the batch of one member.

  Raises:
    UserError: naming the term; or parts that do not divide the batch.
  """
  made = system.recipe({})
  size, parts = len(batch['id']), made.accumulate
  if size % parts:
    raise UserError(
      f'distill.step: accumulate: {parts} parts do not divide a batch of {size}'
    )
  contexts = {}
  traced = learner(system._replace(example=batch), look=contexts.__setitem__)
  seed = jax.ShapeDtypeStruct((), jnp.uint32)
  jax.eval_shape(traced.init, seed, {}, frozen)
  for name, context in contexts.items():
    if not accumulation.adds_up(made.terms[name], context):
      raise UserError(
        f'distill.step: accumulate: the term {name} looks at the whole batch, '
        f'or draws for it, so {parts} parts of it are not the same; take it in '
        'one'
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


def role_of(model: Model, name: str, layers: set[str]) -> Role:
  """The model as it takes part, with the layers that are looked at."""
  with within(f'{name}: '):
    plain = model.build(())
    own = jax.eval_shape(
      lambda x: plain.apply(plain.init(jax.random.key(0)), x)[0], model.example
    )
    taps = tuple(sorted({*model.taps, *layers} - own.keys()))
    made = model.build(taps) if taps else plain
  init = made.init
  if model.variables is not None:  # they come with `given`: none are drawn
    like = jax.eval_shape(made.init, jax.random.key(0))
    init = lambda key: jax.tree.map(  # noqa: E731
      lambda x: jnp.zeros(x.shape, x.dtype), like
    )
  return Role(
    made._replace(init=init),
    model.view,
    model.eval_view,
    untrained=functools.partial(
      frozen.paths, pattern=model.freeze, at=f'{name}: freeze'
    ),
    at=name,
  )


def layers_of(name, terms, students, average) -> set[str]:
  """The outputs of a net that terms look at."""
  found = set()
  for term in terms.values():
    ours, theirs = term.layers
    of = term.of or next(iter(students))
    if of == name:
      found |= ours
    if name in term.groups or (
      average and AVERAGE in term.groups and of == name
    ):
      found |= theirs
  return found


def stacked(name: str, models: Sequence[Model]) -> dict:
  """The variables of a group, [T, ...]."""
  trees = [model.variables for model in models]
  shapes = [jax.tree.map(np.shape, tree) for tree in trees]
  if any(shape != shapes[0] for shape in shapes):
    raise UserError(
      f'teachers: the nets of {name} are of several architectures; make each '
      'architecture a group of its own'
    )
  return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def as_metric(metric: Metric | Callable) -> Metric:
  """A metric, of a function that gives a value for each example."""
  if isinstance(metric, Metric):
    return metric

  def measure(outputs, batch, teachers):
    value = jnp.asarray(metric(outputs, batch))
    size = batch['id'].shape
    if value.shape != size:
      raise UserError(
        f'metrics: {getattr(metric, "__name__", metric)} gives the shape '
        f'{list(value.shape)}; give a value for each example, {list(size)}'
      )
    where = masks.examples(batch)
    where = jnp.ones(size, bool) if where is None else where
    total = jnp.where(where, value.astype(jnp.float32), 0).sum()
    return total, where.sum().astype(jnp.float32)

  return Metric(measure, output='')


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


def checked_batch(
  batch: Mapping[str, PyTree], axes: int, members: int, mesh: Mesh | None
) -> dict:
  """A batch of arrays that all have the same leading axes.

  Args:
    batch: of the user.
    axes: 2 where there is an axis of members before that of examples, else 1.
    members: how many there are.
    mesh: the devices that share it.

  Raises:
    UserError: naming the field that does not fit.
  """
  if 'inputs' not in batch:
    raise unknown('field of the batch', 'inputs', batch)
  batch, sizes = dict(batch), {}
  for name, tree in batch.items():
    narrowed = functools.partial(_narrowed, name=name)
    for x in jax.tree.leaves(tree):
      if np.ndim(x) < axes or not hasattr(x, 'dtype'):
        raise UserError(
          f'the field {name} of the batch holds {x!r:.40}; give arrays with '
          f'{axes} leading axes, of {"members and " * (axes - 1)}examples'
        )
      sizes[name] = x.shape[:axes]
    batch[name] = jax.tree.map(narrowed, tree)
  wrong = {n for n, size in sizes.items() if size != sizes['inputs']}
  if wrong:
    raise UserError(
      f'the field {min(wrong)} of the batch is of '
      f'{sizes[min(wrong)][-1]} examples and its inputs of '
      f'{sizes["inputs"][-1]}; give equally many'
    )
  if axes == 2 and sizes['inputs'][0] != members:
    raise UserError(
      f'the batch is for {sizes["inputs"][0]} members, and there are '
      f'{members}; its leading axis is that of members'
    )
  if mesh is not None:
    shared = mesh.shape[sharding.DATA]
    if sizes['inputs'][-1] % shared:
      raise UserError(
        f'a batch of {sizes["inputs"][-1]} cannot be shared by {shared} '
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
