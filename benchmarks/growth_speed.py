"""How cost grows with the work, as curves.

Members of a population, classes of a loss on logits, examples of a batch whose
relations are compared, teachers of a group, examples of the data, and terms of
the loss. A part takes about as long as it is allowed: its curves end where the
next point would go beyond that, or beyond the memory that is allowed.
"""

import inspect
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from benchmarks import loss_speed, population_speed, speed
from benchmarks.population_speed import compiled_afresh, rounded
from benchmarks.speed import Case
from jaxkd import compilation, losses
from jaxkd.data import fingerprint, loader, sources
from jaxkd.errors import UserError
from jaxkd.report import wording
from jaxkd.run import config as configs
from jaxkd.train import sharding

NAME = 'Growth: '  # what the names of these measurements begin with
SECONDS = 180  # that a part may take, or about that
MIB = 2048  # of temporaries that a program may take
BATCH, WIDTH = 64, 64  # of logits, and of embeddings
# Parts, and how far each goes.
PARTS = {
  'members': (1, 2, 4, 8, 16, 32, 64),
  'classes': (10, 100, 1_000, 10_000, 100_000),
  'batch': (16, 32, 64, 128, 256, 512, 1024),
  'teachers': (1, 2, 4, 8, 16),
  'examples': (1_000, 10_000, 100_000, 1_000_000),
  'terms': (1, 2, 4, 8, 12),
}
# Losses on logits and relations between examples that are drawn; each stands
# for others that cost the same.
_LOGITS = (
  'cross_entropy', 'kl', 'decoupled_kl', 'dist', 'multi_level_logits',
  'top_k_kl',
)  # fmt: skip
_RELATIONS = (
  'rkd_distance', 'rkd_angle', 'similarity_preserving',
  'probabilistic_transfer', 'correlation_congruence',
)  # fmt: skip
# Terms of the demo's nets, in the order in which they are added.
_TERMS = (
  ('labels', {'loss': 'cross_entropy'}),
  ('soft', {'loss': 'kl'}),
  ('decoupled', {'loss': 'decoupled_kl'}),
  ('dist', {'loss': 'dist'}),
  ('levels', {'loss': 'multi_level_logits'}),
  ('logits', {'loss': 'logit_mse'}),
  ('distance', {'loss': 'rkd_distance', 'at': ('logits', 'logits')}),
  ('angle', {'loss': 'rkd_angle', 'at': ('logits', 'logits')}),
  ('similarity', {'loss': 'similarity_preserving', 'at': 'hidden'}),
  ('transfer', {'loss': 'probabilistic_transfer', 'at': 'hidden'}),
  ('congruence', {'loss': 'correlation_congruence', 'at': 'hidden'}),
  ('hint', {'loss': 'hint', 'at': 'hidden', 'adapter': 'linear'}),
)


class Bound:
  """What of the time of a part is left, and which points fit into it.

  What a point takes is told by the one before on its curve: what is compiled
  takes as long again, and what is run grows with the work, or as it has grown
  before if that is more.

  Args:
    seconds: that the part may take.
  """

  def __init__(self, seconds: float):
    self._end = time.perf_counter() + seconds
    self._points: dict[str, list[tuple[int, float, float]]] = {}

  @property
  def left(self) -> float:
    """Seconds."""
    return max(0.0, self._end - time.perf_counter())

  def fits(self, curve: str, size: int) -> bool:
    """Whether there is time for a point; the first one always fits."""
    points = self._points.get(curve, [])
    if not points:
      return True
    before, once, each = points[-1]
    grown = size / before
    if len(points) > 1:
      grown = max(grown, each / points[-2][2])
    return once + grown * each * (speed.WARM_UP + speed.FEWEST) <= self.left

  def took(self, curve: str, size: int, whole: float, each: float) -> None:
    """Notes a point.

    Args:
      curve: it is on.
      size: of the work.
      whole: seconds that it has taken.
      each: those of one call.
    """
    once = max(0.0, whole - each * (speed.WARM_UP + speed.FEWEST))
    self._points.setdefault(curve, []).append((size, once, each))


