"""Steady-state times of steps, measured on the devices of this machine.

Programs that are to be compared are timed in turns, A B C A B C..., so that
the drift of a shared machine hits all of them alike. A measurement is a dict
of the form of `jaxkd.report.report.SCHEMA`, which BENCHMARKS.md shows.
"""

import contextlib
import json
import math
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table
from rich.text import Text

from jaxkd import compilation, files, models
from jaxkd import keys as folding
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.sources import Source
from jaxkd.distill.roles import CacheSpec, Group, Role
from jaxkd.errors import Stopped, UserError
from jaxkd.models import cost
from jaxkd.report import made_with, rows, wording
from jaxkd.report import speed as report
from jaxkd.run import build, job_groups, terms, train_job
from jaxkd.run import config as configs
from jaxkd.run.types import Job, Session
from jaxkd.train.population import Population
from jaxkd.types import Context

WARM_UP = 3  # calls before the first that counts; the first one compiles
# What the terminal shows in two columns.
_TOGETHER = (
  'program', 'nets', 'shapes', 'ms', 'lower quartile', 'upper quartile'
)  # fmt: skip

SAMPLE = 0.005  # seconds; a sample is as many calls as take about that long
FEWEST = 5  # samples, however little time there is
REST = 0.02  # seconds between turns of different processes


class Program(NamedTuple):
  """A program to time.

  Attributes:
    call: ``(state) -> state``, compiled. The state is donated, as training
      donates it, and makes each call wait for the one before.
    state: what the first call is given; it does not outlive it.
    flops: of a call, as the compiler counts them.
  """

  call: Callable[[Any], Any]
  state: Any
  flops: int

  def timer(self) -> Callable[[int], float]:
    """``(calls) -> seconds`` that they take; takes the state over."""
    state = self.state

    def run(calls):
      nonlocal state
      begun = time.perf_counter()
      for _ in range(calls):
        state = self.call(state)
      jax.block_until_ready(state)
      return time.perf_counter() - begun

    return run


class Elsewhere(NamedTuple):
  """A program of another process to time beside ours.

  Attributes:
    run: ``(calls) -> seconds`` that they have taken there.
    flops: of a call, as counted there.
  """

  run: Callable[[int], float]
  flops: int

  def timer(self) -> Callable[[int], float]:
    """What is called to time it."""
    return self.run


class Case(NamedTuple):
  """A teacher, a student and the shapes of their data.

  Attributes:
    name: what it is called.
    config: complete; with the teachers `main`, the role `student`, and the
      terms `labels` and `soft`.
    input_shape: of one example.
    num_classes: the number of logits.
    hint: the layers, of the student and of the teacher, that a hint joins.
  """

  name: str
  config: dict
  input_shape: tuple[int, ...]
  num_classes: int
  hint: tuple[str, str]


def cases(demo: Mapping[str, Any], dtype: str = 'float32') -> dict[str, Case]:
  """What is measured by default, by name; the large for accelerators alone.

  Args:
    demo: the config of the demo, whose nets see digits of 8×8 pixels.
    dtype: what nets compute in.
  """
  demo = configs.put(configs.plain(demo), 'train.dtype', dtype)
  made = [
    Case('demo', demo, (8, 8, 1), 10, ('layers/0', 'layers/1')),
    images('resnet20', 'resnet8', 64, dtype=dtype),
  ]
  if jax.default_backend() != 'cpu':
    made.append(images('resnet32x4', 'resnet8x4', 256, dtype=dtype))
    large = {'side': 224, 'num_classes': 1000, 'dtype': dtype}
    made.append(images('resnet50', 'resnet18', 64, **large))
  return {case.name: case for case in made}


