"""How fast populations train: members, devices, and the seeds of a whole run.

A population of M members takes M member-steps in a step. They are compared
with those of a population of one, which is what training one member after
another does, M times as long. Steps are those of the training loop, whose
batches come from the host.
"""

import contextlib
import itertools
import json
import math
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Group
from rich.text import Text

from benchmarks import speed
from benchmarks.speed import FEWEST, WARM_UP, Program
from jaxkd.errors import UserError
from jaxkd.report import rows, wording
from jaxkd.run import arms, checks, jobs, train_job
from jaxkd.run import config as configs
from jaxkd.train import execution, fit, sharding
from jaxkd.train.population import MODES, Population

PARTS = 'members', 'devices', 'teachers', 'seeds'
MEMBERS = 1, 2, 4, 8, 16, 32
DEVICES = 1, 2, 4, 8
SHARING = 8  # members that share the devices
SEEDS = 1, 5
SECONDS = 30  # that a way to run members may take, or about that
ALONE = 'one by one'


class Case(NamedTuple):
  """A net to train.

  Attributes:
    name: what it is called.
    config: complete, with the role `student`, which learns the labels alone.
  """

  name: str
  config: dict


class Ready(NamedTuple):
  """A population that can be timed.

  Attributes:
    program: its step.
    compile_s: seconds of the first call.
    step_s: seconds of a later one.
  """

  program: Program
  compile_s: float
  step_s: float


def cases(demo: Mapping[str, Any]) -> dict[str, Case]:
  """What is trained by default, by name.

  Args:
    demo: the config of the demo, whose student is a small MLP.
  """
  demo, size = configs.plain(demo), 64
  if jax.default_backend() == 'cpu':
    size = 16  # or half an hour would not do
  images = {'source': 'synthetic', 'kw': {'shape': (32, 32, 3)}}
  vit = {'model': 'vit', 'kw': {'width': 96, 'depth': 4}}
  made = [
    _case('mlp', demo['data'], demo['students']['student'], demo['train']),
    _case('resnet8', images, {'model': 'resnet8'}, {'batch_size': size}),
    _case('vit', images, vit, {'batch_size': size}),
  ]
  return {case.name: case for case in made}


def _case(name: str, data: dict, student: dict, train: dict) -> Case:
  config = {
    'data': data,
    'students': {'student': student},
    'distill': {'labels': {'loss': 'cross_entropy'}},
    'report': {'compare': {'better': 'student', 'than': 'student'}},
    'train': {k: v for k, v in train.items() if k not in ('seeds', 'seed')},
  }
  return Case(name, configs.plain(configs.complete(config)))