def measure(
  part: str,
  demo: Mapping[str, Any],
  samples: int,
  stop: threading.Event | None = None,
  *,
  sizes: Sequence[int] = (),
  seconds: float = SECONDS,
  mib: float = MIB,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """One part, a row for each point of each curve.

  Args:
    part: one of `PARTS`.
    demo: the config of the demo, whose nets are small MLPs.
    samples: how many times of each program to take, or fewer.
    stop: when set, the measurement ends.
    sizes: how much work, in ascending order; those of `PARTS` by default.
    seconds: about how long it may take.
    mib: MiB of temporaries beyond which a loss is left out.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
  """
  sizes, bound, table = sizes or PARTS[part], Bound(seconds), []
  grow = {
    'members': lambda *a: _members(demo, *a),
    'classes': lambda *a: _losses(_LOGITS, _logits, mib, *a),
    'batch': lambda *a: _losses(_RELATIONS, _embeddings, mib, *a),
    'teachers': lambda *a: _teachers(demo, *a),
    'examples': _examples,
    'terms': lambda *a: _terms(demo, *a),
  }[part]
  with (
    sharding.on(sharding.devices()[:1]),
    compiled_afresh(),
    stage(f'growth: {part}', len(sizes)) as show,
  ):
    for row in grow(sizes, samples, stop, bound):
      size = row.pop('size')
      if not table or size != table[-1][part]:
        show(1 + sizes.index(size), {})
      table.append({'curve': row.pop('curve'), part: size, **row})
  return speed.measurement(
    NAME + part, _by_curve(table), [*_NOTES[part], _LEFT_OUT]
  )


def table(measured: Mapping[str, Any]) -> Group:
  """A measurement for the terminal."""
  made = speed.frame(measured)
  for name in measured['rows'][0]:
    made.add_column(name, justify='left' if name == 'curve' else 'right')
  for row in measured['rows']:
    made.add_row(*(wording.plain(value) for value in row.values()))
  return Group(made, *(Text(note, 'dim') for note in measured['notes']))


def draw(measured: Mapping[str, Any]) -> Figure:
  """The curves of a measurement: a panel for each thing that grows.

  Both axes are logarithmic; a dotted line grows as the work does.
  """
  rows, part = measured['rows'], measured['name'].removeprefix(NAME)
  kinds = [kind for kind in _DRAWN if any(row.get(kind) for row in rows)]
  figure = Figure(figsize=(4.6 * len(kinds) + 2.4, 3.6), layout='constrained')
  FigureCanvasAgg(figure)
  curves = list(dict.fromkeys(row['curve'] for row in rows))
  for place, kind in enumerate(kinds, start=1):
    axes = figure.add_subplot(1, len(kinds), place)
    lowest = []
    for number, curve in enumerate(curves):
      points = [
        (row[part], row[kind])
        for row in rows
        if row['curve'] == curve and row.get(kind)
      ]
      if points:
        x, y = zip(*points, strict=True)
        if kind == 'ms':
          _band(axes, rows, curve, part, f'C{number}')
        axes.plot(x, y, 'o-', color=f'C{number}', markersize=4, label=curve)
        lowest.append((x[0], min(y)))
    start, base = min(lowest)[0], min(y for _, y in lowest)
    ends = np.array([start, max(row[part] for row in rows)])
    axes.plot(ends, base * ends / start, ':', color='grey', label='as the work')
    axes.set_xscale('log', base=2 if part in _DOUBLED else 10)
    axes.set_yscale('log')
    ticks = sorted({row[part] for row in rows})
    axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(_LABELS[part])
    axes.set_ylabel(_DRAWN[kind])
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
  figure.suptitle(
    f'{_LABELS[part]}, on {measured["device"]}', fontsize='medium'
  )
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc='outside right center',
    frameon=False,
    fontsize='small',
  )
  return figure


def _band(axes, rows, curve: str, part: str, colour: str) -> None:
  """From the lower to the upper quartile."""
  names = part, 'lower quartile', 'upper quartile'
  points = [[row[n] for n in names] for row in rows if row['curve'] == curve]
  x, low, high = zip(*points, strict=True)
  axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def save_picture(
  measured: Mapping[str, Any], beside: str | Path
) -> dict[str, Any]:
  """Draws a measurement beside its file; returns it with the picture's path.

  Args:
    measured: as `measure` gives it.
    beside: the JSON file of the measurement.

  Raises:
    UserError: the picture cannot be written.
  """
  beside, part = Path(beside), measured['name'].removeprefix(NAME)
  path = beside.with_name(f'{beside.stem}_{part}.png')
  draft = path.with_name(f'.{path.name}.draft')
  try:
    draw(measured).savefig(draft, format='png', dpi=100)
    draft.replace(path)
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror}; choose another file'
    ) from error
  return {**measured, 'picture': path.as_posix()}


