"""What a row says in words: what was assumed, and how its nets relate."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxkd.report import wording
from jaxkd.run import overview, shares
from jaxkd.teachers import generated


def notes(config, source, stages, students, rounds) -> list[str]:
  """Notes on the data, and on how seeds and teachers relate.

  Args:
    config: of the run.
    source: the data.
    stages: the finished populations, in order.
    students: those of them that are arms.
    rounds: the plan of the run.
  """
  found = [*config['report']['notes'], *source.notes, *overview.notes(rounds)]
  for name, factors in config['report']['derived'].items():
    terms = (f'{factor:+g} × {arm}' for arm, factor in factors.items())
    found.append(f'{name} is {" ".join(terms)}, seed by seed')
  found += parts_seen(rounds)
  for name, entry in config['teachers'].items():
    if entry['made_of']:
      pass  # as its parts, which have notes of their own
    elif entry['per_seed']:
      found.append(f'each seed has its own teachers {name}')
    else:
      found.append(f'all seeds share the teachers {name}')
    kept = entry['cache']['outputs']
    if kept and any(part.teachers[name].cache for part in rounds):
      some = _sparse(entry['cache'])
      found.append(
        f'outputs of the teachers {name} ({", ".join(kept)}{some}) were cached '
        'on disk and not computed in the step'
      )
  for part in rounds:
    for arm, own in part.arms.items():
      made = own['data']['generated']
      if made['name']:
        of = made['teacher'] or next(iter(part.teachers))
        some = f'{made["count"]:,}' if made['count'] else 'as many'
        keeps = generated.keeps_data(made['name'])
        beside = 'beside the data' if keeps else 'and no data'
        found.append(
          f'the students of {part.prefix}{arm} see {some} examples made by '
          f'{made["name"]} of the teacher {of}, {beside}'
        )
  found += dict.fromkeys(note for stage in students for note in stage.notes)
  for stage in students:
    if share := _unfinished(stage):
      found.append(
        f'{share:.0%} of the rows that the students of {stage.name} wrote at '
        'the end of training reached no stop token'
      )
  for stage in stages:
    if stage.best:
      found.append(f'{stage.name}: {wording.best_steps(*stage.best)}')
  ways = sorted({_way(stage.execution) for stage in students})
  found.append(f'the seeds trained as one population ({"; ".join(ways)})')
  if config['data']['order'] == 'shared':
    found.append('all seeds see the examples in the same order')
  return found


def parts_seen(rounds) -> list[str]:
  """Who does not learn from all training examples.

  Args:
    rounds: the plan of the run, whose configs alone are read.
  """
  groups, arms = {}, {}
  for part in rounds:
    data = part.config['data']
    for name, entry in part.config['teachers'].items():
      if not (entry['made_of'] or entry['restore'] or _is_frozen(entry)):
        share = shares.of_teachers(entry, data)
        if entry['count'] == 1 and share.partition == 'disjoint':
          share = share._replace(partition='none')  # one part: all of it
        groups[f'teachers {part.prefix}{name}'] = share
    for arm, own in part.arms.items():
      arms[f'{part.prefix}{arm}'] = shares.of_students(own['data'])
  found = {}
  for name, share in {**groups, **arms}.items():
    if (share.fraction, share.partition) != (1, 'none'):
      found.setdefault(share, []).append(name)
  for names in found.values():
    if arms.keys() <= {*names}:
      names[:] = [*filter(groups.get, names), 'all students']
  return [
    f'{", ".join(who)}: trained on {_share(x)}' for x, who in found.items()
  ]


def _share(share: shares.Share) -> str:
  """A share of the training examples, in words."""
  part = '' if share.fraction == 1 else f'{100 * share.fraction:.3g} % of '
  whole = f'{part}the training examples'
  name, _, argument = share.partition.partition(':')
  classes = 'classes' if ',' in argument else 'class'
  units = f' units of {share.unit}' if share.unit else ''
  said = {
    'none': whole,
    'disjoint': f'disjoint parts of {whole}',
    'bootstrap': f'bootstrap samples of {whole}',
    'without': f'{whole} without {classes} {argument.replace(",", ", ")}',
    'first': f'{whole}, the first {argument}{units} alone',
  }[name]
  drawn = share.fraction != 1 or name != 'without'
  if share.unit and drawn:
    said += f', each {share.unit} whole or not at all'
  return said


def _is_frozen(entry) -> bool:
  return entry['freeze'] in ('*', '**')


def ranked(
  values: Mapping[str, Sequence[float]], metric: str, higher_is_better: bool
) -> str:
  """Arms from best to worst, by their means."""
  means = {name: float(np.mean(each)) for name, each in values.items()}
  order = sorted(means, key=means.get, reverse=higher_is_better)
  said = (f'{name} {wording.number(means[name], metric)}' for name in order)
  return f'by their mean {wording.heading(metric)}: {", ".join(said)}'


def _unfinished(stage) -> float:
  """The share of what students wrote, at the last look, that did not end."""
  metrics = (stage.history or {}).get('metrics', {})
  written, unfinished = (
    np.sum(metrics.get(f'train/rollout/{name}', [[0.0]])[-1])
    for name in ('written', 'unfinished')
  )
  return float(unfinished / written) if written > 0 else 0.0


def _sparse(cache) -> str:
  """What is kept of the logits, in words; empty for all of them."""
  if not cache['top']:
    return ''
  some = f', of the logits the {cache["top"]} largest'
  if cache['top_p'] < 1:
    some += f' or as many as have {cache["top_p"]:g} of the mass'
  if cache['temperature'] != 1:
    some += f', at temperature {cache["temperature"]:g}'
  return some


def _way(execution) -> str:
  """The execution mode of a population, in words."""
  steps = execution.steps
  return execution.mode + (f', {steps} steps at once' if steps > 1 else '')