def members(
  cases: Mapping[str, Case],
  samples: int,
  stop: threading.Event | None = None,
  *,
  sizes: Sequence[int] = MEMBERS,
  seconds: float = SECONDS,
  within: float = math.inf,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Member-steps per second on one device, for each way to run members.

  What would take longer than `seconds`, as told by the population of half the
  size, is left out.

  Args:
    cases: the nets.
    samples: how many times of each step to take, or fewer.
    stop: when set, the measurement ends.
    sizes: how many members, in ascending order.
    seconds: about how long each way may take for each size.
    within: about how long all of it may take; what does not fit is left out.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
  """
  begun, table = time.perf_counter(), {name: [] for name in cases}
  with (
    sharding.on(sharding.devices()[:1]),
    compiled_afresh(),
    stage('members', len(sizes)) as show,
  ):
    ways = {name: (makers(case), {}) for name, case in cases.items()}
    # All nets with few members first, for where time does not suffice.
    for number, size in enumerate(sizes, 1):
      for name, (made, known) in ways.items():
        left = min(seconds, within - (time.perf_counter() - begun))
        table[name].append(
          _members_row(name, made, size, known, samples, stop, left)
        )
      show(number, {})
  rows = [*itertools.chain(*table.values())]
  return speed.measurement('Population: members', rows, _notes(seconds))


def _members_row(
  name: str,
  made: Callable,
  size: int,
  known: dict[str, tuple[int, Ready]],
  samples: int,
  stop: threading.Event | None,
  seconds: float,
) -> dict[str, Any]:
  """What `members` says of one size; `known` has the newest of each way."""
  make, batches = made(size)
  batch = batches.batch(0)
  programs, times = {}, {}
  for mode in MODES:
    speed.check_stop(stop)
    if _expected(known.get(mode), size, mode) <= seconds:
      known[mode] = size, ready(make(mode), batch)
      programs[mode] = known[mode][1].program
  if programs:
    alone, others = made(1)
    programs[ALONE] = ready(alone('sequence'), others.batch(0)).program
    times = speed.interleaved(programs, samples, stop, seconds=seconds)
  rates = {
    mode: (1 if mode == ALONE else size) / taken
    for mode, taken in times.items()
  }
  middle = {mode: float(np.median(rate)) for mode, rate in rates.items()}
  row = {
    'net': name,
    'shapes': speed.by(*jax.tree.leaves(batch['inputs'])[0].shape[1:]),
    'members': size,
    **{mode: rounded(middle.get(mode)) for mode in (ALONE, *MODES)},
    'auto': None,
    '% behind': None,
    'gain': None,
    'compile s': ' / '.join(
      f'{known[mode][1].compile_s:.1f}' if mode in programs else '–'
      for mode in MODES
    ),
  }
  if {'vmap', 'sequence'} <= set(programs):
    long = 10**9  # steps, so that auto tries every mode
    plan = execution.Plan(long, 1, 1, members='auto', steps_per_execution=1)
    auto = execution.fastest(make, batches.batch(0), plan)[1].mode
    best = max(middle[mode] for mode in programs if mode in MODES)
    row['auto'] = auto
    row['% behind'] = round(100 * (best / middle[auto] - 1), 1)
    row['gain'] = rounded(float(np.median(rates[auto] / rates[ALONE])))
  return row


def devices(
  cases: Mapping[str, Case],
  samples: int,
  stop: threading.Event | None = None,
  *,
  counts: Sequence[int] = DEVICES,
  sharing: int = SHARING,
  seconds: float = SECONDS,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Times of a population's step on more and more of the devices there.

  Args:
    cases: the nets.
    samples: how many times of each step to take, or fewer.
    stop: when set, the measurement ends.
    counts: of devices, 1 first; those that are not there are left out.
    sharing: how many members share them.
    seconds: about how long each number of devices may take.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
  """
  there, table = sharding.devices(), []
  counts = [count for count in counts if count <= len(there)]
  for case in cases.values():
    programs, meshes, made = {}, {}, makers(case)
    for count in counts:
      speed.check_stop(stop)
      with sharding.on(there[:count]):
        make, batches = made(sharing)
        population, batch = make('vmap'), batches.batch(0)
        programs[count] = ready(population, batch).program
        meshes[count] = population.mesh
    times = speed.interleaved(
      programs, samples, stop, seconds=len(counts) * seconds, stage=stage
    )
    for count in counts:
      mesh = meshes[count]
      taken = speed.milliseconds(times[count])
      faster = float(np.median(times[counts[0]] / times[count]))
      table.append(
        {
          'net': case.name,
          'shapes': speed.by(*jax.tree.leaves(batch['inputs'])[0].shape[1:]),
          'members': sharing,
          'devices': count,
          'member × data': speed.by(*mesh.devices.shape) if mesh else '1×1',
          **taken,
          'per second': rounded(1e3 * sharing / taken['ms']),
          'speed-up': rounded(faster),
        }
      )
  return speed.measurement('Population: devices', table, [_devices_note()])


def simulated(
  command: Sequence[str], stop: threading.Event | None = None
) -> dict[str, Any]:
  """`devices` as another process finds it that simulates all of them.

  Args:
    command: what measures `devices` and writes it to the file named last.
    stop: when set, the measurement ends.

  Raises:
    Stopped: `stop` was set.
    UserError: the process failed; what it said last.
  """
  flag = f'--xla_force_host_platform_device_count={max(DEVICES)}'
  flags = f'{os.environ.get("XLA_FLAGS", "")} {flag}'.strip()
  with tempfile.TemporaryDirectory() as folder:
    out = str(Path(folder, 'devices.json'))
    _run([*command, out], stop, XLA_FLAGS=flags, JAX_PLATFORMS='cpu')
    (found,) = json.loads(Path(out).read_text(encoding='utf-8'))
  return found


def seeds(
  command: Sequence[str],
  stop: threading.Event | None = None,
  *,
  counts: Sequence[int] = SEEDS,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Seconds of a whole command that trains one seed, and several.

  Each is run as if for the first time, and once more with the programs that
  the first has compiled.

  Args:
    command: what distils, without a folder and the number of seeds.
    stop: when set, the measurement ends.
    counts: of seeds, 1 first.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
    UserError: a command failed; what it said last.
  """
  table = []
  with (
    tempfile.TemporaryDirectory() as folder,
    stage('whole commands', 2 * len(counts)) as show,
  ):
    for programs in ('compiled', 'at hand'):
      first = None
      for count in counts:
        speed.check_stop(stop)
        workdir = Path(folder, f'{count}-{programs}')
        own = f'--workdir={workdir}', f'--config.train.seeds={count}'
        cache = str(Path(folder, f'programs-{count}'))
        begun = time.perf_counter()
        _run([*command, *own], stop, JAX_COMPILATION_CACHE_DIR=cache)
        wall = time.perf_counter() - begun
        step = rows.load_json(workdir / 'row.json')['cost']['step_ms']
        first = first or (wall, step)
        table.append(
          {
            'seeds': count,
            'programs': programs,
            'wall s': rounded(wall),
            'wall ratio': rounded(wall / first[0]),
            'step ms': rounded(step),
            'step ratio': rounded(step / first[1]),
          }
        )
        show(len(table), {})
  return speed.measurement('Population: seeds', table, [_SEEDS_NOTE])


def table(measured: Mapping[str, Any]) -> Group:
  """A measurement for the terminal."""
  made = speed.frame(measured)
  shown = [name for name in measured['rows'][0] if name != 'shapes']
  for name in shown:
    side = 'left' if name in ('net', 'programs') else 'right'
    made.add_column(name, justify=side, overflow='fold')
  net = ''
  for row in measured['rows']:
    cells = [wording.plain(row[name]) for name in shown]
    if 'net' in row:
      new, net = row['net'] != net, row['net']
      cells[0] = Text.assemble(net, (f'\n{row["shapes"]}', 'dim'))
      cells[0] = cells[0] if new else ''
    made.add_row(*cells)
  notes = (Text(f'- {note}', 'dim') for note in measured['notes'])
  return Group(made, Text(), *notes)


def makers(case: Case) -> Callable[[int], tuple[Callable, fit.Batches]]:
  """Number of members -> the population by mode, and its batches."""
  source, (part,) = checks.prepare(case.config, Path())
  session = jobs.session_of(part, source, Path(), progress=None)
  ((arm, config),) = part.arms.items()

  def made(size):
    job = arms.job(
      config,
      part.students[arm],
      {},
      stage='',
      training=source.splits['train'],
      seeds=list(range(size)),
    )
    batches = train_job.batches_of(session, job)
    return train_job.populations_of(session, job, batches.batch(0)), batches

  return made


def ready(population: Population, batch: dict) -> Ready:
  """The step of a population, compiled."""
  state = population.init(), population.split(population.no_totals(batch))
  state = jax.block_until_ready(state)
  call = lambda state: population.step(*state, batch)  # noqa: E731
  seconds = []
  for _ in range(2):
    begun = time.perf_counter()
    state = jax.block_until_ready(call(state))
    seconds.append(time.perf_counter() - begun)
  first, later = seconds
  return Ready(Program(call, state, 0), max(0.0, first - later), later)


def _expected(known: tuple[int, Ready] | None, size: int, mode: str) -> float:
  """Seconds that a way may take for a size, from what a smaller one took."""
  if known is None:
    return 0.0  # unknown: it is tried while any time is left
  smaller, found = known
  grown = size / smaller
  longer = grown if mode == 'unroll' else 1  # the program, and its compilation
  return longer * found.compile_s + (WARM_UP + FEWEST) * grown * found.step_s


@contextlib.contextmanager
def compiled_afresh() -> Iterator[None]:
  """No program is at hand from an earlier measurement."""
  before = jax.config.jax_compilation_cache_dir

  def use(folder):
    jax.config.update('jax_compilation_cache_dir', folder)
    compilation_cache.reset_cache()  # which keeps to its first folder

  with tempfile.TemporaryDirectory() as folder:
    use(folder)
    try:
      yield
    finally:
      use(before)


def _run(
  command: Sequence[str], stop: threading.Event | None, **environment: str
) -> None:
  """Runs a command to its end; ends it where `stop` is set."""
  with (
    tempfile.TemporaryFile('w+') as said,
    subprocess.Popen(
      command,
      env={**os.environ, **environment},
      stdout=said,
      stderr=subprocess.STDOUT,
    ) as process,
  ):
    while process.poll() is None:
      if stop is not None and stop.wait(0.02):
        process.send_signal(signal.SIGTERM)
        process.wait()
      elif stop is None:
        process.wait()
    speed.check_stop(stop)
    if process.returncode:
      said.seek(0)
      last = (said.read().strip().splitlines() or ['without a word'])[-1]
      raise UserError(f'{shlex.join(command)} has failed: {last}')


def rounded(value: float | None) -> float | None:
  """Four digits of what is measured, which is more than are sure."""
  return value if value is None else float(f'{value:.4g}')


def _notes(seconds: float) -> list[str]:
  """What a reader of `members` must know."""
  return [
    'Member-steps per second on one device; a member has batches of its own, '
    'of the shapes shown, from the host. Medians of paired repeats.',
    f'{ALONE.capitalize()}: a population of one, as often as there are '
    'members. The gain is that of auto over it.',
    'Auto is what training would choose; % behind, by how much the fastest '
    'way is faster.',
    f'Left out (–): what was going to take more than {seconds:g} s, going by '
    'the smaller populations. Seconds of compilation are those of '
    f'{", ".join(MODES)}.',
  ]


def _devices_note() -> str:
  if jax.default_backend() != 'cpu':
    return 'Members side by side (vmap), shared out over the devices.'
  return (
    'Members side by side (vmap), shared out over simulated devices, which '
    'share the cores: this shows the shape, not what real devices gain.'
  )


_SEEDS_NOTE = (
  'Wall time of the whole command for the demo, from start to row; a step is '
  'one of all seeds of the distilled student. Ratios are to one seed, with '
  'programs that were compiled, or at hand from the first time.'
)
