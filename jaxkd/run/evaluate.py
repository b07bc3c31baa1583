"""The outputs and metrics of finished nets on a split of the data."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxkd import compilation, losses
from jaxkd.data import loader
from jaxkd.distill.contexts import shown
from jaxkd.distill.masks import examples
from jaxkd.distill.roles import Group, Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.errors import UserError
from jaxkd.run import cached_outputs
from jaxkd.run.job_groups import frozen_of
from jaxkd.run.types import Session
from jaxkd.tasks import mistaken
from jaxkd.tasks.metrics import not_a_number
from jaxkd.teachers import many
from jaxkd.train import hosts, sharding
from jaxkd.train.population import Population
from jaxkd.types import Metric

EVALUATED = 512  # examples at once
LOGITS = 2**25  # of one net at once, where an example has many labels
# Beside the metrics of a net: of how many examples, and whether.
_LOST, _MISTAKEN = 'nan of output ', 'no logits'


def evaluate(
  session: Session,
  roles: Mapping[str, Role],
  variables: Mapping[str, dict],
  split: str,
  *,
  groups: Mapping[str, Group] | None = None,
  mode: str = 'sequence',
  shard_parameters: bool = False,
  may_be_lost: bool = False,
) -> dict[str, np.ndarray]:
  """The metrics of finished nets on a split.

  Args:
    session: what the stages have in common.
    roles: the nets.
    variables: net -> variables with a leading axis of members.
    split: the part of the data.
    groups: teachers to compare them with.
    mode: how the members run, batched or in sequence.
    shard_parameters: see `jaxkd.train.population`.
    may_be_lost: whether a net whose outputs are NaN has the metric NaN instead
      of being an error.

  Returns:
    ``{'split/metric': [members]}``.

  Raises:
    UserError: the outputs of a net are NaN.
  """
  groups = dict(groups or {})
  members = len(jax.tree.leaves(dict(variables))[0])
  finished = {
    name: role._replace(compression=None) for name, role in roles.items()
  }
  compared = {name: group.role for name, group in groups.items()}
  made = session.memo.get(
    (session.metrics, finished, compared),
    lambda: learner(
      System(
        finished,
        compared,
        recipe=lambda hyper: Recipe({}, optax.identity()),
        example={},
        metrics=with_checks(session),
        decode=session.decode,
      )
    ),
  )
  mesh = mesh_of(mode, members, _at_once(session, split))
  population = Population(
    made,
    seeds=[0] * members,
    mode=mode,
    mesh=mesh,
    shard_parameters=shard_parameters,
  )
  carry = {
    'train': {'nets': {name: v['params'] for name, v in variables.items()}},
    'state': {'nets': {name: v['state'] for name, v in variables.items()}},
    'seed': jnp.zeros((members,), jnp.uint32),
  }
  carry = population.split(carry)
  of = session, population, carry, split, groups, roles
  return measure(*of, may_be_lost=may_be_lost)


def predict(session: Session, group: Group, split: str) -> np.ndarray:
  """What a group's nets predict together on a split.

  Returns:
    Probabilities [members, N, K] of the N examples that count; of one member
    where all seeds share the group.
  """
  net = many.ensemble(group.role.net)

  def probabilities(variables, batch):
    return jax.nn.softmax(net.apply(variables, batch['inputs'])[0]['logits'])

  return _over(session, group, split, probabilities, axis=1)


def predicted_by(role: Role) -> Callable[[dict, Any], jax.Array]:
  """``(variables, inputs) -> logits`` of a net, of inputs as the data has them.

  In evaluation, and without a draw.
  """

  def logits(variables, inputs):
    id = jnp.arange(len(jax.tree.leaves(inputs)[0]))
    batch = {'inputs': inputs, 'epoch': 0 * id, 'id': id}
    seen = shown(role.eval_view, batch, seed=0)
    return role.net.apply(variables, seen)[0]['logits']

  return logits


def log_likelihoods(session: Session, group: Group, split: str) -> np.ndarray:
  """The log-likelihoods of the labels of a split under each net of a group.

  Returns:
    log p(label), [members, T, N], of the N examples that count; of one member
    where all seeds share the group.
  """

  def of_labels(variables, batch):
    outputs = lambda v: group.role.net.apply(v, batch['inputs'])[0]  # noqa: E731
    logits = jax.lax.map(lambda v: outputs(v)['logits'], variables)
    cross = jax.vmap(losses.cross_entropy, (0, None))
    return -cross(logits, batch['labels'])

  return _over(session, group, split, of_labels, axis=2)


def logits(
  session: Session, role: Role, variables: dict, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """The logits of the net of each member on a split.

  Args:
    session: what the stages have in common.
    role: the net; it reads no group.
    variables: with a leading axis of members.
    split: the part of the data.

  Returns:
    Logits [members, N, K] and labels [members, N], of the N examples that
    count.
  """

  def of_member(variables, batch):
    outputs, _ = role.net.apply(variables, batch['inputs'])
    return outputs['logits'], batch['labels']

  members = Group(role, variables, per_member=True)
  return _over(session, members, split, of_member, axis=1)


def reported(roles: Mapping[str, Any]) -> str:
  """The role whose metrics the row holds: `student`, or the first."""
  return 'student' if 'student' in roles else min(roles)


def mesh_of(mode: str, members: int, batch_size: int, **options):
  """The devices: in sequence, each member has them all."""
  members = 1 if mode == 'sequence' else members
  return sharding.mesh(members, batch_size, **options)


def with_checks(session: Session, finished: bool = True) -> dict[str, Metric]:
  """The metrics, and what tells outputs that they are meaningless for.

  Args:
    session: what the stages have in common.
    finished: whether nets are finished; else without what takes long.
  """
  metrics = {
    k: m for k, m in session.metrics.items() if finished or not m.finished
  }
  outputs = dict.fromkeys(metric.output for metric in metrics.values())
  lost = {f'{_LOST}{i}': not_a_number(out) for i, out in enumerate(outputs)}
  sign = mistaken.sign(session.logits, session.source.standardized)
  if sign and 'logits' in outputs:
    lost[_MISTAKEN] = mistaken.metric(sign)
  return {**metrics, **lost}


def measure(
  session, population, carry, split, groups, roles, *, may_be_lost=False
):
  """Metrics on a split; with several nets, first the reported role's mean.

  A net whose outputs are NaN has the metric NaN, or is an error.
  """
  batches = _with_known(session, groups, split)
  nets = {
    name: group for name, group in groups.items() if not group.role.external
  }
  totals = population.evaluate(carry, batches, *frozen_of(nets))
  _check_logits(session, totals, roles)
  lost = _taken_lost(totals)
  if not may_be_lost:
    _check_lost(lost, roles, split)
  role = reported(roles)
  found, of_role, shared = {}, {}, {}
  for name, measured in totals.items():
    net, _, metric = name.rpartition('/')
    how = session.metrics[metric]
    if how.whole:
      key = net, how.measure, how.whole
      if key not in shared:
        shared[key] = _whole(how.whole, measured.fields)
      measured = shared[key]
    found[name] = np.where(lost[net] > 0, np.nan, how.value(*measured))
    if net.split('/')[0] == role:
      of_role.setdefault(metric, []).append(found[name])
  means = {metric: np.mean(values, 0) for metric, values in of_role.items()}
  return {f'{split}/{name}': v for name, v in {**means, **found}.items()}


def _check_logits(session, totals, roles):
  """Refuses nets whose outputs are something else; takes what tells it out."""
  sign = mistaken.sign(session.logits, session.source.standardized)
  for name in [name for name in totals if name.endswith(_MISTAKEN)]:
    net = name.rpartition('/')[0]
    role = roles[net.partition('/')[0]] if net else next(iter(roles.values()))
    found = sign.holds(*totals.pop(name)).any()
    if found and (sign.is_rare or role.given or role.external):
      raise UserError(f'{role.at}: the outputs logits of the net {sign.said}')


def _taken_lost(totals: dict) -> dict[str, np.ndarray]:
  """The number of examples with NaN outputs, [M], taken out of the totals."""
  found = {}
  for name in [name for name in totals if _LOST in name]:
    count, _ = totals.pop(name)
    net = name.rpartition('/')[0]
    found[net] = np.maximum(found.get(net, 0), count)
  return found


def _check_lost(lost, roles, split):
  """Refuses nets whose outputs are NaN for examples of a split."""
  for net, count in lost.items():
    role = roles[net.partition('/')[0]] if net else next(iter(roles.values()))
    for member in np.flatnonzero(count):
      raise UserError(
        f'{role.at}: in evaluation the outputs of member {member} are not a '
        f'number for {int(count[member])} examples of {split}, so it has no '
        'result; lower its train.learning_rate, or look at what it does in '
        'evaluation alone, as BatchNorm does with its running statistics'
      )


def _whole(measure, fields):
  """Sums and counts [M, ...] of a metric that takes a split at once.

  The first host's: a clustering, say, may end elsewhere on another processor.
  """
  pairs = [
    [np.asarray(x).tolist() for x in measure(*(x[counted] for x in own))]
    for counted, *own in zip(*fields, strict=True)
  ]
  told = hosts.broadcast_from_host0('a metric of a whole split', pairs)
  return tuple(np.array(x) for x in zip(*told, strict=True))


def _over(session, group, split, measure, axis):
  """A measure of each member's nets, over examples that count along an axis."""

  @compilation.jit
  def run(variables, batch):
    inputs = shown(group.role.eval_view, batch, seed=0)
    seen = {**batch, 'inputs': inputs}
    return jax.lax.map(lambda own: measure(own, seen), variables)

  each, counted = [], []
  variables = jax.tree.map(jnp.asarray, group.by_seed)
  for batch in _batches(session, split):
    each.append(run(variables, batch))
    counted.append(examples(batch))
  where = np.concatenate(counted)
  return jax.tree.map(
    lambda *x: np.compress(where, np.concatenate(x, axis), axis),
    *sharding.fetch(each),
  )


def _at_once(session: Session, split: str) -> int:
  """How many examples of a split are evaluated at once, all devices alike."""
  devices, own = len(sharding.devices()), session.source.splits[split]
  each = math.prod(own.index.each) * session.source.num_classes
  most = min(EVALUATED, LOGITS // each)
  return devices * min(max(1, most // devices), -(-len(own) // devices))


def _with_known(
  session: Session, groups: Mapping[str, Group], split: str
) -> Iterator[dict]:
  """All of a split, with the outputs of groups that have no net."""
  known = {
    name: cached_outputs.of_split(session, name, group, split)
    for name, group in groups.items()
    if group.role.external and split in group.role.external.splits
  }
  for batch in _batches(session, split):
    found = {name: own.look(0, batch['id']) for name, own in known.items()}
    yield {**batch, 'cached_outputs': found} if found else batch


def _batches(session: Session, split: str):
  """All of a split, for evaluation."""
  size = _at_once(session, split)
  return loader.evaluation_batches(session.source.splits[split], size)
