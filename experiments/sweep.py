r"""Runs configs × overrides × seeds, and prints one table of them all.

python experiments/sweep.py --configs configs/A.py,configs/B.py:tiny \
    --set distill.soft.kw.temperature=1,2,4 \
    --set 'students.student.kw.widths=(16,);(32,)' --workdir runs/sweep

A sweep that was cut short goes on when the same command is given again. With
--part I/N it does a part of the work; all parts may run at the same time, and
the same command without --part then shows them together.
"""

import sys

from absl import flags
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.run import launch

FLAGS = flags.FLAGS
flags.DEFINE_list('configs', [], 'config files, each FILE or FILE:SIZE')
flags.DEFINE_multi_string(
  'set',
  [],
  'values of an entry, ENTRY=VALUE,VALUE,... or ENTRY=VALUE;VALUE;...',
)
flags.DEFINE_integer(
  'seeds', None, 'seeds of every run; short for --set train.seeds=N'
)
flags.DEFINE_multi_string(
  'tune', [], '[ARM:]ENTRY=VALUE,VALUE,...: a grid to search in every run'
)
flags.DEFINE_string('workdir', '', 'folder of the runs')
flags.DEFINE_string('part', '', 'I/N: do only the I-th of N parts of the runs')
flags.DEFINE_boolean(
  'overwrite', False, 'remove the runs there and start again'
)


def main(stop):
  """Runs what is not finished yet, and shows all."""
  from jaxkd.run import pipeline, sweep  # what --help need not wait for

  console = Console()
  if not FLAGS.workdir:
    raise UserError('--workdir: name a folder for the runs')
  sets = list(FLAGS.set)
  if FLAGS.seeds is not None:
    sets.append(f'train.seeds={FLAGS.seeds}')
  made = sweep.combinations(FLAGS.configs, sets, FLAGS.tune)
  made = sweep.part_of(made, FLAGS.part)
  try:
    outcomes = sweep.run(
      made,
      FLAGS.workdir,
      tune=FLAGS.tune,
      overwrite=FLAGS.overwrite,
      stop=stop,
      console=console,
    )
  except pipeline.Stopped as stopped:
    same = 'without --overwrite ' if FLAGS.overwrite else ''
    console.print(f'{stopped}; run the same command {same}to go on')
    sys.exit(launch.STOPPED)
  console.print(sweep.table(outcomes))
  if not FLAGS.part:
    sweep.save(outcomes, FLAGS.workdir)
  if any(outcome.failure for outcome in outcomes):
    sys.exit(launch.FAILED)


if __name__ == '__main__':
  launch.main(main, config=False)