def _members(demo, sizes, samples, stop, bound) -> Iterable[dict]:
  nets = population_speed.cases(demo)
  for size in sizes:
    for net in (net for net in nets if net != 'vit'):
      for mode in ('vmap', 'sequence'):
        curve = f'{net}, {mode}'
        speed.check_stop(stop)
        if not bound.fits(curve, size):
          continue
        begun = time.perf_counter()
        make, batches = population_speed.makers(nets[net])(size)
        ready = population_speed.ready(make(mode), batches.batch(0))
        times = speed.interleaved(
          {curve: ready.program}, samples, stop, seconds=bound.left / 8
        )
        found = speed.milliseconds(times[curve])
        whole = time.perf_counter() - begun
        bound.took(curve, size, whole, found['ms'] / 1e3)
        yield {
          'curve': curve,
          'size': size,
          **found,
          'compile s': rounded(ready.compile_s),
        }


def _losses(names, inputs, mib, sizes, samples, stop, bound) -> Iterable[dict]:
  """Time and memory of losses, on what `inputs` gives for a size."""
  over = set()
  for size in sizes:
    given = inputs(size)
    for name in names:
      speed.check_stop(stop)
      if name in over or not bound.fits(name, size):
        continue
      begun = time.perf_counter()
      function, own, others = loss_speed.differentiated(
        name, {k: given[k] for k in _arguments(name)}
      )
      # Compiled and not run, so that nothing is asked for that is not there.
      memory = loss_speed.temporaries(function, own, others)
      if (memory or 0) > mib:
        over.add(name)
        continue
      program = speed.again(function, own, others)
      times = speed.interleaved(
        {name: program}, samples, stop, seconds=bound.left / 30
      )
      found = speed.milliseconds(times[name])
      whole = time.perf_counter() - begun
      bound.took(name, size, whole, found['ms'] / 1e3)
      yield {'curve': name, 'size': size, **found, 'temporary MiB': memory}


def _arguments(name: str) -> list[str]:
  """The arguments of a loss that have no default."""
  given = inspect.signature(getattr(losses, name)).parameters
  return [p.name for p in given.values() if p.default is p.empty]


def _logits(classes: int) -> dict[str, Any]:
  keys = jax.random.split(jax.random.key(0), 3)
  student, teacher = (
    jax.random.normal(key, (BATCH, classes)) for key in keys[:2]
  )
  labels = jax.random.randint(keys[2], (BATCH,), 0, classes)
  return {
    'student': student,
    'teacher': teacher,
    'logits': student,
    'labels': labels,
    'k': min(10, classes - 1),
  }


def _embeddings(size: int) -> dict[str, Any]:
  keys = jax.random.split(jax.random.key(0))
  return {
    name: jax.random.normal(key, (size, WIDTH))
    for name, key in zip(('student', 'teacher'), keys, strict=True)
  }


def _teachers(demo, sizes, samples, stop, bound) -> Iterable[dict]:
  usual = speed.cases(demo)['demo']
  nets = {'mlp': usual, 'resnet20 → resnet8': speed.images(
    'resnet20', 'resnet8', 16
  )}  # fmt: skip
  for size in sizes:
    for curve, case in nets.items():
      speed.check_stop(stop)
      if not bound.fits(curve, size):
        continue
      begun = time.perf_counter()
      batch = speed.synthetic(case)
      role = speed.role_of(case, 'teachers', 'main', {'logits'})
      variables = compilation.once(role.net.init)(jax.random.key(1))
      program, _ = speed.training_step(
        case, case.config['distill'], batch, variables, teachers=size
      )
      times = speed.interleaved(
        {curve: program}, samples, stop, seconds=bound.left / 6
      )
      found = speed.milliseconds(times[curve])
      whole = time.perf_counter() - begun
      bound.took(curve, size, whole, found['ms'] / 1e3)
      yield {'curve': curve, 'size': size, **found}


def _examples(sizes, samples, stop, bound) -> Iterable[dict]:
  """The start of a run: its data read, checked, summed up and in order."""
  for size in sizes:
    speed.check_stop(stop)
    if not bound.fits('', size):
      return
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
      path = Path(folder, 'data.npz')
      random = np.random.default_rng(0)
      train = random.integers(0, 256, (size, 8, 8, 1), np.uint8)
      labels = random.integers(0, 10, size)
      labels[:10] = np.arange(10)
      test = {'x_test': train[:100], 'y_test': labels[:100]}
      np.savez(path, x_train=train, y_train=labels, **test)
      stages = {'read and indexed': [], 'checksums': [], 'first batch': []}
      for _ in range(min(samples, speed.FEWEST)):
        speed.check_stop(stop)
        for name, seconds in _start(path):
          stages[name].append(seconds)
    for name, times in stages.items():
      yield {
        'curve': name, 'size': size, **speed.milliseconds(np.array(times))
      }  # fmt: skip
    whole = time.perf_counter() - begun
    bound.took('', size, whole, whole / (speed.WARM_UP + speed.FEWEST))


