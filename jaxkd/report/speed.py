"""Steady-state times of steps, measured on whatever device is there.

Programs that are to be compared are timed in turns, A B C A B C..., so that
the drift of a shared machine hits all of them alike. A measurement is a dict
of the form of `jaxkd.report.tables.SPEED_SCHEMA`, which BENCHMARKS.md shows.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table
from rich.text import Text

from jaxkd import config as configs
from jaxkd import models
from jaxkd.data.sources import Source
from jaxkd.distill import roles, terms, training
from jaxkd.distill.step import Role
from jaxkd.distill.training import Group
from jaxkd.errors import UserError
from jaxkd.models import cost
from jaxkd.report import record, rows, tables, wording
from jaxkd.train.fit import Stopped
from jaxkd.train.population import Population
from jaxkd.types import Context

WARM_UP = 3  # calls before the first that counts; the first one compiles
# What the terminal shows in two columns.
_TOGETHER = (
  'program', 'nets', 'shapes', 'ms', 'lower quartile', 'upper quartile'
)  # fmt: skip

SAMPLE = 0.005  # seconds; a sample is as many calls as take about that long


class Program(NamedTuple):
  """Something to time.

  Attributes:
    call: ``(state) -> state``, compiled. The state is donated, as training
      donates it, and makes each call wait for the one before.
    state: what the first call is given; it does not outlive it.
    flops: of a call, as the compiler counts them.
  """

  call: Callable[[Any], Any]
  state: Any
  flops: int


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


def cases(demo: Mapping[str, Any]) -> dict[str, Case]:
  """What is measured by default, by name; the largest for accelerators alone.

  Args:
    demo: the config of the demo, whose nets see digits of 8×8 pixels.
  """
  made = [
    Case('demo', configs.plain(demo), (8, 8, 1), 10, ('layers/0', 'layers/1')),
    _images('resnet20', 'resnet8', 64),
  ]
  if jax.default_backend() != 'cpu':
    made.append(_images('resnet32x4', 'resnet8x4', 256))
  return {case.name: case for case in made}


def steps(
  case: Case, samples: int, stop: threading.Event | None = None
) -> dict[str, Any]:
  """Times of a plain step, a teacher's pass, a distillation step, its losses.

  The ratio of a distillation step is its time over that of the plain step and
  the teacher's forward pass together: what distilling costs beyond them. The
  three are those of the same round, and the ratio is the median over rounds.

  Args:
    case: the nets and shapes. The batch is synthetic, on the device.
    samples: how many times of each program to take.
    stop: when set, the measurement ends.

  Returns:
    ``{'name', 'device', 'rows'}``, a row for each program with its median and
    quartiles in milliseconds.

  Raises:
    Stopped: `stop` was set.
  """
  batch = _batch(case)
  teacher = _role(case, 'teachers', 'main', {'logits'})
  student = _role(case, 'students', 'student', {'logits'})
  variables = jax.jit(teacher.net.init)(jax.random.key(1))
  inputs = _by(case.config['train']['batch_size'], *case.input_shape)
  plain, forward = 'plain step', 'teacher forward'
  nets = {'student': _size(student), 'teacher': _size(teacher)}
  programs, facts = {}, {}

  programs[plain], traced = _step(case, _labels_only(case), batch, variables)
  facts[plain] = {
    'nets': _label(case.config['students']['student']),
    'shapes': inputs,
    'parameters': nets['student'],
    'traces': traced,
  }
  programs[forward] = _again(
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
    programs[step], traced = _step(case, distill, batch, variables)
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
  times = interleaved(programs, samples, stop)
  return {
    'name': f'Steps: {case.name}',
    'device': record.device(),
    'rows': [
      _row(name, facts[name], programs[name], times) for name in programs
    ],
  }


def interleaved(
  programs: Mapping[str, Program],
  samples: int,
  stop: threading.Event | None = None,
) -> dict[str, np.ndarray]:
  """Seconds of a call of each program, [samples], taken in turns.

  Compilation and warm-up are left out. A sample is the mean of a few calls
  where one is too short to be timed by itself; they follow one another
  without the host waiting for each, as in training.

  Raises:
    Stopped: `stop` was set.
  """
  states, calls = {}, {}
  for name, program in programs.items():
    state = program.state
    for _ in range(WARM_UP):
      state, seconds = _timed(program.call, state, 1)
    states[name], calls[name] = state, max(1, round(SAMPLE / seconds))
  times = {name: np.empty(samples) for name in programs}
  for sample in range(samples):
    for name, program in programs.items():
      if stop is not None and stop.is_set():
        raise Stopped('stopped while measuring; nothing was kept')
      states[name], times[name][sample] = _timed(
        program.call, states[name], calls[name]
      )
  return times


def table(measured: Mapping[str, Any]) -> Table:
  """A measurement for the terminal: medians, with the quartiles."""
  made = Table(
    title=f'{measured["name"]}, on {measured["device"]}',
    title_style='bold',
    box=None,
    pad_edge=False,
  )
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
    low, high = row['lower quartile'], row['upper quartile']
    made.add_row(
      Text.assemble(row['program'], (f'\n{about}', 'dim')),
      f'{row["ms"]:.3g} ({low:.3g}–{high:.3g})',
      *(wording.plain(row.get(name)) for name in others),
    )
  return made


def save(path: str | Path, measured: Sequence[Mapping[str, Any]]) -> None:
  """Writes measurements, whole or not at all.

  Raises:
    UserError: the file cannot be written.
  """
  path, held = Path(path), rows.plain(list(measured))
  rows.check_shape(held, tables.SPEED_SCHEMA, str(path))
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
  directory = Path(directory)
  if not directory.parent.is_dir():
    raise UserError(
      f'--store: there is no folder {directory.parent} here; run this where '
      'the repository is, or write to a file with --out'
    )
  device = re.sub(r'[^a-z0-9]+', '-', record.device().lower()).strip('-')
  path = directory / f'{device}_{kind}.json'
  held = {}
  if path.exists():
    there = rows.load_json(path)
    rows.check_shape(there, tables.SPEED_SCHEMA, str(path))
    held = {entry['name']: entry for entry in there}
  try:
    directory.mkdir(exist_ok=True)
  except OSError as error:
    raise UserError(
      f'--store: {directory} cannot be made: {error.strerror}'
    ) from error
  held |= {entry['name']: entry for entry in measured}
  save(path, list(held.values()))
  return path


def _images(teacher: str, student: str, batch_size: int) -> Case:
  """Nets on images of 32×32 pixels, trained as CIFAR-100 usually is."""
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
      },
    }
  )
  name = f'{teacher}-{student}'
  layers = ('stages/2', 'stages/2')
  return Case(name, configs.plain(config), (32, 32, 3), 100, layers)


def _labels_only(case: Case) -> dict:
  return {'labels': {**case.config['distill']['labels'], 'weight': 1.0}}


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


def _role(case: Case, section: str, name: str, locations: set[str]) -> Role:
  return roles.role(
    case.config[section][name],
    _source(case),
    at=f'{section}.{name}',
    dtype=case.config['train']['dtype'],
    locations=locations,
  )


def _batch(case: Case) -> dict[str, jax.Array]:
  """A synthetic batch on the device."""
  size = case.config['train']['batch_size']
  keys = jax.random.split(jax.random.key(0))
  return {
    'inputs': jax.random.normal(keys[0], (size, *case.input_shape)),
    'labels': jax.random.randint(keys[1], (size,), 0, case.num_classes),
    'id': jnp.arange(size, dtype=jnp.int32),
    'epoch': jnp.zeros((size,), jnp.int32),
  }


def _step(
  case: Case, distill: dict, batch: dict, variables: dict
) -> tuple[Program, Callable[[], int]]:
  """A member's step as training runs it, and how often it was traced.

  Args:
    case: the nets.
    distill: the complete terms.
    batch: what every step sees.
    variables: of the teacher.
  """
  seen = {
    section: roles.locations(distill, name, teacher=section == 'teachers')
    for section, name in (('students', 'student'), ('teachers', 'main'))
  }
  group = Group(
    _role(case, 'teachers', 'main', seen['teachers']),
    jax.tree.map(lambda x: x[None], variables),
  )
  job = training.Job(
    stage='',
    students={'student': _role(case, 'students', 'student', seen['students'])},
    groups={'main': group},
    distill=distill,
    train=case.config['train'],
    seeds=[0],
    weights=np.ones((1, len(batch['id']))),
    order='shared',  # so that the batch has no axis of members to be cut
  )
  session = training.Session(_source(case), {}, Path(), progress=None)
  learner = training.learner_of(session, job, batch)
  frozen, _ = training.frozen_of(training.used_groups(job))
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
    lambda state: population.step(*state, batch),
    (population.init(), totals),
    cost.flops(learner.step, carry, batch, frozen, {}),
  )
  return program, lambda: len(traces)


def _losses(case: Case, distill: dict, batch: dict) -> tuple[Program, str, int]:
  """The terms alone, forward and backward, on arrays of the nets' shapes.

  Returns:
    The program, the shapes that the terms look at, and the number of the
    adapters' parameters.
  """
  entries = terms.build(distill, ['student'])
  key = jax.random.key(2)

  def arrays(section, name):
    """Numbers shaped as what the terms look at of a net's outputs."""
    wanted = roles.locations(distill, name, teacher=section == 'teachers')
    role = _role(case, section, name, wanted)
    outputs = jax.eval_shape(
      lambda x: role.net.apply(role.net.init(key), x)[0], batch['inputs']
    )
    return {
      name: jax.random.normal(key, outputs[name].shape, outputs[name].dtype)
      for name in sorted(wanted)
    }

  student, teacher = arrays('students', 'student'), arrays('teachers', 'main')
  context = Context(
    batch,
    student,
    {'main': jax.tree.map(lambda x: x[None], teacher)},
    jnp.zeros((), jnp.int32),
    key,
  )
  params, state = {}, {}
  for name, entry in entries.items():
    params[name], state[name] = entry.term.init(key, context)

  def gradients(params, state, context):
    def total(params, outputs):
      given = context._replace(student=outputs)
      each = [
        entry.term.loss(params[name], state[name], given)[0].mean()
        for name, entry in entries.items()
      ]
      return sum(each)

    return jax.grad(total, (0, 1))(params, context.student)

  shapes = sorted(
    {_by(*x.shape) for x in (*student.values(), *teacher.values())}
  )
  program = _again(gradients, params, state, context)
  return program, ', '.join(shapes), models.count(params)