def steps(
  case: Case,
  samples: int,
  stop: threading.Event | None = None,
  *,
  seconds: float = math.inf,
  within: float = math.inf,
) -> dict[str, Any]:
  """Times of a plain step, a teacher's pass, a distillation step, its losses.

  The ratio of a distillation step is its time over that of the plain step and
  the teacher's forward pass together: what distilling costs beyond them. Where
  the teacher's outputs are kept and looked up, it is over the plain step
  alone. The times are those of the same round, and the ratio is the median
  over rounds.

  Args:
    case: the nets and shapes. The batch is synthetic, on the device.
    samples: how many times of each program to take.
    stop: when set, the measurement ends.
    seconds: about how long all rounds may take, see `interleaved`.
    within: about how long all may take, with what is compiled; the programs
      that are left then have no row.

  Returns:
    The measurement, a row for each program with its median and quartiles in
    milliseconds.

  Raises:
    Stopped: `stop` was set.
  """
  batch = synthetic(case)
  teacher = role_of(case, 'teachers', 'main', {'logits'})
  student = role_of(case, 'students', 'student', {'logits'})
  variables = compilation.once(teacher.net.init)(jax.random.key(1))
  inputs = by(case.config['train']['batch_size'], *case.input_shape)
  plain, forward = 'plain step', 'teacher forward'
  nets = {'student': size_of(student), 'teacher': size_of(teacher)}
  programs, facts = {}, {}

  programs[plain], traced = plain_step(case, batch, variables)
  facts[plain] = {
    'nets': _label(case.config['students']['student']),
    'shapes': inputs,
    'parameters': nets['student'],
    'traces': traced,
  }
  programs[forward] = again(
    lambda variables, x: teacher.net.apply(variables, x)[0]['logits'],
    variables,
    batch['inputs'],
  )
  facts[forward] = {
    'nets': _label(case.config['teachers']['main']),
    'shapes': inputs,
    'parameters': nets['teacher'],
  }
  for called, distill in _distillations(case).items():
    losses, step = f'losses: {called}', f'distillation step: {called}'
    programs[losses], shapes, adapters = _losses(case, distill, batch)
    programs[step], traced = training_step(case, distill, batch, variables)
    facts[losses] = {
      'nets': 'adapters' if adapters else '',
      'shapes': shapes,
      'parameters': adapters,
    }
    facts[step] = {
      'nets': 'both',
      'shapes': inputs,
      'parameters': sum(nets.values()) + adapters,
      'traces': traced,
      'parts': (plain, forward),
    }
  distill = case.config['distill']
  kept = 'distillation step: soft targets, outputs kept'
  programs[kept], traced = training_step(
    case, distill, batch, variables, keep=True
  )
  facts[kept] = {
    'nets': 'student',
    'shapes': inputs,
    'parameters': nets['student'],
    'traces': traced,
    'parts': (plain,),
  }
  times = interleaved(programs, samples, stop, seconds=seconds, within=within)
  return measurement(
    f'Steps: {titled(case)}',
    [_row(name, facts[name], programs[name], times) for name in times],
  )


def measurement(
  name: str, table: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()
) -> dict[str, Any]:
  """What was measured, with where and of what.

  Args:
    name: what it is called.
    table: its rows.
    notes: what a reader must know to read it, a sentence each.
  """
  return {
    'name': name,
    'device': made_with.device(),
    'versions': made_with.versions(),
    'commit': made_with.commit(),
    'notes': list(notes),
    'rows': list(table),
  }


@contextlib.contextmanager
def unseen(name: str, steps: int) -> Iterator[Callable]:
  """A stage as `jaxkd.report.progress.Reporter` has them, shown nowhere."""
  yield lambda step, values: None