def _start(path: Path) -> Iterable[tuple[str, float]]:
  """Seconds of each stage of a start from a file."""
  marks = [time.perf_counter()]

  def passed():
    marks.append(time.perf_counter())
    return marks[-1] - marks[-2]

  source = sources.load(f'npz:{path}', validation=0)
  train = source.splits['train']
  found = train.index.counts.sum()
  yield 'read and indexed', passed()
  fingerprint.of_source(source)
  yield 'checksums', passed()
  weights = np.ones((1, found))
  loader.Loader(train, weights, [0], BATCH).batch(0)
  yield 'first batch', passed()


def _terms(demo, sizes, samples, stop, bound) -> Iterable[dict]:
  """What the first call of a step takes beyond a later one."""
  case = speed.cases(demo)['demo']
  for size in sizes:
    speed.check_stop(stop)
    if not bound.fits('', size):
      return
    begun = time.perf_counter()
    distill = _some_terms(case, size)
    batch = speed.synthetic(case)
    role = speed.role_of(case, 'teachers', 'main', {'logits'})
    variables = role.net.init(jax.random.key(1))
    made = time.perf_counter()
    program, _ = speed.training_step(case, distill, batch, variables)
    traced = time.perf_counter() - made
    timer = program.timer()
    first, later = timer(1), timer(1)
    whole = time.perf_counter() - begun
    bound.took('', size, whole, whole / (speed.WARM_UP + speed.FEWEST))
    for curve, seconds in (
      ('first step: trace and compile', max(first - later, 0)),
      ('before it: init and a trace', traced),
    ):
      yield {'curve': curve, 'size': size, 's': rounded(seconds)}


def _some_terms(case: Case, count: int) -> dict[str, dict]:
  """The complete entries of the first terms of `_TERMS`."""
  entries = {}
  for name, entry in _TERMS[:count]:
    own = dict(entry)
    if own['loss'] != 'cross_entropy':
      own['teacher'] = 'main'
    if own.get('at') == 'hidden':
      own['at'] = case.hint
    entries[name] = own
  return configs.plain(configs.complete({**case.config, 'distill': entries}))[
    'distill'
  ]


def _by_curve(rows: Sequence[dict]) -> list[dict]:
  """The rows of one curve after those of another, in order of appearance."""
  curves = list(dict.fromkeys(row['curve'] for row in rows))
  return sorted(rows, key=lambda row: curves.index(row['curve']))


_DOUBLED = ('members', 'batch', 'teachers', 'terms')  # sizes that double
_DRAWN = {
  'ms': 'milliseconds',
  's': 'seconds',
  'temporary MiB': 'MiB of temporaries',
}
_LABELS = {
  'members': 'members of a population',
  'classes': 'classes',
  'batch': 'examples in a batch',
  'teachers': 'teachers of a group',
  'examples': 'examples in the data',
  'terms': 'terms of the loss',
}
_LEFT_OUT = (
  'Points that would have taken more time or memory than was allowed are left '
  'out.'
)
_NOTES = {
  'members': [
    'A step of the whole population, each member with batches of its own; '
    "medians with quartiles. mlp is the demo's student."
  ],
  'classes': [
    f"Value and gradient of a loss's mean by the student's logits, {BATCH} "
    "examples; temporaries as the compiler's own analysis has them."
  ],
  'batch': [
    "Value and gradient of a loss's mean by the student's embeddings of "
    f"{WIDTH} numbers; temporaries as the compiler's own analysis has them."
  ],
  'teachers': [
    "A distillation step on soft targets. mlp are the demo's nets, in batches "
    'of 64; the residual nets have 16 images of 32×32 pixels.'
  ],
  'examples': [
    'Images of 8×8 bytes in an npz file that has just been written: read, '
    'checked and the labels counted; the checksums of all of it; and the first '
    'batch, for which the order of an epoch is drawn.'
  ],
  'terms': [
    "The demo's nets with more and more terms, compiled afresh; the first step "
    'without what a later one takes.'
  ],
}
