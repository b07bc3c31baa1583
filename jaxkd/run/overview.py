"""Prints what a run is going to train and what it costs, before it starts."""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from jaxkd import shapes
from jaxkd.data import cache, sources
from jaxkd.distill.arguments import Arguments, find_loss
from jaxkd.errors import several
from jaxkd.models import cost, footprint, precision
from jaxkd.models import idle as idle_lib
from jaxkd.models.external import is_external
from jaxkd.paths import by_path
from jaxkd.report import wording
from jaxkd.run import (
  build,
  generated,
  job_groups,
  jobs,
  loss_memory,
  terms,
  train_job,
)
from jaxkd.run.plan import Round, called
from jaxkd.students import quantize
from jaxkd.tasks import on_policy

_KINDS = ('model', 'quantize', 'prune')


def describe(console: Console, source: sources.Source, rounds: list) -> dict:
  """Prints what is going to train and what it costs; returns `steps`."""
  sizes = ', '.join(
    f'{len(examples):,} {split}' for split, examples in source.splits.items()
  )
  console.print(
    f'[bold]{source.name}[/]: {sizes} examples of '
    f'{shapes.said(source.input_shape)}; {source.num_classes} '
    f'{"values" if source.standardized else "classes"}',
    soft_wrap=True,
  )
  for note in map(wording.brief, source.notes):
    console.print(
      f'- {note}', style='dim', markup=False, highlight=False, soft_wrap=True
    )
  table = Table(box=None, pad_edge=False)
  for column in ('', 'model', 'nets', 'parameters', 'memory', 'FLOPs'):
    table.add_column(column, justify='left' if column < 'n' else 'right')
  part = rounds[-1]
  for name, entry, net, shape in nets(part):
    found = cost.cost(net, shape)
    table.add_row(
      name,
      _model(entry),
      str(entry['count']),
      f'{found.params:,}',
      f'{found.bytes / 2**20:.2f} MiB',
      f'{found.flops:,}',
    )
  console.print(table)
  for part in rounds:
    for together in part.schedule:
      if len(together) > 1:
        console.print(f'[dim]{_side_by_side(part, together)}[/]')
  for line in notes(rounds):
    console.print(f'- {line}', style='yellow', markup=False, soft_wrap=True)
  found = steps(part, source)
  for arm, step in found.items():
    if share := step.teachers:
      console.print(
        f'[dim]{arm}: the teachers take {share:.0%} of the FLOPs of a step[/]'
      )
  return found


def nets(part: Round) -> list[tuple]:
  """(name, entry, net, input shape) of each group, then of each student.

  Students are those of the arm that the report claims to be better.
  """
  arm, found = better(part), []
  for section, entries, built in (
    ('teachers', part.config['teachers'], part.teachers),
    ('students', part.arms[arm]['students'], part.students[arm]),
  ):
    for name, role in built.items():
      found.append(
        (
          called(name, part) if section == 'teachers' else name,
          entries[name],
          role.net,
          role.shape,
        )
      )
  return found


def notes(rounds: list) -> list[str]:
  """Notes on how the nets train, for the output and the row."""
  return [
    *idle(rounds),
    *in_parts(rounds),
    *rounded(rounds),
    *written(rounds),
  ]


def idle(rounds: list) -> list[str]:
  """Notes on layers such as dropout that do nothing while a net trains."""
  said = []
  for at, entry, role in itertools.chain(*map(_different, rounds)):
    if entry.get('made_of') or entry.get('restore') or role.fit:
      continue
    said += [f'{at}: {text}' for text in idle_lib.said(role.net.idle())]
  return said


def in_parts(rounds: list) -> list[str]:
  """Notes on what `accumulate` means for BatchNorm and dropout in the nets."""
  found: dict[tuple[int, int], list[str]] = {}
  for stage, train in _trains(rounds, restored=False):
    how = train['batch_size'], train['accumulate']
    found.setdefault(how, []).append(stage)
  return [
    f'{several(stages)}: a batch of {size} is taken in {parts} parts; '
    'BatchNorm has the statistics of a part, and dropout draws for each part'
    for (size, parts), stages in found.items()
    if parts > 1
  ]


