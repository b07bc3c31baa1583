"""Measures how fast steps and losses are on the device that is there.

python experiments/benchmark.py [--losses | --case NAME] [--store | --out FILE]
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from jaxkd import config as configs
from jaxkd import launch
from jaxkd.errors import UserError, unknown
from jaxkd.report import loss_speed, speed
from jaxkd.report.progress import Reporter
from jaxkd.train.fit import Stopped

DEMO = Path(__file__).parents[1] / 'configs' / 'hinton2015_soft_targets.py'

FLAGS = flags.FLAGS
flags.DEFINE_multi_string('case', [], 'nets to measure; all if none is named')
flags.DEFINE_boolean('losses', False, 'measure each loss, and not steps')
flags.DEFINE_integer(
  'steps',
  100,
  'how often each program is timed, at most with --losses',
  lower_bound=1,
)
flags.DEFINE_string('out', '', 'a JSON file to write what was measured to')
flags.DEFINE_boolean('store', False, 'keep it in benchmarks/ for BENCHMARKS.md')


def main(stop):
  """Measures the cases, one after another, or the losses; prints each."""
  console = Console()
  if FLAGS.losses and FLAGS.case:
    raise UserError('--losses: they have a case of their own; leave --case out')
  cases = speed.cases(configs.load(str(DEMO)))
  for name in FLAGS.case:
    if name not in cases:
      raise unknown('case', name, cases, '--case')
  kind = 'losses' if FLAGS.losses else 'steps'
  if FLAGS.out:
    speed.check_out(FLAGS.out)
  if FLAGS.store:
    speed.stored(kind)
  measured = []
  try:
    if FLAGS.losses:
      stage = Reporter(console, '').stage
      measured.append(
        loss_speed.measure(loss_speed.usual(), FLAGS.steps, stop, stage=stage)
      )
      console.print(loss_speed.table(measured[-1]))
    for name in () if FLAGS.losses else FLAGS.case or cases:
      console.print(f'[dim]measuring {name}[/]')
      measured.append(speed.steps(cases[name], FLAGS.steps, stop))
      console.print(speed.table(measured[-1]))
  except Stopped as stopped:
    console.print(str(stopped))
    sys.exit(launch.STOPPED)
  if FLAGS.out:
    speed.save(FLAGS.out, measured)
  if FLAGS.store:
    path = speed.store(measured, kind)
    console.print(f'Kept in {path}; python -m jaxkd.report shows it.')


if __name__ == '__main__':
  launch.main(main, config=False)
