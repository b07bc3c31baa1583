r"""Measures how fast steps, losses, populations and starts are here.

python experiments/benchmark.py [--losses | --population | --data | \
    --case NAME] [--store | --out FILE]
"""

import itertools
import sys
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from benchmarks import data_speed, loss_speed, population_speed, speed
from jaxkd.errors import UserError, unknown
from jaxkd.report.progress import Reporter
from jaxkd.run import config as configs
from jaxkd.run import launch
from jaxkd.train.fit import Stopped

HERE = Path(__file__).parent
DEMO = HERE.parent / 'configs' / 'hinton2015_soft_targets.py'


class _Parts(flags.ArgumentParser):
  """Parts of the measurement of populations; the flag alone means all."""

  def parse(self, argument):
    parts = population_speed.PARTS
    if argument in ('true', 'false'):
      return parts if argument == 'true' else ()
    names = tuple(argument.split(',')) if argument else ()
    for name in names:
      if name not in parts:
        raise unknown('part', name, parts, '--population')
    return names


FLAGS = flags.FLAGS
flags.DEFINE_multi_string('case', [], 'nets to measure; all if none is named')
flags.DEFINE_boolean('losses', False, 'measure each loss, and not steps')
flags.DEFINE_flag(
  flags.Flag(
    _Parts(),
    None,
    'population',
    '',
    'measure populations, and not steps; or some of '
    f'--population={",".join(population_speed.PARTS)}',
    boolean=True,
  )
)
flags.DEFINE_boolean(
  'data', False, 'measure how soon folders of images are ready, and not steps'
)
flags.DEFINE_integer(
  'steps',
  100,
  'how often each program is timed, at most with --losses and --population',
  lower_bound=1,
)
flags.DEFINE_string('out', '', 'a JSON file to write what was measured to')
flags.DEFINE_boolean('store', False, 'keep it in benchmarks/ for BENCHMARKS.md')


def main(stop):
  """Makes the measurements that are asked for, prints and stores them."""
  console = Console()
  if FLAGS.losses and FLAGS.case:
    raise UserError('--losses: they have a case of their own; leave --case out')
  if FLAGS.population and (FLAGS.losses or FLAGS.case):
    raise UserError(
      '--population: it has nets of its own; leave --losses and --case out'
    )
  if FLAGS.data and (FLAGS.losses or FLAGS.case or FLAGS.population):
    raise UserError(
      '--data: it measures no nets; leave --losses, --population and --case out'
    )
  cases = speed.cases(configs.load(str(DEMO)))
  for name in FLAGS.case:
    if name not in cases:
      raise unknown('case', name, cases, '--case')
  if FLAGS.out:
    speed.check_out(FLAGS.out)
  kinds = ['losses' if FLAGS.losses else 'steps']
  if FLAGS.population:
    kinds = list({_KINDS.get(part, 'population') for part in FLAGS.population})
  if FLAGS.data:
    kinds = ['data']
  for kind in kinds if FLAGS.store else ():
    speed.stored(kind)
  measured = {kind: [] for kind in kinds}
  try:
    if FLAGS.losses:
      measured['losses'].append(_losses(console, stop))
    for part in FLAGS.population:
      kind = _KINDS.get(part, 'population')
      measured[kind].append(_population(part, cases, console, stop))
    if FLAGS.data:
      measured['data'].append(_data(console, stop))
    elif not FLAGS.losses and not FLAGS.population:
      for name in FLAGS.case or cases:
        measured['steps'].append(_steps(cases[name], console, stop))
  except Stopped as stopped:
    console.print(str(stopped))
    sys.exit(launch.STOPPED)
  if FLAGS.out:
    speed.save(FLAGS.out, [*itertools.chain(*measured.values())])
  for kind, found in measured.items() if FLAGS.store else ():
    path = speed.store(found, kind)
    console.print(f'Kept in {path}; python -m jaxkd.report shows it.')


# What of populations is a measurement of another kind.
_KINDS = {'teachers': 'steps'}


def _steps(case, console, stop):
  console.print(f'[dim]measuring {case.name}[/]')
  found = speed.steps(case, FLAGS.steps, stop)
  console.print(speed.table(found))
  return found


def _losses(console, stop):
  stage = Reporter(console, '').stage
  found = loss_speed.measure(loss_speed.usual(), FLAGS.steps, stop, stage=stage)
  console.print(loss_speed.table(found))
  return found


def _data(console, stop):
  stage = Reporter(console, '').stage
  found = data_speed.starts(stop=stop, stage=stage)
  console.print(data_speed.table(found))
  return found


def _population(part, cases, console, stop):
  """A part of the measurement of populations."""
  if part == 'teachers':  # live ones, and what is kept of them
    return _steps(cases['resnet20-resnet8'], console, stop)
  console.print(f'[dim]measuring {part}[/]')
  nets = population_speed.cases(configs.load(str(DEMO)))
  options = {'stop': stop, 'stage': Reporter(console, '').stage}
  simulates = (
    jax.default_backend() == 'cpu'
    and jax.device_count() < population_speed.DEVICES[-1]
  )
  python = [sys.executable]
  if part == 'members':
    found = population_speed.members(nets, FLAGS.steps, **options)
  elif part == 'seeds':
    command = [*python, str(HERE / 'distill.py'), '--config', str(DEMO)]
    found = population_speed.seeds(command, **options)
  elif simulates:
    options = f'--steps={FLAGS.steps}', '--population=devices', '--out'
    found = population_speed.simulated([*python, __file__, *options], stop)
  else:
    found = population_speed.devices(nets, FLAGS.steps, **options)
  console.print(population_speed.table(found))
  return found


if __name__ == '__main__':
  launch.main(main, config=False)
