"""The memory that losses take of logits that are kept as factors.

It is what the compiled loss needs at its peak beside its arguments and its
gradients, for one member, as the compiler has it; nothing is computed, so that
nets of any size can be asked about.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxkd.distill.accumulation import resized
from jaxkd.distill.step import learner
from jaxkd.logits import factored
from jaxkd.logits.chunks import chunk_of
from jaxkd.run.build import output_shapes
from jaxkd.run.recipe import entries_of
from jaxkd.run.train_job import batches_of, initial_shapes, system_of
from jaxkd.run.types import Job, Session
from jaxkd.types import Context, Term


class Needs(NamedTuple):
  """What a loss takes.

  Attributes:
    chunked: bytes in chunks of the classes.
    dense: bytes with the logits as arrays.
    chunk: how many classes a chunk has.
    classes: how many there are.
  """

  chunked: int
  dense: int
  chunk: int
  classes: int


def of_job(session: Session, job: Job) -> dict[str, Needs]:
  """What each term of a job takes that looks at factored logits.

  Where a batch is taken in parts (`train.accumulate`), of one part.

  Args:
    session: what the stages have in common.
    job: its nets may be shapes.
  """
  roles = [
    *job.students.values(),
    *(group.role for group in job.groups.values()),
  ]
  outputs = [output_shapes(role.net, role.shape) for role in roles]
  if not any(map(factored.is_factored, factored.leaves(outputs))):
    return {}
  contexts: dict[str, Context] = {}
  batch = batches_of(session, job).example()
  made = learner(
    system_of(session, job, batch),
    look=lambda name, found: contexts.update({name.partition('/')[0]: found}),
  )
  jax.eval_shape(made.init, *initial_shapes(job))
  found, size = {}, job.train['batch_size'] // job.train['accumulate']
  for name, term in entries_of(job).items():
    context = resized(contexts[name], size)
    outputs = context.student, context.teachers
    seen = set().union(*term.layers)
    logits = [
      x
      for tree in (outputs[0], *outputs[1].values())
      for at, x in tree.items()
      if at in seen and factored.is_factored(x)
    ]
    if logits:
      found[name] = Needs(
        _temporaries(term, context, dense=False),
        _temporaries(term, context, dense=True),
        chunk_of(logits),
        logits[0].shape[-1],
      )
  return found


def _temporaries(term: Term, context: Context, *, dense: bool) -> int:
  """Bytes of the value and the gradient by the student's outputs."""

  def formed(tree: Any) -> Any:
    if not dense:
      return tree
    return jax.tree.map(
      lambda x: x.dense() if factored.is_factored(x) else x,
      tree,
      is_leaf=factored.is_factored,
    )

  moving = {
    name: x
    for name, x in context.student.items()
    if jnp.issubdtype(x.dtype, jnp.floating)
  }

  def loss(moving, context):
    student = formed({**context.student, **moving})
    context = context._replace(
      student=student, teachers=formed(context.teachers)
    )
    params, state = term.init(context.key, context)
    return term.loss(params, state, context)[0].astype(jnp.float32).mean()

  program = jax.jit(jax.value_and_grad(loss)).lower(moving, context).compile()
  return program.memory_analysis().temp_size_in_bytes