def interleaved(
  programs: Mapping[str, Program | Elsewhere],
  samples: int,
  stop: threading.Event | None = None,
  *,
  seconds: float = math.inf,
  within: float = math.inf,
  stage: Callable = unseen,
) -> dict[str, np.ndarray]:
  """Seconds of a call of each program, [samples], taken in turns.

  Compilation and warm-up are left out. A sample is the mean of a few calls
  where one is too short to be timed by itself; they follow one another
  without the host waiting for each, as in training. Where a program is of
  another process, each turn begins after a moment in which the threads of the
  one before come to rest.

  Args:
    programs: what to time, by name.
    samples: how many times of each to take.
    stop: when set, the measurement ends.
    seconds: about how long it may take; there are fewer samples where they
      would take longer, but `FEWEST` are taken all the same.
    within: seconds after which no other program is compiled: those that are
      left are not in what is returned. The first one always is.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
  """
  begun = time.perf_counter()
  timers, calls, a_round = {}, {}, 0.0
  rest = any(isinstance(program, Elsewhere) for program in programs.values())
  timed = _rested if rest else lambda timer, calls: timer(calls)
  with stage('warming up', len(programs)) as show:
    for number, (name, program) in enumerate(programs.items(), 1):
      check_stop(stop)
      if timers and time.perf_counter() - begun > within:
        break
      timers[name] = program.timer()
      for _ in range(WARM_UP):
        taken = timed(timers[name], 1)
      calls[name] = max(1, round(SAMPLE / taken))
      a_round += taken * calls[name]
      show(number, {})
  left = min(seconds, within) - (time.perf_counter() - begun)
  samples = min(samples, max(FEWEST, int(min(samples, left / a_round))))
  times = {name: np.empty(samples) for name in timers}
  with stage('measuring', samples) as show:
    for sample in range(samples):
      for name in timers:
        check_stop(stop)
        seconds = timed(timers[name], calls[name])
        times[name][sample] = seconds / calls[name]
      show(sample + 1, {})
  return times


def check_stop(stop: threading.Event | None) -> None:
  """Raises `Stopped` if `stop` was set."""
  if stop is not None and stop.is_set():
    raise Stopped('stopped while measuring; nothing was kept')


def frame(measured: Mapping[str, Any], more: str = '') -> Table:
  """A table without rows for the terminal, titled with the device."""
  return Table(
    title=f'{measured["name"]}, on {measured["device"]}{more}',
    title_style='bold',
    box=None,
    pad_edge=False,
  )


def table(measured: Mapping[str, Any]) -> Table:
  """A measurement for the terminal: medians, with the quartiles."""
  made = frame(measured)
  others = [
    name
    for name in dict.fromkeys(key for row in measured['rows'] for key in row)
    if name not in _TOGETHER
  ]
  made.add_column('program')
  for name in ('ms (quartiles)', *others):
    made.add_column(name, justify='right')
  for row in measured['rows']:
    about = ', '.join(filter(None, (row['nets'], row['shapes'])))
    made.add_row(
      Text.assemble(row['program'], (f'\n{about}', 'dim')),
      with_quartiles(row),
      *(wording.plain(row.get(name)) for name in others),
    )
  return made


def with_quartiles(row: Mapping[str, Any]) -> str:
  """The milliseconds of a row for the terminal."""
  middle, low, high = (
    f'{float(f"{row[name]:.3g}"):,g}'
    for name in ('ms', 'lower quartile', 'upper quartile')
  )
  return f'{middle} ({low}–{high})'


def save(path: str | Path, measured: Sequence[Mapping[str, Any]]) -> None:
  """Writes measurements, whole or not at all.

  Raises:
    UserError: the file cannot be written.
  """
  path = files.path(path, at='--out')
  held = rows.plain(list(measured))
  rows.check_shape(held, report.SCHEMA, str(path))
  draft = path.with_name(f'.{path.name}.draft')
  try:
    draft.write_text(
      json.dumps(held, indent=1, ensure_ascii=False) + '\n', encoding='utf-8'
    )
    draft.replace(path)
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror}; choose another file'
    ) from error


def check_out(path: str | Path) -> None:
  """Checks before measuring whether `save` will work.

  Raises:
    UserError: the file cannot be written.
  """
  path = files.path(path, at='--out')
  if path.is_dir():
    raise UserError(f'{path} is a folder; name a file in it')
  draft = path.with_name(f'.{path.name}.draft')
  try:
    draft.touch()
    draft.unlink()
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror}; choose another file'
    ) from error


