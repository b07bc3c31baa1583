"""A router: a gate that learns how much each teacher counts for an example.

Its input is the teachers' predictions, and it begins with equal weights. It is
trained beside the student, by the cross-entropy between the labels and the
teachers' weighted predictions (a mixture of experts, Jacobs et al., 1991, with
frozen experts). The student's loss sees the mixture and sends no gradient into
the gate.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import losses
from jaxkd.distill import masks
from jaxkd.distill.arguments import field_of
from jaxkd.distill.seen import aggregated
from jaxkd.errors import blamed, within
from jaxkd.types import Context, Term

FLOOR = -50.0  # of the logarithms of probabilities that the router sees


def routed(
  term: Term,
  predictions: Callable[[Context], Array],
  fused: Callable[[Context, Array], dict[str, Array]],
  fuse: Callable[[Array, Array, float], Array],
  groups: tuple[str, ...],
  entry: str,
) -> Term:
  """The term, which sees all teachers as one that the router weighs.

  Args:
    term: looks at some of the groups; its mask says which labels count.
    predictions: the teachers' logits, [T, B, ..., K].
    fused: ``(context, weights [B, ..., T]) -> outputs`` of that teacher.
    fuse: ``(logits, weights, temperature) -> logits``, of which the router
      learns to make the most likely labels.
    groups: the teachers that it is made of.
    entry: the config entry, for error messages.
  """

  def weights(params, logits):
    sure = jax.nn.log_softmax(logits.astype(jnp.float32))
    x = jnp.moveaxis(jnp.maximum(sure, FLOOR), 0, -2)
    # What teachers are sure of differs in size from one example to the next.
    x = jax.nn.standardize(x.reshape(*logits.shape[1:-1], -1))
    scores = jnp.tensordot(x, params['kernel'], 1)
    return jax.nn.softmax(
      scores + jnp.broadcast_to(params['bias'], scores.shape)
    )

  def seen(params):
    """The term as it sees the teachers, the router's gradient stopped."""

    def weigh(context):
      return jax.lax.stop_gradient(weights(params, predictions(context)))

    return aggregated(term, fused, groups, weigh)

  def init(key, context):
    logits = jax.eval_shape(predictions, context)
    count, classes = logits.shape[0], logits.shape[-1]
    router = {
      'kernel': jnp.zeros((count * classes, count), jnp.float32),
      'bias': jnp.zeros((count,), jnp.float32),
    }
    params, state = seen(router).init(key, context)
    return {'router': router, 'term': params}, state

  def loss(params, state, context):
    value, state = seen(params['router']).loss(params['term'], state, context)
    here = f'{entry}.fuse_weights'
    with within(f'{here}: '):
      labels = field_of(context, 'labels', 'the router', mixtures=True)
    masks.check_fields(
      'the router', ('labels',), term.mask, context.batch, here
    )
    counts = masks.find(term.mask, context, groups, entry)
    logits = masks.keep(counts, predictions(context), lead=1)
    mixture = fuse(logits, weights(params['router'], logits), 1.0)
    with blamed(here):
      own = losses.cross_entropy(mixture, masks.keep(counts, labels))
    own = masks.per_example(own, counts, context.totals).astype(value.dtype)
    # Its gradient alone: the value of the term is about the student.
    return value + own - jax.lax.stop_gradient(own), state

  return term._replace(init=init, loss=loss)