def _again(function: Callable, *arguments: Any) -> Program:
  """A function called again and again with the same arguments.

  It is handed what it gave before, and its memory, though it needs neither:
  so one call waits for another, and none is allocated.
  """
  shapes = jax.eval_shape(function, *arguments)
  run = jax.jit(
    lambda previous, *arguments: function(*arguments),
    donate_argnums=0,
    keep_unused=True,
  )
  return Program(
    lambda state: run(state, *arguments),
    jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
    cost.flops(function, *arguments),
  )


def _timed(call: Callable, state: Any, calls: int) -> tuple[Any, float]:
  """The state after some calls, and the seconds that each took."""
  begun = time.perf_counter()
  for _ in range(calls):
    state = call(state)
  jax.block_until_ready(state)
  return state, (time.perf_counter() - begun) / calls


def _row(
  name: str,
  facts: Mapping[str, Any],
  program: Program,
  times: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  low, median, high = 1e3 * np.quantile(times[name], (0.25, 0.5, 0.75))
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
    'ms': round(median, 6),
    'lower quartile': round(low, 6),
    'upper quartile': round(high, 6),
    'ratio': ratio,
    'traces': facts['traces']() if 'traces' in facts else None,
  }


def _size(role: Role) -> int:
  return models.count(
    jax.eval_shape(role.net.init, jax.random.key(0))['params']
  )


def _label(entry: Mapping[str, Any]) -> str:
  """A model and its options, but for those that are off."""
  options = [f'{k}={v}' for k, v in sorted(entry['kw'].items()) if v]
  return entry['model'] + (f'({", ".join(options)})' if options else '')


def _by(*sizes: int) -> str:
  return '×'.join(map(str, sizes))