def store(
  measured: Iterable[Mapping[str, Any]],
  kind: str,
  directory: str | Path = 'benchmarks/speed',
) -> Path:
  """Keeps measurements where BENCHMARKS.md finds them.

  Each device has a file of its own for each kind of measurement. What is
  there under the same name is replaced, other names stay.

  Args:
    measured: all of this device.
    kind: e.g. 'steps'.
    directory: where the repository keeps them.

  Returns:
    The file.

  Raises:
    UserError: the script does not run where the repository is, or the file
      is damaged or cannot be written.
  """
  path, held = stored(kind, directory)
  held |= {entry['name']: entry for entry in measured}
  save(path, list(held.values()))
  return path


def stored(
  kind: str, directory: str | Path = 'benchmarks/speed'
) -> tuple[Path, dict[str, Any]]:
  """The file of `store`, checked, and the measurements in it by name."""
  directory = Path(directory)
  if not directory.parent.is_dir():
    raise UserError(
      f'--store: there is no folder {directory.parent} here; run this where '
      'the repository is, or write to a file with --out'
    )
  device = re.sub(r'[^a-z0-9]+', '-', made_with.device().lower()).strip('-')
  path = directory / f'{device}_{kind}.json'
  held = {}
  if path.exists():
    there = rows.load_json(path)
    rows.check_shape(there, report.SCHEMA, str(path))
    held = {entry['name']: entry for entry in there}
  try:
    directory.mkdir(exist_ok=True)
  except OSError as error:
    raise UserError(
      f'--store: {directory} cannot be made: {error.strerror}'
    ) from error
  check_out(path)
  return path, held


def images(
  teacher: str,
  student: str,
  batch_size: int,
  *,
  side: int = 32,
  num_classes: int = 100,
  dtype: str = 'float32',
) -> Case:
  """Nets on images of colours, trained as CIFAR-100 usually is.

  Args:
    teacher: its model.
    student: the student's model.
    batch_size: images in a step.
    side: their height and width in pixels.
    num_classes: the number of logits.
    dtype: what the nets compute in.
  """
  config = configs.complete(
    {
      'teachers': {'main': {'model': teacher}},
      'students': {'student': {'model': student}},
      'distill': {
        'labels': {'loss': 'cross_entropy', 'weight': 0.1},
        'soft': {
          'loss': 'kl',
          'teacher': 'main',
          'weight': 0.9,
          'kw': {'temperature': 4.0},
        },
      },
      'train': {
        'optimizer': {'name': 'sgd', 'kw': {'momentum': 0.9}},
        'learning_rate': 0.05,
        'batch_size': batch_size,
        'dtype': dtype,
      },
    }
  )
  name = f'{teacher}-{student}'
  layers = ('stages/2', 'stages/2')
  shape = (side, side, 3)
  return Case(name, configs.plain(config), shape, num_classes, layers)


def titled(case: Case) -> str:
  """The name of a case, and what it computes in where that is not usual."""
  dtype = case.config['train']['dtype']
  return case.name if dtype == 'float32' else f'{case.name}, {dtype}'


def plain_step(
  case: Case, batch: dict, variables: dict
) -> tuple[Program, Callable[[], int]]:
  """The student's step on the labels alone, see `training_step`."""
  labels = {**case.config['distill']['labels'], 'weight': 1.0}
  return training_step(case, {'labels': labels}, batch, variables)


def _distillations(case: Case) -> dict[str, dict]:
  """The complete terms of each way of distilling, by what it is called."""
  distill = case.config['distill']
  hint = {
    'loss': 'hint',
    'at': case.hint,
    'teacher': 'main',
    'adapter': 'linear',
  }
  made = configs.complete({**case.config, 'distill': {**distill, 'hint': hint}})
  return {
    'soft targets': distill,
    'soft targets + hint': configs.plain(made.distill),
  }


def _source(case: Case) -> Source:
  """The shapes of the data, without any."""
  return Source(case.name, {}, case.num_classes, case.input_shape, ())


def role_of(case: Case, section: str, name: str, locations: set[str]) -> Role:
  """A net of a case, with the outputs of these locations."""
  return build.role(
    case.config[section][name],
    _source(case),
    {},
    at=f'{section}.{name}',
    dtype=case.config['train']['dtype'],
    locations=locations,
  )