def rounded(rounds: list) -> list[str]:
  """Notes on the nets that use their parameters in bfloat16."""
  found = [
    stage
    for stage, train in _trains(rounds, restored=True)
    if train['param_dtype'] != precision.FULL
  ]
  if not found:
    return []
  return [
    f'{several(found)}: parameters are used in {precision.HALF}; those that '
    f'the optimiser updates, and that are exported and whose bytes are given, '
    f'are {precision.FULL}'
  ]


def written(rounds: list) -> list[str]:
  """Notes on what students write in their steps, and then learn from."""
  found: dict[str, list[str]] = {}
  for part in rounds:
    for arm, own in part.arms.items():
      rollout, stage = own['data']['rollout'], f'{part.prefix}students/{arm}'
      if rollout['name'] == on_policy.on_policy.__name__:
        text = on_policy.said(rollout['kw'], own['train']['batch_size'])
        found.setdefault(text, []).append(stage)
  return [f'{several(stages)}: {text}' for text, stages in found.items()]


def _trains(rounds: list, *, restored: bool) -> Iterator[tuple[str, dict]]:
  """The section of how to train of each stage that has nets of its own."""
  for part in rounds:
    for name, entry in part.config['teachers'].items():
      if not entry['made_of'] and (restored or not entry['restore']):
        yield f'{part.prefix}teachers/{name}', entry['train']
    for arm, own in part.arms.items():
      yield f'{part.prefix}students/{arm}', own['train']


def bit_operations(part: Round, source: sources.Source) -> dict[str, int]:
  """Multiplications × bits of the weight × bits of the activation, by net.

  Those of weights with activations for one example; what is not quantised
  counts as 32 bits. Of the nets that `nets` gives, and of the other arms'
  quantised students as ARM/NAME; of none where nothing is quantised.
  """
  chosen = [
    (name, f'{name}.', entry, net, shape)
    for name, entry, net, shape in nets(part)
    if not entry.get('made_of') and not is_external(entry.get('restore', ''))
  ]
  first = better(part)
  for arm, built in part.students.items():
    for name, role in built.items():
      entry = part.arms[arm]['students'][name]
      if arm != first and entry['quantize']:
        called_so = f'{part.prefix}{arm}/{name}'
        chosen.append((called_so, role.at, entry, role.net, role.shape))
  if not any(entry['quantize'] for _, _, entry, _, _ in chosen):
    return {}
  found = {}
  for name, at, entry, net, shape in chosen:
    layers = build.layers(entry, shape, source, at)
    used = cost.products(net, layers)
    ops = quantize.parse(entry['quantize'], at=at)
    bits = quantize.precision(ops, list(used))
    found[name] = sum(n * math.prod(bits[path]) for path, n in used.items())
  return found


def better(part: Round) -> str:
  """The arm that the report claims to be better, if it is of this round."""
  arm = part.config['report']['compare']['better'].removeprefix(part.prefix)
  return arm if arm in part.arms else next(iter(part.arms))


def _model(entry: Mapping[str, Any]) -> str:
  """A net in words: its model, or the groups that it is made of."""
  if entry.get('made_of'):
    return f'{entry["fuse"]} of {" + ".join(entry["made_of"])}'
  return ' '.join(filter(None, (entry[kind] for kind in _KINDS)))


def _side_by_side(part: Round, together: Mapping[str, list]) -> str:
  """Who trains at the same time, and on how many devices."""
  who = [f'{part.prefix}{name} on {len(own)}' for name, own in together.items()]
  many = sum(map(len, together.values()))
  return f'side by side, sharing {many} devices: {", ".join(who)}'


