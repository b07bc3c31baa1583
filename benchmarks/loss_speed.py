"""The cost of every loss alone: its time, its memory, its share of a step.

Each public loss of `jaxkd.losses` is differentiated with respect to the
student's side, at the shapes of a teacher and a student of one case. Its
arguments are chosen by name from `inputs`; a new loss whose arguments have the
names of the others' needs no code here.
"""

import inspect
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Group
from rich.text import Text

from benchmarks import speed
from benchmarks.speed import Case
from jaxkd import losses
from jaxkd.errors import UserError
from jaxkd.report import wording

SECONDS = 150  # that a measurement may take, or about that
NUM_DATA, NEGATIVES, PROJECTED = 50_000, 16_384, 128  # of CRD, by its authors
FRAMES, SPOKEN = 100, 20  # frames and tokens of an utterance, for CTC

_MAPS = 'stages/0', 'stages/1', 'stages/2'
_LAST = _MAPS[-1]
# What `student` and `teacher` are, by module; and the losses that differ.
_PLACES = {
  'responses': 'logits',
  'regression': 'logits',
  'sampled': 'logits',
  'features': _LAST,
  'relations': 'embedding',
  'information': 'embedding',
  'maximum_mean_discrepancy': 'embedding',
  'similarity_preserving': _LAST,
  'inter_channel_correlation': _LAST,
  'pairwise_affinity': _LAST,
  'variational_information': _LAST,
}
# The arguments that the student trains through.
_STUDENTS = (
  *('student', 'student_pair', 'student_maps', 'logits', 'mean', 'raw_scale'),
  *('anchor', 'fake', 'fake_scores'),
)
# Parts of losses; so is all of the module of targets.
_PARTS = (
  *('standardize', 'overhaul_margin', 'contrastive_normalizer'),
  'reverse_gradient',
)


def usual() -> Case:
  """The nets that losses are measured for: those of most published tables."""
  return speed.images('resnet32x4', 'resnet8x4', 64)


def is_loss(name: str) -> bool:
  """Whether a public function is a loss, not a target, a weight or a part."""
  return name not in _PARTS and _module(name) != 'targets'


def inputs(case: Case) -> dict[str, Any]:
  """The arguments of losses, by name.

  `student` and `teacher` are dicts of what the nets give, by location. What
  is no array is an option, which is not traced.

  Args:
    case: residual nets of three stages and of the same widths.
  """
  places = ('logits', 'embedding', *_MAPS)
  student = speed.outputs(case, 'students', 'student', places)
  teacher = speed.outputs(case, 'teachers', 'main', places)
  batch, *positions, channels = student[_LAST].shape
  draws = iter(jax.random.split(jax.random.key(3), 16))

  def normal(*shape):
    return jax.random.normal(next(draws), shape)

  classes = student['logits'].shape[-1]
  spoken = jax.random.randint(next(draws), (batch, SPOKEN), 4, max(5, classes))
  width = student['embedding'].shape[-1]
  weights = normal(width, width) / width**0.5
  values = jax.random.normal(jax.random.key(5), (batch, classes))
  return {
    'student': student,
    'teacher': teacher,
    'logits': student['logits'],
    'teachers': (teacher['embedding'],),
    'labels': speed.synthetic(case)['labels'],
    'sampled_log_probs': -jnp.abs(normal(batch)),
    'student_pair': tuple(student[place] for place in _MAPS[1:]),
    'teacher_pair': tuple(teacher[place] for place in _MAPS[1:]),
    'student_maps': tuple(student[place] for place in _MAPS),
    'teacher_maps': tuple(teacher[place] for place in _MAPS),
    'margin': -jnp.abs(normal(channels)),
    'mask': normal(batch, *positions) > 0,
    'mean': student[_LAST],
    'raw_scale': normal(channels),
    'anchor': normal(batch, PROJECTED),
    'positive': normal(batch, PROJECTED),
    'negatives': normal(batch, NEGATIVES, PROJECTED),
    'normalizer': float(NUM_DATA),
    'num_data': NUM_DATA,
    'real_scores': normal(batch),
    'fake_scores': normal(batch),
    'key': jax.random.key(4),
    'critic': lambda x: jnp.mean(jnp.tanh(x @ weights), axis=1),
    'real': teacher['embedding'],
    'fake': student['embedding'],
    # What has the name of another's and another shape, by loss.
    'ctc': {'logits': normal(batch, FRAMES, classes), 'labels': spoken},
    'binary_cross_entropy': {'labels': (values > 0).astype(jnp.float32)},
    'squared_error': {'labels': values},
    'teacher_bounded': {'labels': values},
    # Options without which a loss has nothing to compare, by loss.
    'top_k_kl': {'k': 10},
  }