def synthetic(case: Case) -> dict[str, jax.Array]:
  """A synthetic batch on the device."""
  size = case.config['train']['batch_size']
  keys = jax.random.split(jax.random.key(0))
  return {
    'inputs': jax.random.normal(keys[0], (size, *case.input_shape)),
    'labels': jax.random.randint(keys[1], (size,), 0, case.num_classes),
    'id': jnp.arange(size, dtype=jnp.int32),
    'epoch': jnp.zeros((size,), jnp.int32),
  }


def outputs(
  case: Case, section: str, name: str, locations: Iterable[str]
) -> dict[str, jax.Array]:
  """Numbers shaped as what a net gives at some locations, by location.

  Args:
    case: the nets.
    section: of the config, 'students' or 'teachers'.
    name: of the role in it.
    locations: names of outputs and paths of layers.
  """
  role = role_of(case, section, name, set(locations))
  key = jax.random.key(2)
  shapes = jax.eval_shape(
    lambda x: role.net.apply(role.net.init(key), x)[0],
    synthetic(case)['inputs'],
  )
  return {
    place: jax.random.normal(
      folding.fold(key, section, place),
      shapes[place].shape,
      shapes[place].dtype,
    )
    for place in sorted(locations)
  }


def training_step(
  case: Case,
  distill: dict,
  batch: dict,
  variables: dict,
  *,
  keep: bool = False,
  examples: int = 0,
  teachers: int = 1,
) -> tuple[Program, Callable[[], int]]:
  """A member's step as training runs it, and how often it was traced.

  Args:
    case: the nets.
    distill: the complete terms.
    batch: what every step sees.
    variables: of the teacher.
    keep: whether every step looks up what the teacher gives, once it is kept.
    examples: how many the data has, for terms that remember each of them; 0
      for those of the batch alone.
    teachers: how many the group has, all with the same variables.
  """
  seen = {
    section: {*build.locations(distill, name, teacher=section == 'teachers')}
    for section, name in (('students', 'student'), ('teachers', 'main'))
  }
  role = role_of(case, 'teachers', 'main', seen['teachers'])
  if keep:
    role = role._replace(cache=CacheSpec(tuple(seen['teachers'])))
  group = Group(
    role, jax.tree.map(lambda x: jnp.stack([x] * teachers), variables)
  )
  job = Job(
    stage='',
    students={
      'student': role_of(case, 'students', 'student', seen['students'])
    },
    groups={'main': group},
    distill=distill,
    train=case.config['train'],
    seeds=[0],
    weights=np.ones((1, examples or len(batch['id']))),
    order='shared',  # so that the batch has no axis of members to be cut
  )
  session = Session(_source(case), {}, Path(), progress=None)
  look = lambda: {}  # noqa: E731
  if keep:
    look = _kept(session, job, batch)
    batch = {**batch, **look()}
  learner = train_job.learner_of(session, job, batch)
  frozen, _ = job_groups.frozen_of(job_groups.used_groups(job))
  traces = []

  def counted(*arguments):
    traces.append(True)
    return learner.step(*arguments)

  population = Population(
    learner._replace(step=counted),
    seeds=job.seeds,
    shared=frozen,
    batch_axis=None,
    mode='sequence',
  )
  totals = population.split(population.no_totals(batch))
  traces.clear()  # those of the shapes alone
  carry = jax.eval_shape(learner.init, np.uint32(0), {}, frozen)
  program = Program(
    lambda state: population.step(*state, {**batch, **look()}),
    (population.init(), totals),
    cost.flops(learner.step, carry, batch, frozen, {}),
  )
  return program, lambda: len(traces)


