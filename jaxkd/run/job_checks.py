"""The checks of one job, before anything trains."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from jaxkd import losses
from jaxkd import shapes as shape_lib
from jaxkd.data import augment
from jaxkd.data.sources import Source
from jaxkd.distill import accumulation
from jaxkd.distill.arguments import Arguments, find_loss
from jaxkd.distill.contexts import shown
from jaxkd.distill.roles import AVERAGE
from jaxkd.distill.step import learner
from jaxkd.errors import UserError, blamed, first_line, unknown, within
from jaxkd.run import build, fitted, terms
from jaxkd.run.build import locations
from jaxkd.run.evaluate import mesh_of, reported
from jaxkd.run.job_groups import groups_looked_at
from jaxkd.run.recipe import entries_of
from jaxkd.run.train_job import (
  axis_of,
  batches_of,
  initial_shapes,
  populations_of,
  system_of,
)
from jaxkd.run.types import Job, Session
from jaxkd.tasks import on_policy
from jaxkd.train import hosts
from jaxkd.train.population import shapes_of_one


def check(session: Session, job: Job) -> None:
  """Traces a step on shapes alone, which finds whatever cannot work.

  Raises:
    UserError: parts of the config that do not fit together.
  """
  with within(job.at):
    _check_terms(job)
    if fitted.is_fitted(job.students):
      fitted.check(terms.in_use(job.distill), job.students)
  _check_cached(job)
  batches = batches_of(session, job)
  batches.check()
  batch = batches.example()
  _check_augment(session, job, batch)
  _check_rollout(job)
  _check_mesh(job)
  _check_early_stopping(session, job)
  with blamed(job.stage), within(job.at):
    populations_of(session, job, batch)(mode='vmap').no_totals(batch)
    _check_accumulate(session, job, batch)


def _check_terms(job: Job) -> None:
  """Checks that each term has an effect and belongs to exactly one part."""
  used = terms.in_use(job.distill)
  for name, entry in used.items():
    groups = terms.groups_of(entry)
    if AVERAGE in groups and not job.train['average']:
      raise UserError(
        f'distill.{name}.teacher: there is no running mean of the parameters; '
        'set train.average, e.g. to 0.99'
      )
    of = entry['of'] or next(iter(job.students))
    alone = of in job.students and job.students[of].copies == 1
    if of in groups and alone and entry['at'][0] == entry['at'][1]:
      raise UserError(
        f'distill.{name}.teacher: {of} has no peers and would be compared with '
        f'itself; set students.{of}.count=2 or compare two of its layers'
      )
    _check_size(name, entry, job.train['batch_size'])
  parts = job.train['parts']
  if not parts:
    return
  clips = {'train': job.train['clip']}
  for path, own in job.train['by_path'].items():
    clips[f'train.by_path.{path}'] = own.get('clip', 0)
  for at, clip in clips.items():
    if clip:
      raise UserError(
        f'{at}.clip: it would clip the sum and not its parts; set it to 0 or '
        'leave train.parts empty'
      )
  named = [name for names in parts.values() for name in names]
  for name in used:
    if named.count(name) != 1:
      raise UserError(
        f'train.parts: the term {name} is in {named.count(name)} of the parts '
        f'{", ".join(parts)}; put it into one'
      )


def _check_size(name: str, entry: Mapping[str, Any], size: int) -> None:
  """Refuses batches of fewer examples than a loss compares."""
  if not entry['loss']:
    return
  loss = find_loss(entry['loss'], at=f'distill.{name}.loss')
  least = next((n for known, n in losses.LEAST.items() if known is loss), 1)
  if size < least:
    raise UserError(
      f'train.batch_size: {entry["loss"]} compares the examples of a batch, '
      f'and a batch of {size} is too small; set it to {least} or more, or '
      f'choose another distill.{name}.loss'
    )


def _check_early_stopping(session: Session, job: Job) -> None:
  """Refuses a metric that evaluations on the way do not give for these nets."""
  name = job.train['early_stopping']['metric']
  if not name or fitted.is_fitted(job.students):
    return
  role = job.students[reported(job.students)]
  outputs = build.output_shapes(role.net, role.shape)
  known = [
    called
    for called, metric in session.metrics.items()
    if not (metric.finished or metric.teacher)
    and (session.decode or metric.output in ('', *outputs))
  ]
  if name not in known:
    at = f'{job.at}train.early_stopping.metric'
    raise unknown('metric', name, known, at)


def _check_cached(job: Job) -> None:
  """Refuses terms and nets that need outputs which are not cached."""
  looked_at = groups_looked_at(job)
  for group, (role, *_) in looked_at.items():
    if not role.cache:
      continue
    wanted = {}
    for name, entry in terms.in_use(job.distill).items():
      other = entry['otherwise']
      own = {name: entry, **({other: job.distill[other]} if other else {})}
      found = locations(own, group, teacher=True)
      if group in terms.groups_of(entry) and entry['fuse_weights']:
        found = {*found, 'logits'}
      wanted |= dict.fromkeys(sorted(found), f'{job.at}distill.{name}')
    readers = [*job.students.values(), *(g.role for g in looked_at.values())]
    wanted |= {
      location: role.at
      for role in readers
      for read, location in role.reads
      if read == group
    }
    for location, at in wanted.items():
      if location not in role.cache.outputs:
        raise UserError(
          f'teachers.{group}.cache.outputs: {at} looks at {location!r} of '
          f'{group}, which is not cached; add it'
        )
    readers_of = [
      role.at for role in readers if (group, 'logits') in role.reads
    ]
    if role.cache.top and readers_of:
      raise UserError(
        f'teachers.{group}.cache.top: {readers_of[0]} reads all logits of '
        f'{group}; set it to 0'
      )


def _check_augment(session: Session, job: Job, batch: dict) -> None:
  """Refuses augmentation for models and caches of the original examples."""
  at = job.augment.at
  if not job.augment.text:
    return
  _check_unchanged(job, at, 'the examples as they are', 'as augmented')
  one = shapes_of_one(batch, axis_of(batch))
  source = session.source
  made = augment.check(job.augment, one, source.num_classes, source.fields)
  _check_sizes(job, made, source)


def _check_rollout(job: Job) -> None:
  """Refuses what students write where what is taken is of the data."""
  if not job.rollout:
    return
  _check_unchanged(
    job, 'data.rollout.name', 'the data', 'of what students write'
  )
  if job.rollout['name'] != on_policy.on_policy.__name__:
    return
  for name, entry in terms.in_use(job.distill).items():
    if not entry['loss']:
      continue
    at = f'{job.at}distill.{name}'
    loss = find_loss(entry['loss'], at=f'{at}.loss')
    fields = Arguments(loss, entry['inputs']).fields
    mask = entry['mask'] if isinstance(entry['mask'], str) else entry['mask'][0]
    with within(f'{at}.'):
      on_policy.check_term(fields, mask, job.rollout['kw'])


def _check_unchanged(job: Job, at: str, of: str, now: str) -> None:
  """Refuses cached outputs and fitted models where steps change the examples.

  Args:
    job: the population.
    at: the entry by which its steps do.
    of: what such outputs and models are of, in words.
    now: what the steps are of.

  Raises:
    UserError: there are such outputs, or is such a model.
  """
  for name, group in groups_looked_at(job).items():
    if group.role.cache:
      other = f'teachers.{name}.cache.outputs'
      other = 'name a teacher that is a net' if group.role.external else other
      raise UserError(
        f'{at}: the cached outputs of {name} are of {of}, not {now}; leave '
        f'this empty, or {other}'
      )
  if fitted.is_fitted(job.students):
    role = next(iter(job.students.values()))
    raise UserError(f'{at}: {role.at}.model is fitted to {of}; leave it empty')


def _check_sizes(job: Job, batch: dict, source: Source) -> None:
  """Refuses augmented examples of another size than the nets are built for.

  Args:
    job: the population.
    batch: shapes of an augmented batch.
    source: the data.
  """
  shape = shape_lib.example(batch['inputs'])
  if shape == source.input_shape:
    return
  groups = {name: group.role for name, group in groups_looked_at(job).items()}
  for role in {**groups, **job.students}.values():
    if role.reads:
      continue

    def run(batch, role=role):
      variables = role.net.init(jax.random.key(0))
      return role.net.apply(variables, shown(role.view, batch, 0))

    try:
      jax.eval_shape(run, batch)
    except Exception as error:
      raise UserError(
        f'{job.augment.at}: it gives examples of {shape_lib.said(shape)}, and '
        f'{role.at}.model takes those of {shape_lib.said(source.input_shape)} '
        f'alone ({first_line(error)}); keep their size'
      ) from error


def _check_mesh(job: Job) -> None:
  """Refuses a mesh that members which run in sequence cannot be laid out on."""
  mode, sizes = job.train['members'], job.train['mesh']
  if mode == 'sequence' or (mode == 'auto' and hosts.count() > 1):
    at = f'{job.at}train.mesh'
    size = job.train['batch_size']
    mesh_of('sequence', len(job.seeds), size, **sizes, at=at)


def _check_accumulate(session: Session, job: Job, batch: dict) -> None:
  """Refuses terms whose gradients of parts of a batch do not add up."""
  parts = job.train['accumulate']
  if parts == 1:
    return
  contexts = {}  # of each term; those of the copies of a net are alike
  made = learner(
    system_of(session, job, batch),
    look=lambda name, found: contexts.update({name.partition('/')[0]: found}),
  )
  jax.eval_shape(made.init, *initial_shapes(job))
  memo = session.memo
  for name, entry in entries_of(job, max).items():
    # Arms have many terms in common.
    others = [
      job.distill.get(n) for n in (name, job.distill[name]['otherwise'])
    ]
    if not memo.get(
      ('parts', others, contexts[name]),
      functools.partial(accumulation.adds_up, entry, contexts[name]),
    ):
      raise UserError(
        f'train.accumulate: the term {name} looks at the whole batch, or draws '
        f'for it, so {parts} parts of it are not the same; set '
        f'train.accumulate to 1 or distill.{name}.weight to 0'
      )