def arguments(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
  """What one loss is given: its arguments without a default, and its own.

  Args:
    name: of a loss of `jaxkd.losses`.
    inputs: as `inputs` gives them.

  Raises:
    UserError: an argument that there is nothing for.
  """
  given = {}
  own = inputs.get(name, {})
  inputs = {**inputs, **own}
  here = f'in {__name__.replace(".", "/")}.py'
  for p in inspect.signature(getattr(losses, name)).parameters.values():
    if p.default is not p.empty and p.name not in own:
      continue
    if p.name not in inputs:
      raise UserError(
        f'jaxkd.losses.{name}: the benchmark of losses has nothing for the '
        f'argument {p.name!r}; add it to inputs() {here}, or the function to '
        '_PARTS if it is no loss'
      )
    given[p.name] = inputs[p.name]
    if p.name in ('student', 'teacher'):
      place = _PLACES.get(name, _PLACES.get(_module(name)))
      if place is None:
        raise UserError(
          f'jaxkd.losses.{name}: the benchmark of losses does not know what '
          f'the losses of the module {_module(name)} look at; add it to '
          f'_PLACES {here}'
        )
      given[p.name] = given[p.name][place]
  if not set(given).intersection(_STUDENTS):
    raise UserError(
      f'jaxkd.losses.{name}: none of its arguments {", ".join(given)} is the '
      f"student's; add the one that is to _STUDENTS {here}"
    )
  return given


def differentiated(
  name: str, given: Mapping[str, Any]
) -> tuple[Callable, dict, dict]:
  """The value and slope of a loss, its mean over all that it gives.

  Args:
    name: of a loss of `jaxkd.losses`.
    given: as `arguments` gives it.

  Returns:
    ``(student's side, other arrays) -> (value, slope)``, and both arguments.
  """
  arrays = {k: v for k, v in given.items() if _is_arrays(v)}
  options = {k: v for k, v in given.items() if k not in arrays}
  own = {k: v for k, v in arrays.items() if k in _STUDENTS}
  others = {k: v for k, v in arrays.items() if k not in own}

  def mean(own, others):
    return jnp.mean(getattr(losses, name)(**own, **others, **options))

  return jax.value_and_grad(mean), own, others


def temporaries(function: Callable, *arguments: Any) -> float | None:
  """MiB that a function takes beside its arguments and results, at its peak.

  As the compiler lays them out, not as measured; None where it does not say.
  """
  # Not of the program that is timed: what that one is handed to write to
  # cannot serve as a temporary.
  compiled = jax.jit(function).lower(*arguments).compile()
  analysis = compiled.memory_analysis()
  return analysis and round(analysis.temp_size_in_bytes / 2**20, 4)


def measure(
  case: Case,
  samples: int,
  stop: threading.Event | None = None,
  *,
  seconds: float = SECONDS,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Times and memory of every loss, and of the student's plain step.

  Args:
    case: see `inputs`.
    samples: how many times of each to take, or fewer, see `seconds`.
    stop: when set, the measurement ends.
    seconds: about how long it may take with what it compiles, see
      `benchmarks.speed.interleaved`.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Returns:
    The measurement: a row for each loss, with its median and quartiles in
    milliseconds, its temporaries in MiB, and its share of the plain step in
    percent, the median over rounds.

  Raises:
    Stopped: `stop` was set.
  """
  begun = time.perf_counter()
  found = inputs(case)
  names = sorted(filter(is_loss, losses.__all__), key=_module_first)
  step = f'plain step of {case.config["students"]["student"]["model"]}'
  batch = speed.synthetic(case)
  plain, _ = speed.plain_step(case, batch, {})
  programs, memory = {step: plain}, {step: None}
  facts = {step: {'kind': '', 'shapes': speed.by(*batch['inputs'].shape)}}
  with stage('compiling', len(names)) as show:
    for number, name in enumerate(names, 1):
      speed.check_stop(stop)
      function, own, others = differentiated(name, arguments(name, found))
      programs[name] = speed.again(function, own, others)
      memory[name] = temporaries(function, own, others)
      shapes = [speed.by(*x.shape) for x in jax.tree.leaves(own)]
      facts[name] = {'kind': _module(name), 'shapes': ', '.join(shapes)}
      show(number, {})
  times = speed.interleaved(
    programs,
    samples,
    stop,
    seconds=seconds - (time.perf_counter() - begun),
    stage=stage,
  )
  return speed.measurement(
    f'Losses: {case.name}',
    [
      {
        'loss': name,
        **facts[name],
        **speed.milliseconds(times[name]),
        'temporary MiB': memory[name],
        '% of a step': _percent(times[name] / times[step]),
      }
      for name in programs
    ],
    _notes(found, len(times[step])),
  )


def table(measured: Mapping[str, Any]) -> Group:
  """A measurement for the terminal."""
  made = speed.frame(measured)
  made.add_column('loss', no_wrap=True)
  made.add_column('shapes', style='dim')
  made.add_column('ms (quartiles)', justify='right', no_wrap=True)
  for name in ('MiB', '% of\na step'):
    made.add_column(name, justify='right', no_wrap=True)
  kind = ''
  for row in measured['rows']:
    if row['kind'] != kind:
      kind = row['kind']
      made.add_row(Text(f'\n{kind}', 'dim'))
    made.add_row(
      row['loss'],
      row['shapes'],
      speed.with_quartiles(row),
      wording.plain(row['temporary MiB']),
      wording.plain(row['% of a step']),
    )
  notes = (Text(f'- {note}', 'dim') for note in measured['notes'])
  return Group(made, Text(), *notes)


def _notes(found: Mapping[str, Any], rounds: int) -> list[str]:
  """What a reader of the figures must know."""
  others = ', '.join(name for name in losses.__all__ if not is_loss(name))
  negatives = speed.by(*found['negatives'].shape)
  uncounted = ''
  if jax.default_backend() == 'cpu':
    uncounted = ', which leaves out what the library YNNPACK takes for itself'
  return [
    "Value and gradient of the loss's mean, by the student's side, whose "
    f'shapes are shown; medians of {rounds} rounds.',
    "Losses on features are on the last stage's map, flow_of_solution on the "
    'last two and hierarchical_context on all three; relations between '
    'examples are on the pooled embedding, similarity_preserving on the last '
    f'map. The negatives of contrastive are {negatives}.',
    'Temporaries (MiB) are what the compiled program needs at its peak beside '
    'its arguments and results, as its own analysis has it'
    f'{uncounted}. The share is of the plain step, which has the '
    "net's forward and backward pass, the cross-entropy and the update.",
    f'Not losses, and not measured: {others}.',
  ]


def _module(name: str) -> str:
  return getattr(losses, name).__module__.rpartition('.')[2]


def _module_first(name: str) -> int:
  """Sorts by module, in the order in which the public names have them."""
  modules = list(dict.fromkeys(map(_module, losses.__all__)))
  return modules.index(_module(name))


def _is_arrays(x: Any) -> bool:
  return all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x))


def _percent(shares: np.ndarray) -> float:
  return round(100 * float(np.median(shares)), 4)