def _kept(session: Session, job: Job, batch: dict) -> Callable[[], dict]:
  """Caches the teachers' outputs for a batch; returns what looks them up."""
  fields = jax.device_get({n: batch[n] for n in ('inputs', 'labels')})
  splits = {'train': ArrayExamples(**fields)}
  with tempfile.TemporaryDirectory() as folder:
    batches = train_job.batches_of(
      session._replace(
        source=session.source._replace(splits=splits),
        directory=Path(folder, 'checkpoints'),
      ),
      job,
    )
    batches.keep(unseen, lambda text: None)  # small enough to be held
  numbers = np.asarray(batch['id'])
  outputs = batches.outputs.items()
  return lambda: {'cached_outputs': {n: x.look(0, numbers) for n, x in outputs}}


def _losses(case: Case, distill: dict, batch: dict) -> tuple[Program, str, int]:
  """The terms alone, forward and backward, on arrays of the nets' shapes.

  Returns:
    The program, the shapes that the terms look at, and the number of the
    adapters' parameters.
  """
  entries = terms.build(distill, ['student'])
  key = jax.random.key(2)

  def looked_at(section, name):
    wanted = {*build.locations(distill, name, teacher=section == 'teachers')}
    return outputs(case, section, name, wanted)

  student = looked_at('students', 'student')
  teacher = looked_at('teachers', 'main')
  context = Context(
    batch,
    student,
    {'main': jax.tree.map(lambda x: x[None], teacher)},
    jnp.zeros((), jnp.int32),
    key,
    batch['inputs'],
  )
  params, state = {}, {}
  for name, entry in entries.items():
    params[name], state[name] = entry.init(key, context)

  def gradients(params, state, context):
    def total(params, student):
      given = context._replace(student=student)
      each = [
        entry.loss(params[name], state[name], given)[0].mean()
        for name, entry in entries.items()
      ]
      return sum(each)

    return jax.grad(total, (0, 1))(params, context.student)

  shapes = sorted(
    {by(*x.shape) for x in (*student.values(), *teacher.values())}
  )
  program = again(gradients, params, state, context)
  return program, ', '.join(shapes), models.count(params)


def again(
  function: Callable, *arguments: Any, jit: Callable = compilation.jit
) -> Program:
  """A function called again and again with the same arguments.

  It is handed what it gave before, and its memory, though it needs neither:
  so one call waits for another, and none is allocated. `jit` compiles it.
  """
  shapes = jax.eval_shape(function, *arguments)
  run = jit(
    lambda previous, *arguments: function(*arguments),
    donate_argnums=0,
    keep_unused=True,
  )
  return Program(
    lambda state: run(state, *arguments),
    jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
    cost.flops(function, *arguments),
  )


def _rested(timer: Callable[[int], float], calls: int) -> float:
  """What a timer says after a rest, in which no thread spins any more."""
  time.sleep(REST)
  return timer(calls)


def milliseconds(times: np.ndarray) -> dict[str, float]:
  """The median and quartiles of times in seconds, as rows hold them."""
  quantiles = 1e3 * np.quantile(times, (0.5, 0.25, 0.75))
  names = 'ms', 'lower quartile', 'upper quartile'
  return dict(zip(names, quantiles.round(6).tolist(), strict=True))


def _row(
  name: str,
  facts: Mapping[str, Any],
  program: Program,
  times: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  ratio = None
  if 'parts' in facts:
    parts = sum(times[part] for part in facts['parts'])
    ratio = round(float(np.median(times[name] / parts)), 4)
  return {
    'program': name,
    'nets': facts['nets'],
    'shapes': facts['shapes'],
    'parameters': facts['parameters'],
    'MFLOPs': round(program.flops / 1e6, 3),
    **milliseconds(times[name]),
    'ratio': ratio,
    'traces': facts['traces']() if 'traces' in facts else None,
  }


def size_of(role: Role) -> int:
  """The number of a net's parameters."""
  return models.count(
    jax.eval_shape(role.net.init, jax.random.key(0))['params']
  )


def _label(entry: Mapping[str, Any]) -> str:
  """A model and its options, but for those that are off."""
  options = [f'{k}={v}' for k, v in sorted(entry['kw'].items()) if v]
  return entry['model'] + (f'({", ".join(options)})' if options else '')


def by(*sizes: int) -> str:
  """A shape in print."""
  return '×'.join(map(str, sizes))
