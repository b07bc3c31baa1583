r"""Measures how fast steps, losses, populations and starts are here.

python experiments/benchmark.py [--losses | --convolutions | \
    --vocabulary_chunks | --population | --data | --growth | --peers | \
    --case NAME] [--store | --out FILE]

Images a second beside PyTorch's DataLoader and TFDS, given a Python with them:

python experiments/benchmark.py --data=loading --torch_python=PYTHON

Beside the training steps of PyTorch projects, given clones of them:

python experiments/benchmark.py --peers --torch_python=PYTHON \
    --mdistiller=DIR --RepDistiller=DIR --torchdistill=DIR
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from rich.console import Console

from benchmarks import (
  convolution_speed,
  data_speed,
  growth_speed,
  loading_speed,
  loss_speed,
  population_speed,
  speed,
  vocabulary_speed,
)
from benchmarks.peers import side_by_side
from jaxkd.errors import Stopped, UserError, unknown
from jaxkd.report.progress import Reporter
from jaxkd.run import config as configs
from jaxkd.run import launch

HERE = Path(__file__).parent
DEMO = HERE.parent / 'configs' / 'hinton2015_soft_targets.py'


class _Parts(flags.ArgumentParser):
  """Some parts of a measurement; the flag alone means all.

  Args:
    flag: its name.
    parts: all of them.
  """

  def __init__(self, flag, parts):
    super().__init__()
    self.flag, self.parts = flag, tuple(parts)

  def parse(self, argument):
    if argument in ('true', 'false'):
      return self.parts if argument == 'true' else ()
    names = tuple(argument.split(',')) if argument else ()
    for name in names:
      if name not in self.parts:
        raise unknown('part', name, self.parts, f'--{self.flag}')
    return names


def _define_parts(flag, parts, what):
  """A flag that is given alone, or with some of the parts."""
  some = f'{what} instead of steps; or only some, --{flag}={",".join(parts)}'
  parser = _Parts(flag, parts)
  flags.DEFINE_flag(flags.Flag(parser, None, flag, '', some, boolean=True))


PEERS = side_by_side.PEERS

FLAGS = flags.FLAGS
flags.DEFINE_multi_string('case', [], 'nets to measure; all if none is named')
flags.DEFINE_boolean('losses', False, 'measure each loss instead of steps')
flags.DEFINE_boolean(
  'convolutions', False, 'measure convolutions instead of steps'
)
flags.DEFINE_boolean(
  'vocabulary_chunks',
  False,
  'measure losses over large vocabularies instead of steps',
)
_define_parts('population', population_speed.PARTS, 'measure populations')
_define_parts('growth', growth_speed.PARTS, 'measure cost as work grows')
_define_parts('peers', side_by_side.PROGRAMS, 'measure steps beside the peers')
flags.DEFINE_string(
  'torch_python',
  '',
  'a Python with PyTorch, for --peers; with PyTorch or TensorFlow, for --data',
)
for _peer in PEERS:
  flags.DEFINE_string(_peer, '', f'a clone of {_peer}, for --peers')
flags.DEFINE_enum(
  'dtype',
  'float32',
  ['float32', 'bfloat16'],
  'what nets compute in, for steps and --peers',
)
flags.DEFINE_float(
  'seconds',
  None,
  'about how long the steps of a case, all losses, a convolution, a program of '
  '--peers, a part of --growth or a way to run members may be measured',
  lower_bound=0,
)
flags.DEFINE_float(
  'within',
  None,
  'about how long a measurement of steps, of --peers or of members may take '
  'with what it compiles; what does not fit is left out',
  lower_bound=0,
)
_define_parts(
  'data',
  ('starts', 'loading'),
  'measure how soon folders of images are ready, and images a second',
)
flags.DEFINE_integer(
  'steps',
  100,
  'how often each program is timed; an upper bound, except for steps',
  lower_bound=1,
)
flags.DEFINE_string('out', '', 'a JSON file to write the results to')
flags.DEFINE_boolean(
  'store',
  False,
  'keep the results in benchmarks/speed for docs/benchmarks/speed.md',
)


def main(stop):
  """Makes the measurements that are asked for, prints and stores them.

  Each is written once it is there, so that one that fails costs no other.
  """
  _check()
  console = Console()
  if FLAGS.peers:  # PyTorch is to find room on the GPU, too
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  plan = _plan({'stop': stop, 'stage': Reporter(console, '').stage})
  if FLAGS.out:
    speed.check_out(FLAGS.out)
  for kind in dict.fromkeys(job.kind for job in plan) if FLAGS.store else ():
    speed.stored(kind)
  done = []
  try:
    for job in plan:
      console.print(f'[dim]measuring {job.what}[/]')
      found = job.measure()
      console.print(job.table(found))
      if FLAGS.out:
        done.append(_drawn(job.kind, found, FLAGS.out))
        speed.save(FLAGS.out, done)
      if FLAGS.store:
        file, _ = speed.stored(job.kind)
        path = speed.store([_drawn(job.kind, found, file)], job.kind)
        console.print(f'Kept in {path}; python -m jaxkd.report shows it.')
  except Stopped as stopped:
    console.print(str(stopped))
    sys.exit(launch.STOPPED)


class _Job(NamedTuple):
  """A measurement to make.

  Attributes:
    kind: of the file that it is stored in.
    what: it is called while it runs.
    measure: ``() -> measurement``.
    table: the measurement for the terminal.
  """

  kind: str
  what: str
  measure: Callable[[], dict]
  table: Callable[[dict], Any]


def _check():
  """Refuses flags that do not go together."""
  kinds = (
    *('losses', 'convolutions', 'vocabulary_chunks', 'population', 'data'),
    *('growth', 'peers'),
  )
  asked = [kind for kind in kinds if FLAGS[kind].value]
  if len(asked) > 1:
    raise UserError(
      f'--{asked[0]}: it is a measurement of its own; leave --{asked[1]} out'
    )
  if FLAGS.case and asked not in ([], ['peers']):
    raise UserError(
      f'--{asked[0]}: --case does not tell it what to measure; leave --case out'
    )


def _plan(options):
  """All measurements that are asked for.

  Args:
    options: of each measurement: the event that stops it, and its progress.
  """
  demo = configs.load(str(DEMO))
  bound = {} if FLAGS.seconds is None else {'seconds': FLAGS.seconds}
  whole = {} if FLAGS.within is None else {'within': FLAGS.within}
  if FLAGS.peers:
    folders = side_by_side.check(
      FLAGS.torch_python, {name: FLAGS[name].value for name in PEERS}
    )
    return [
      _job('peers', side_by_side, side_by_side.measure, f'{case.name} beside '
           f'{", ".join(folders)}', case, FLAGS.torch_python, folders,
           FLAGS.steps, programs=FLAGS.peers, **options, **bound, **whole)
      for case in _chosen(side_by_side.cases(FLAGS.dtype))
    ]  # fmt: skip
  if FLAGS.convolutions:
    return [
      _job('convolutions', convolution_speed, convolution_speed.measure,
           'convolutions', FLAGS.steps, **options, **bound)
    ]  # fmt: skip
  if FLAGS.vocabulary_chunks:
    return [
      _job('vocabulary_chunks', vocabulary_speed, vocabulary_speed.measure,
           'vocabulary_chunks', FLAGS.steps, **options, **bound)
    ]  # fmt: skip
  if FLAGS.losses:
    return [
      _job('losses', loss_speed, loss_speed.measure, 'losses',
           loss_speed.usual(), FLAGS.steps, **options, **bound)
    ]  # fmt: skip
  if FLAGS.data:
    jobs = {
      'starts': _job(
        'data', data_speed, data_speed.starts, 'starts', **options
      ),
      'loading': _job('data', loading_speed, loading_speed.measure, 'loading',
                      FLAGS.torch_python, **options),
    }  # fmt: skip
    return [jobs[part] for part in FLAGS.data]
  if FLAGS.growth:
    return [
      _job('growth', growth_speed, growth_speed.measure, f'growth: {part}',
           part, demo, FLAGS.steps, **options, **bound)
      for part in FLAGS.growth
    ]  # fmt: skip
  cases = speed.cases(demo, FLAGS.dtype)
  if not FLAGS.population:
    return [_steps(case, options, bound | whole) for case in _chosen(cases)]
  return [
    # Live teachers, and cached outputs of them, are steps.
    _steps(cases['resnet20-resnet8'], options, bound | whole)
    if part == 'teachers'
    else _job('population', population_speed, _population, part, part,
              population_speed.cases(demo), options, bound, whole)
    for part in FLAGS.population
  ]  # fmt: skip


def _job(kind, module, function, what, *arguments, **options):
  """A measurement by a function of a module, which has its table, too."""
  measure = functools.partial(function, *arguments, **options)
  return _Job(kind, what, measure, module.table)


def _chosen(cases):
  """The cases that are named; all where none is."""
  for name in FLAGS.case:
    if name not in cases:
      raise unknown('case', name, cases, '--case')
  return [cases[name] for name in FLAGS.case or cases]


def _steps(case, options, bound):
  stop = options['stop']  # they are too many to be shown one by one
  return _job(
    'steps', speed, speed.steps, case.name, case, FLAGS.steps, stop, **bound
  )


def _population(part, nets, options, bound, whole):
  """A part of the measurement of populations."""
  simulates = (
    jax.default_backend() == 'cpu'
    and jax.device_count() < population_speed.DEVICES[-1]
  )
  python = [sys.executable]
  if part == 'members':
    bounds = bound | whole
    return population_speed.members(nets, FLAGS.steps, **options, **bounds)
  if part == 'seeds':
    command = [*python, str(HERE / 'distill.py'), '--config', str(DEMO)]
    return population_speed.seeds(command, **options)
  if not simulates:
    return population_speed.devices(nets, FLAGS.steps, **options, **bound)
  arguments = f'--steps={FLAGS.steps}', '--population=devices', '--out'
  return population_speed.simulated(
    [*python, __file__, *arguments], options['stop']
  )


def _drawn(kind, found, path):
  """The measurement; what is to be seen as a picture has it beside its file."""
  return growth_speed.save_picture(found, path) if kind == 'growth' else found


if __name__ == '__main__':
  launch.main(main, config=False)
