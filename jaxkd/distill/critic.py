"""A critic that plays against the student: holistic distillation.

It learns to tell the teacher's outputs from the student's, whole, and the
student to be taken for its teacher. Both take a step at once, from one backward
pass, where the authors' code lets them take turns.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses, models
from jaxkd.distill.arguments import find_loss, name_of
from jaxkd.distill.location import Location, groups_of, shown, sides
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.keys import fold
from jaxkd.types import Context, Net, Term


def critic(
  *,
  at: tuple[Location, Location],
  teacher: str | tuple[str, ...],
  loss: str | Callable[..., Array] = 'wasserstein_critic',
  model: str = '',
  kw: Mapping[str, Any] | None = None,
  penalty: float | Array = 10.0,
  sees_inputs: bool = True,
  entry: str = 'term',
  **options: Any,
) -> Term:
  """A critic D, trained with the student s: adversarial distillation.

  The critic descends ``loss(D(t), D(s)) + penalty · gradient_penalty``, the
  student stopped; the student descends ``-D(s)``, the critic stopped. The value
  is D(t) - D(s), by how much the critic tells them apart: its gradient is the
  student's, and that of the critic is added to it with no value. Of several
  teachers the critic's loss is the mean over all.

  A weight of the term multiplies both gradients, as in the authors' code; Adam
  does not mind it, so ``train.by_path`` best gives the critic one of its own.

  Args:
    at: names of the student's and of the teachers' outputs, of one shape.
    teacher: groups of teachers.
    loss: the critic's, of ``real_scores`` and ``fake_scores``, [...] each, for
      each pair of scores, or the name of one of `jaxkd.losses`.
    model: the critic, a name in `jaxkd.models` or one's own, which gives
      ``score``, [B]. It sees the output, [B, ...], or with `sees_inputs`
      ``{'maps': output, 'image': what the student sees}``. A score must depend
      on its example alone, so BatchNorm has no place in it.
    kw: options of the model.
    penalty: the weight of ``losses.gradient_penalty``; 0 for none.
    sees_inputs: whether the critic is given the student's inputs too.
    entry: the config entry, for error messages.
    options: options of the loss, by keyword.

  Returns:
    The term: its parameters are the critic's, and its state the critic's state.

  Raises:
    UserError: a name that is not there, or outputs of different shapes.

  References:
    Liu et al., `Structured Knowledge Distillation for Semantic Segmentation
    <https://arxiv.org/abs/1903.04197>`_, 2019
  """
  function, name = find_loss(loss, at=f'{entry}.kw.loss'), name_of(loss)
  lookup.check_options(function, options, name=name, at=f'{entry}.kw')
  here, teachers = f'{entry}.kw.model', groups_of(teacher)
  if not teachers:
    raise UserError(
      f'{entry}.teacher: a critic compares with a teacher; name a group'
    )
  if not model:
    raise UserError(
      f"{here}: name the net that gives the scores, e.g. 'critic'"
    )
  if not isinstance(penalty, jax.Array) and not 0 <= penalty < math.inf:
    raise UserError(
      f'{entry}.kw.penalty: {penalty} should be 0 or more, and finite'
    )
  models.resolve(model, at=here)
  both, kw = sides(at, teachers, entry=entry), dict(kw or {})

  def outputs(context: Context) -> tuple[Array, Array]:
    """The student's, [B, ...], and those of all teachers, [T, B, ...]."""
    (fake,), groups, _ = both.apply({}, {}, context)
    seen = shown(context, teachers, entry=entry)
    for group, (real,) in zip(seen, groups, strict=True):
      ours = jax.tree.map(_shape, fake)
      theirs = jax.tree.map(lambda x: _shape(x[0]), real)
      if isinstance(fake, tuple) or ours != theirs:
        raise UserError(
          f'{entry}.at: the critic compares one output of one shape, and '
          f'{both.at[0]!r} of the student is {ours} for an example and '
          f'{both.at[1]!r} of {group} {theirs}; choose others'
        )
    real = jnp.concatenate([real for (real,) in groups])
    return fake, real.astype(fake.dtype)

  def net_of(context: Context) -> Net:
    fake, _ = jax.eval_shape(outputs, context)
    shape = _shape(fake)
    if sees_inputs:
      inputs = jax.tree.map(_shape, context.inputs)
      shape = {'maps': shape, 'image': inputs}
    with within(f'{here}: '), blamed(here):
      return models.build(
        model, num_classes=1, input_shape=shape, at=here, **kw
      )

  def init(key, context):
    variables = net_of(context).init(key)
    return variables['params'], variables['state']

  def apply(params, state, context):
    net = net_of(context)
    fake, real = outputs(context)
    count, size = real.shape[:2]
    key = fold(context.key, 'critic')

    def score(params, maps):
      """Of maps [n · B, ...], in the order of the batch n times."""
      x, times = maps, len(maps) // size
      if sees_inputs:
        x = {'maps': maps, 'image': _repeated(context.inputs, times)}
      found, after = net.apply(
        {'params': params, 'state': state}, x, key=key, train=True
      )
      if 'score' not in found:
        raise unknown('output', 'score', found, here)
      if found['score'].shape != maps.shape[:1]:
        raise UserError(
          f'{here}: {model} gives scores of shape '
          f'{list(found["score"].shape)} for a batch of {len(maps)}; give one '
          'for each example'
        )
      return found['score'], after

    reals = real.reshape(-1, *real.shape[2:])
    fakes = jax.lax.stop_gradient(fake)
    of_reals, after = score(params, reals)
    of_reals = of_reals.reshape(count, size)
    of_fakes = jnp.broadcast_to(score(params, fakes)[0], (count, size))
    with blamed(f'{entry}.kw.loss: {name}'):
      own = function(of_reals, of_fakes, **options)
    if jnp.shape(own) != (count, size):
      raise UserError(
        f'{entry}.kw.loss: {name} gives the shape {list(jnp.shape(own))} for '
        f'scores of shape {[count, size]}; give a value for each'
      )
    if isinstance(penalty, jax.Array) or penalty:
      slopes = losses.gradient_penalty(
        fold(context.key, 'penalty'),
        lambda maps: score(params, maps)[0],
        reals,
        _repeated(fakes, count),
      )
      own = own + penalty * slopes.reshape(count, size)
    own = own.mean(0)
    still = jax.lax.stop_gradient((params, of_reals.mean(0)))
    value = still[1] - score(still[0], fake)[0]
    return value + own - jax.lax.stop_gradient(own), after

  return Term(init, apply, teachers=teachers, layers=both.layers)


def _shape(x: Array) -> Any:
  """The shape of one example as models are told it."""
  shape = tuple(x.shape[1:])
  if jnp.issubdtype(x.dtype, jnp.floating):
    return shape
  return jax.ShapeDtypeStruct(shape, x.dtype)


def _repeated(tree: Any, times: int) -> Any:
  """A batch several times, one after another."""
  if times == 1:
    return tree
  return jax.tree.map(lambda x: jnp.concatenate([x] * times), tree)
