"""Distils teachers into students as a config says.

python experiments/distill.py --config configs/NAME.py --workdir DIR

A run that was cut short goes on when the same command is given again.
"""

import sys

from absl import flags
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.run import launch

FLAGS = flags.FLAGS
flags.DEFINE_string(
  'workdir', '', 'folder of the run, on a disk or gs://BUCKET/FOLDER'
)
flags.DEFINE_boolean(
  'overwrite',
  False,
  'remove a run there that has finished, or has another config, data or code, '
  'and run again',
)
flags.DEFINE_boolean(
  'explain', False, 'print the loss, all layers and the memory; train nothing'
)
flags.DEFINE_multi_string(
  'tune',
  [],
  '[ARM:]ENTRY=VALUE,VALUE,...: a grid to search on the validation split',
)
flags.adopt_module_key_flags(launch)  # of hosts, for --help


def main(stop):
  # What --help need not wait for.
  from jaxkd import files
  from jaxkd.data import passes
  from jaxkd.report import progress, terminal
  from jaxkd.run import overview, pipeline, stored_nets, tuning
  from jaxkd.train import hosts

  console = Console(quiet=not hosts.is_first())
  config = launch.config()
  directory = files.path(FLAGS.workdir, at='--workdir', remote=True)
  if FLAGS.explain:
    with passes.shown_by(progress.Reporter(console, '').stage):
      source, rounds, grids = tuning.prepare(config, directory, FLAGS.tune)
    overview.describe(console, source, rounds)
    overview.explain(console, source, rounds)
    tuning.explain(console, grids)
    return
  if not FLAGS.workdir:
    raise UserError('--workdir: name a folder for the run')
  try:
    row = pipeline.run_complete(
      config,
      directory,
      overwrite=FLAGS.overwrite,
      tune=tuple(FLAGS.tune),
      stop=stop,
      console=console,
      command=launch.command(),
    )
  except pipeline.Stopped as stopped:
    console.print(f'{stopped}; run the same command to go on')
    sys.exit(launch.STOPPED)
  # Soft wrapping leaves commands whole, to be copied.
  predicts = stored_nets.prediction(directory, config['task'])
  shown = terminal.console(row, directory, predicts)
  console.print(shown, soft_wrap=True)


if __name__ == '__main__':
  launch.main(main, several=True)