def steps(part: Round, source: sources.Source) -> dict[str, cost.Step]:
  """What a step of one member costs, by arm; nothing is computed."""
  session = jobs.session_of(part, source, Path(), progress=None)
  found = {}
  groups = jobs.shapes_of(part)

  @functools.cache
  def one(name):
    """The FLOPs of one net of a group for one example."""
    role = part.teachers[name]
    return cost.cost(role.net, role.shape).flops

  for arm in part.arms:
    if arm != part.first(arm):
      found[arm] = found[part.first(arm)]
      continue
    own = jobs.of_arm(part, arm, source, groups)
    learner, arguments = train_job.member_shapes(session, own)
    total = cost.flops(learner.step, *arguments)
    teaching, drawn = 0, job_groups.drawn_groups(own)
    for name in sorted(
      job_groups.computed_groups(own).keys() & part.teachers.keys()
    ):
      count = 1 if name in drawn else part.config['teachers'][name]['count']
      teaching += one(name) * count * own.train['batch_size']
    carry, _, frozen, _ = arguments
    found[arm] = cost.Step(
      total,
      sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((carry, frozen))),
      teaching / total if total else 0.0,
    )
  return found


def memory(part: Round, source: sources.Source, arm: str) -> dict[str, int]:
  """The bytes that a step of one member of an arm needs, by what they are for.

  All from shapes, whatever the size of the nets. The last is an estimate, see
  `jaxkd.models.footprint`.
  """
  session = jobs.session_of(part, source, Path(), progress=None)
  job = jobs.of_arm(part, arm, source, jobs.shapes_of(part))
  learner, arguments = train_job.member_shapes(session, job)
  carry, _, frozen, _ = arguments
  nets = carry['train']['nets']
  trained = 0
  for name, params in nets.items():
    still = job.students[name.partition('/')[0]].untrained(params)
    own = {p: x for p, x in by_path(params).items() if p not in still}
    trained += _bytes(own)
  rest = {k: v for k, v in carry.items() if k not in ('train', 'opt')}
  beside = {k: v for k, v in carry['train'].items() if k != 'nets'}
  peak = footprint.peak(learner.step, *arguments)
  return {
    'parameters': _bytes(nets),
    'optimiser': _bytes(carry['opt']),
    'other state': _bytes((rest, beside)),
    'frozen teachers': _bytes(frozen),
    'gradients': trained,
    'activations, estimated': max(peak - trained, 0),
  }


def _bytes(tree: Any) -> int:
  return sum(
    x.size * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
    if not jnp.issubdtype(x.dtype, jax.dtypes.extended)
  )


def _print_memory(
  console: Console, part: Round, source: sources.Source, arm: str
) -> None:
  found = memory(part, source, arm)
  train = part.arms[arm]['train']
  size, parts = train['batch_size'], train['accumulate']
  rows = f'{size} examples' + (f' in {parts} parts' if parts > 1 else '')
  console.print(
    f'  needs {_gib(sum(found.values()))} for a step of {rows}, of one member '
    'on one device:',
    soft_wrap=True,
  )
  for name, number in found.items():
    if number >= 2**13:
      console.print(f'    {name:<24} {_gib(number):>12}', highlight=False)


def _gib(number: int) -> str:
  unit, power = ('GiB', 30) if number >= 2**28 else ('MiB', 20)
  return f'{number / 2**power:,.2f} {unit}'


