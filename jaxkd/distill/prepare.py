"""What users give to a step, made ready for it."""

import contextlib
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.distill import masks
from jaxkd.distill.model import Model, PyTree, dtype_of
from jaxkd.distill.roles import AVERAGE, Role
from jaxkd.distill.step_checks import checked_batch
from jaxkd.errors import UnknownName, UserError, blamed, within
from jaxkd.models import frozen, idle
from jaxkd.types import Metric, Term


@contextlib.contextmanager
def traced(at: str, inputs: PyTree, example: PyTree) -> Iterator[None]:
  """Says what is wrong where code that is not ours does not run.

  Args:
    at: the function.
    inputs: that a model is called with.
    example: that it was made for.
  """
  try:
    with blamed(at):
      yield
  except UserError as error:
    given, own, cause = _said(inputs), _said(example), error.__cause__
    if cause is None or isinstance(cause, UserError) or given == own:
      raise
    raise UserError(
      f'{at}: the inputs of the batch are {given}, and the example that '
      f'distill.net was given is {own} ({cause!s:.100})'
    ) from cause


def named(name: str, term: Term) -> Term:
  """The term, whose errors say what it is called."""
  at = f'terms[{name!r}]'

  def init(key, context):
    with _in_term(at):
      return _pair(term.init(key, context), 'init', '(params, state)')

  def loss(params, state, context):
    with _in_term(at):
      value, after = _pair(
        term.loss(params, state, context), 'loss', '(value, state)'
      )
      size = context.batch['id'].shape
      if np.shape(value) != size:
        raise UserError(
          f'its loss gives the shape {list(np.shape(value))}; give a value for '
          f'each example, {list(size)}'
        )
      kinds = [_kinds(state), _kinds(after)]
      if kinds[0] != kinds[1]:
        raise UserError(
          f'its state becomes {kinds[1]} after being {kinds[0]}; keep shapes '
          'and types as init gives them'
        )
      return value, after

  def count(context):
    with _in_term(at):
      return term.count(context)

  return term._replace(init=init, loss=loss, count=count)


def _pair(made: Any, function: str, what: str) -> tuple:
  if not isinstance(made, tuple) or len(made) != 2:
    raise UserError(
      f'its {function} gives a {type(made).__name__}; return {what}'
    )
  return made


@contextlib.contextmanager
def _in_term(at: str) -> Iterator[None]:
  """Errors of a term, which call it `term`, say which one it is."""
  try:
    with blamed(at):
      yield
  except UserError as error:
    said = re.sub(r'\bterm(?=\.\w|: )', at, str(error))
    said = said if said.startswith(at) else f'{at}: {said}'
    raise UserError(said) from error


def _kinds(tree: PyTree) -> PyTree:
  """The shapes and types of arrays, as text."""
  return str(
    jax.tree.map(lambda x: f'{jnp.result_type(x)}{list(np.shape(x))}', tree)
  )


def _said(tree: PyTree) -> str:
  """The shapes and types of examples, in words."""
  return ', '.join(
    f'{x.dtype}[B{"".join(f", {n}" for n in x.shape[1:])}]'
    for x in jax.tree.leaves(tree)
  )


def written(rollout: Callable[..., dict]) -> Callable[..., dict]:
  """A rollout whose batches are found to be such."""

  def checked(student, batch, key):
    with blamed('rollout'):
      made = rollout(student, batch, key)
      if not isinstance(made, Mapping):
        raise UserError(
          f'rollout: it gives {made!r:.40}; return a batch, as {{**batch, '
          "'inputs': inputs}"
        )
      for name in ('inputs', 'id', 'epoch'):
        if name not in made:
          raise UserError(
            f'rollout: it drops {name!r} of the batch; return {{**batch, '
            "'inputs': inputs}"
          )
      return checked_batch(made, 1, 1, None, at='rollout: ')

  return checked


def role_of(model: Model, name: str, layers: Mapping[str, str]) -> Role:
  """The model as it takes part, with the layers that terms look at."""
  with _looked_at(name, layers), blamed(name), within(f'{name}: '):
    plain = model.build(())
    own = jax.eval_shape(
      lambda x: plain.apply(plain.init(jax.random.key(0)), x)[0], model.example
    )
    taps = tuple(sorted({*model.taps, *layers} - {*own}))
    made = model.build(taps) if taps else plain
  init, like = made.init, jax.eval_shape(made.init, jax.random.key(0))
  frozen.paths(like['params'], model.freeze, at=f'{name}: freeze')
  if model.variables is not None:  # they come with `given`: none are drawn
    init = lambda key: jax.tree.map(  # noqa: E731
      lambda x: jnp.zeros(x.shape, x.dtype), like
    )

  def apply(*args, **kwargs):
    with blamed(name):
      return made.apply(*args, **kwargs)

  def own_idle():
    with blamed(name):
      return made.idle()

  return Role(
    made._replace(init=init, apply=apply, idle=own_idle),
    model.view,
    model.eval_view,
    untrained=functools.partial(
      frozen.paths, pattern=model.freeze, at=f'{name}: freeze'
    ),
    at=name,
  )


@contextlib.contextmanager
def _looked_at(name: str, layers: Mapping[str, str]) -> Iterator[None]:
  """Says which term looks at a layer that is not there."""
  try:
    yield
  except UnknownName as error:
    if error.kind != 'layer' or error.name not in layers:
      raise
    term = layers[error.name]
    raise UserError(
      f'terms[{term!r}].at: {name}: {error.sentence.removeprefix("taps: ")}'
    ) from error


def layers_of(name, terms, students, average) -> dict[str, str]:
  """The outputs of a net that terms look at, each with such a term."""
  found = {}
  for called, term in terms.items():
    ours, theirs = term.layers
    of = term.of or next(iter(students))
    seen = set(ours) if of == name else set()
    if name in term.groups or (
      average and AVERAGE in term.groups and of == name
    ):
      seen |= theirs
    found |= dict.fromkeys(seen, called)
  return found


def stacked(name: str, models: Sequence[Model]) -> dict:
  """The variables of a group, [T, ...].

  Raises:
    UserError: its nets are not one function of different variables.
  """
  trees = [model.variables for model in models]
  shapes = [jax.tree.map(np.shape, tree) for tree in trees]
  if any(shape != shapes[0] for shape in shapes):
    raise UserError(
      f'teachers: the nets of {name} are of several architectures; make each '
      'architecture a group of its own'
    )
  views = {(model.view, model.eval_view) for model in models}
  different = len(models) > 1 and len(set(map(_program, models))) > 1
  if len(views) > 1 or different:
    raise UserError(
      f'teachers: the nets of {name} compute different things of equal '
      'weights, or see other views; make each kind a group of its own'
    )
  return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _program(model: Model) -> str:
  """What a net computes, as text; the same for nets of one architecture."""
  net = model.build(())
  forward = lambda variables, x: net.apply(variables, x)[0]  # noqa: E731
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), dtype_of(x)), model.variables
  )
  program = jax.make_jaxpr(forward)(shapes, model.example)
  return re.sub('0x[0-9a-f]+', '', str(program))


def as_metric(name: str, metric: Metric | Callable) -> Metric:
  """A metric, of a function that gives a value for each example."""
  if isinstance(metric, Metric):
    return metric

  def measure(outputs, batch, teachers):
    with blamed(f'metrics[{name!r}]'):
      value = jnp.asarray(metric(outputs, batch))
    size = batch['id'].shape
    if value.shape != size:
      raise UserError(
        f'metrics[{name!r}]: it gives the shape {list(value.shape)}; give a '
        f'value for each example, {list(size)}'
      )
    where = masks.examples(batch)
    where = jnp.ones(size, bool) if where is None else where
    total = jnp.where(where, value.astype(jnp.float32), 0).sum()
    return total, where.sum().astype(jnp.float32)

  return Metric(measure, output='')


def warn_of_bytes(inputs: PyTree) -> None:
  """Warns of inputs that nets do not see as they are; see `views.apply`."""
  if any(x.dtype == np.uint8 for x in jax.tree.leaves(inputs)):
    warnings.warn(
      'the inputs of the batch hold bytes (uint8), which nets are shown as '
      'floats from 0 to 1; give these floats if that is meant, and int32 if '
      'the bytes are no pixels',
      stacklevel=4,
    )


def warn_of_idle(roles: Mapping[str, Role]) -> None:
  """Warns of layers that do nothing in training; see `jaxkd.types.Idle`."""
  for name, role in roles.items():
    for text in idle.said(role.net.idle()):
      warnings.warn(f'{name}: {text}', stacklevel=3)