def explain(console: Console, source: sources.Source, rounds: list) -> None:
  """Prints the loss of each arm with its numbers, its memory, every tap."""
  for part in rounds:
    session = jobs.session_of(part, source, Path(), progress=None)
    groups, kept = jobs.shapes_of(part), {}
    for arm, own in part.arms.items():
      made = generated.generator_of(part, arm, source, groups)
      augment = own['data']['augment']['students']
      sees = [f'sees {made}'] if made else []
      sees += [f'augments its examples by {augment}'] if augment else []
      rollout = own['data']['rollout']['name']
      sees += [f'writes what it learns from by {rollout}'] if rollout else []
      sees = f' {" and ".join([*sees, "minimises the sum of"])}'
      console.print(f'\n[bold]{part.prefix}{arm}[/]{sees}', soft_wrap=True)
      job = jobs.of_arm(part, arm, source, groups)
      needs = loss_memory.of_job(session, job)
      for name, term in sorted(terms.in_use(own['distill']).items()):
        console.print(f'  {_sentence(name, term)}', highlight=False)
        if name in needs:
          console.print(
            f'    {_memory(needs[name], job.train["accumulate"])}',
            highlight=False,
            soft_wrap=True,
          )
      batches = train_job.batches_of(session, job)
      for outputs in map(str, batches.outputs.values()):
        if kept.setdefault(outputs, arm) == arm:
          console.print(f'  keeps {outputs}', highlight=False, soft_wrap=True)
      if arm == part.first(arm):
        _print_memory(console, part, source, arm)
    for at, entry, role in _different(part):
      if entry.get('made_of') or role.external:
        console.print(f'\n[bold]{at}[/]: outputs of {_model(entry)}')
        shown = build.output_shapes(role.net, role.shape)
      else:
        console.print(f'\n[bold]{at}[/]: layers of {_model(entry)}')
        shown = build.layers(entry, role.shape, source, at)
      for layer, leaf in shown.items():
        size = ', '.join(map(str, ('B', *leaf.shape[1:])))
        console.print(f'  {layer:<32} [{size}]', highlight=False, markup=False)


def _different(part: Round) -> list[tuple]:
  """(what it is called, entry, role) of each net, equal ones once."""
  found = [
    (f'{part.prefix}teachers.{name}', part.config['teachers'][name], role)
    for name, role in part.teachers.items()
  ]
  seen: dict[str, list] = {}
  for arm, built in part.students.items():
    for name, role in built.items():
      entry = part.arms[arm]['students'][name]
      known = seen.setdefault(name, [])
      if entry not in known:
        suffix = f' ({arm})' if known else ''
        at = f'{part.prefix}students.{name}{suffix}'
        found.append((at, entry, role))
        known.append(entry)
  return found


def _memory(needs: loss_memory.Needs, parts: int) -> str:
  """What a loss of factored logits takes in memory."""
  each = f' for each of the {parts} parts of a batch' if parts > 1 else ''
  return (
    f'takes {cache.size(needs.chunked)} beside its gradients{each}, in chunks '
    f'of {needs.chunk:,} of {needs.classes:,} classes; dense logits would take '
    f'{cache.size(needs.dense)}'
  )


def _sentence(name: str, term: Mapping[str, Any]) -> str:
  """A term as a formula: weight · loss(student, teacher; options)."""
  groups = terms.groups_of(term)
  sides = [str(term['at'][0])]
  if groups:
    group = ' + '.join(groups)
    fused = f'{term["fuse"]} of {group}' if term['fuse'] else group
    if term['fuse_weights']:
      fused += f' weighted by {term["fuse_weights"]}'
    side = f'{term["at"][1]} of {fused}'
    adapter = term['teacher_adapter']
    sides.append(f'{adapter}({side})' if adapter else side)
  if term['adapter']:
    sides[0] = f'{term["adapter"]}({sides[0]})'
  if term['term']:
    fields = []
  else:
    loss = find_loss(term['loss'], at=name)
    fields = Arguments(loss, term['inputs']).fields
  options = {**term['inputs'], **term['kw']}
  options = [f'{k}={v}' for k, v in sorted(options.items())]
  factors = [f'{term["weight"]:g}']
  if term['schedule']['name']:
    factors.append(f'{term["schedule"]["name"]}(step)')
  if term['example_weight']:
    weight = term['example_weight']
    given = '' if weight.startswith('batch.') else '(example)'
    factors.append(f'{weight}{given}')
  called = term['term'] or term['loss']
  arguments = ', '.join([*sides, *fields, *options])
  text = f'{name} = {" · ".join(factors)} · {called}({arguments})'
  if term['when']:
    text += f' where {term["when"]}, {term["otherwise"]} elsewhere'
  return text
