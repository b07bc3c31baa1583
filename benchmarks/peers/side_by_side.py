"""Our training step and that of each peer, in turns, on the same shapes.

A row says how long ours and theirs take, and the ratio of both: the median
over rounds, with quartiles. Nets that differ in their number of parameters
have no ratio.
"""

import contextlib
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Group
from rich.text import Text

from benchmarks import speed
from benchmarks.peers.process import Failed, Lacking, Process
from benchmarks.speed import Case, Program
from jaxkd import compilation, files
from jaxkd.errors import UserError
from jaxkd.report import speed as report
from jaxkd.report import wording
from jaxkd.run import config as configs
from jaxkd.train import sharding

PEERS = 'mdistiller', 'RepDistiller', 'torchdistill'
CHILD = Path(__file__).with_name('child.py')
SECONDS = 60  # that the rounds of a program may take, or about that
EXAMPLES, NEGATIVES = 50_000, 16_384  # of CRD, by its authors
SGD = {'lr': 0.01, 'momentum': 0.9, 'weight_decay': 5e-4}
# What is measured, by the name on the command line.
PROGRAMS = {
  'plain': 'plain step',
  'teacher': 'teacher forward',
  'kd': 'soft targets',
  'dkd': 'DKD',
  'crd': 'CRD',
  'reviewkd': 'ReviewKD',
  'at': 'attention transfer',
  'rkd': 'RKD',
}
REVIEW_NOTE = (
  'ReviewKD of the peers has a level more than ours, the pooled features, and '
  'so trains more parameters.'
)


class Ours(NamedTuple):
  """A program of ours.

  Attributes:
    program: to be timed.
    trained: the number of parameters that it trains; None for none.
  """

  program: Program
  trained: int | None


def cases(dtype: str = 'float32') -> dict[str, Case]:
  """The nets that are measured, by name; the last for accelerators alone.

  Args:
    dtype: what both sides compute in.
  """
  fast = jax.default_backend() != 'cpu'
  size = 256 if fast else 64
  pairs = {'resnet20': 'resnet8', 'resnet32x4': 'resnet8x4'}
  made = [
    speed.images(teacher, student, size, dtype=dtype)
    for teacher, student in pairs.items()
  ]
  if fast:
    large = {'side': 224, 'num_classes': 1000, 'dtype': dtype}
    made.append(speed.images('resnet50', 'resnet18', 64, **large))
  return {case.name: case for case in made}


def check(python: str, folders: Mapping[str, str]) -> dict[str, Path]:
  """The clones by peer, once all that is needed is there.

  Args:
    python: the Python that has PyTorch.
    folders: where each peer is; '' for one that is left out.

  Raises:
    UserError: what is missing, in one sentence.
  """
  if not python:
    raise UserError(
      '--peers: the peers need PyTorch; name a Python that has it with '
      '--torch_python=PATH'
    )
  found = {
    name: files.path(folder, at=f'--{name}')
    for name, folder in folders.items()
    if folder
  }
  if not found:
    flags = ', '.join(f'--{name}=DIR' for name in PEERS)
    raise UserError(
      f'--peers: there is no peer to measure; name a clone with {flags}'
    )
  for name, folder in found.items():
    if not folder.is_dir():
      raise UserError(f'--{name}: there is no folder {folder}')
  if jax.default_backend() not in ('cpu', 'gpu', 'cuda'):
    raise UserError(
      f'--peers: PyTorch cannot use the {jax.default_backend()} that jax is '
      'on; set JAX_PLATFORMS=cpu'
    )
  return found


def measure(
  case: Case,
  python: str,
  folders: Mapping[str, Path],
  samples: int,
  stop: threading.Event | None = None,
  *,
  programs: Iterable[str] = tuple(PROGRAMS),
  seconds: float = SECONDS,
  within: float = math.inf,
  stage: Callable = speed.unseen,
) -> dict[str, Any]:
  """Times of our steps and of the peers', and their ratios.

  A peer has a process of its own, which does nothing while another computes,
  and as many threads as jax. What a peer lacks is left out; a peer that cannot
  be imported, or a step of it that fails, has a row that says why.

  Args:
    case: the nets and shapes, see `benchmarks.speed.images`.
    python: the Python that has PyTorch.
    folders: the clone of each peer, as `check` gives them.
    samples: how many times of each to take, or fewer.
    stop: when set, the measurement ends.
    programs: which of `PROGRAMS`.
    seconds: about how long the rounds of a program may take.
    within: seconds after which no other program is begun than the first; those
      that are left have no rows.
    stage: shows progress, see `jaxkd.report.progress.Reporter.stage`.

  Raises:
    Stopped: `stop` was set.
    UserError: a process cannot be started, or has ended.
  """
  device = 'cpu' if jax.default_backend() == 'cpu' else 'cuda'
  threads, table, versions = _threads(), [], {}
  begun = time.perf_counter()
  with contextlib.ExitStack() as stack:
    # On one device, as the peers are.
    stack.enter_context(sharding.on(sharding.devices()[:1]))
    peers = {}
    for name, folder in folders.items():
      command = [python, CHILD, name, folder, device, threads]
      process = stack.enter_context(Process(name, [*map(str, command)], stop))
      try:
        said = process.ask('describe')
      except Failed as failed:
        table.append(_row(case, 'all', name, remark=str(failed)))
        continue
      peers[name] = process
      versions[name] = _commit(folder)
      versions |= {k: v for k, v in said.items() if k.startswith('torch')}
    for number, program in enumerate(programs if peers else ()):
      speed.check_stop(stop)
      if number and time.perf_counter() - begun > within:
        break
      table += _rows(case, program, peers, samples, stop, seconds, stage)
  found = speed.measurement(
    report.PEERS + speed.titled(case), table, _notes(threads, device)
  )
  return {**found, 'versions': {**found['versions'], **versions}}


def ours(case: Case, program: str) -> Ours:
  """A program of ours, as training runs it.

  Args:
    case: the nets and shapes.
    program: one of `PROGRAMS`.
  """
  case = case._replace(config=_trained_as_peers(case.config))
  batch = speed.synthetic(case)
  teacher = speed.role_of(case, 'teachers', 'main', {'logits'})
  variables = compilation.once(teacher.net.init)(jax.random.key(1))
  if program == 'teacher':
    forward = lambda v, x: teacher.net.apply(v, x)[0]['logits']  # noqa: E731
    return Ours(speed.again(forward, variables, batch['inputs']), None)
  if program == 'crd':
    batch['rank'] = batch['id']
  made, _ = speed.training_step(
    case, _terms(case, program), batch, variables, examples=EXAMPLES
  )
  carry, totals = made.state
  carry = jax.tree_util.tree_map_with_path(_later, carry)
  trained = sum(x.size for x in jax.tree.leaves(carry[0]['train']))
  return Ours(made._replace(state=(carry, totals)), trained)


def table(measured: Mapping[str, Any]) -> Group:
  """A measurement for the terminal."""
  made = speed.frame(measured)
  made.add_column('program', no_wrap=True)
  made.add_column('peer', no_wrap=True)
  for name in ('ms', 'their ms', 'ratio (quartiles)', 'remark'):
    made.add_column(name, justify='left' if name == 'remark' else 'right')
  for row in measured['rows']:
    ratio = ''
    if row['ratio'] is not None:
      low, high = row['ratio lower quartile'], row['ratio upper quartile']
      ratio = f'{row["ratio"]:.2f} ({low:.2f}–{high:.2f})'
    made.add_row(
      row['program'],
      row['peer'],
      wording.plain(row['ms']),
      wording.plain(row['their ms']),
      ratio,
      row['remark'],
    )
  notes = (Text(f'- {note}', 'dim') for note in measured['notes'])
  return Group(made, Text(), *notes)


def _rows(case, program, peers, samples, stop, seconds, stage) -> list[dict]:
  """The rows of a program: one for each peer that has it."""
  request = {
    'program': program,
    'teacher': case.config['teachers']['main']['model'],
    'student': case.config['students']['student']['model'],
    'batch': case.config['train']['batch_size'],
    'side': case.input_shape[0],
    'classes': case.num_classes,
    'dtype': case.config['train']['dtype'],
    'examples': EXAMPLES,
    'negatives': NEGATIVES,
    'sgd': SGD,
  }
  facts, rows = {}, []

  def fails(why):
    rows.append(_row(case, program, why.peer, remark=str(why)))

  for name, peer in peers.items():
    try:
      facts[name] = peer.ask('make', name=program, **request)
    except Failed as why:
      fails(why)
    except Lacking:
      pass
  staged = lambda name, steps: stage(  # noqa: E731
    f'{PROGRAMS[program]}: {name}', steps
  )
  while facts:
    mine = ours(case, program)
    timed = {'ours': mine.program}
    for name, found in facts.items():
      timed[name] = peers[name].program(program, found['flops'])
    try:
      times = speed.interleaved(
        timed, samples, stop, seconds=seconds, stage=staged
      )
    except Failed as why:  # the others are measured without it
      fails(why)
      del facts[why.peer]
      continue
    rows += [
      _row(case, program, name, times, mine, found)
      for name, found in facts.items()
    ]
    break
  for peer in peers.values():
    peer.ask('drop')
  return rows


def _row(
  case: Case,
  program: str,
  peer: str,
  times: Mapping[str, np.ndarray] | None = None,
  mine: Ours | None = None,
  facts: Mapping[str, Any] | None = None,
  remark: str = '',
) -> dict[str, Any]:
  """A row; without times it says in its remark why there are none."""
  models = [
    case.config[section][name]['model']
    for section, name in (('teachers', 'main'), ('students', 'student'))
  ]
  nets = {
    'plain': models[1],
    'teacher': models[0],
  }.get(program, ' → '.join(models))
  row = {
    'program': PROGRAMS.get(program, program),
    'nets': nets,
    'shapes': speed.by(case.config['train']['batch_size'], *case.input_shape),
    'peer': peer,
    **dict.fromkeys(
      (
        'ratio', 'ratio lower quartile', 'ratio upper quartile',
        'ms', 'lower quartile', 'upper quartile',
        'their ms', 'their lower quartile', 'their upper quartile',
        'trained', 'trained by them', 'MFLOPs', 'their MFLOPs',
      )
    ),
    'remark': remark,
  }  # fmt: skip
  if times is None:
    return row
  ratio = times['ours'] / times[peer]
  middle, low, high = np.quantile(ratio, (0.5, 0.25, 0.75)).round(4).tolist()
  differ = _differing(case, facts)
  theirs = speed.milliseconds(times[peer])
  return {
    **row,
    'ratio': None if differ else middle,
    'ratio lower quartile': None if differ else low,
    'ratio upper quartile': None if differ else high,
    **speed.milliseconds(times['ours']),
    **{f'their {name}': value for name, value in theirs.items()},
    'trained': mine.trained,
    'trained by them': facts.get('trained'),
    'MFLOPs': round(mine.program.flops / 1e6, 3),
    'their MFLOPs': round(facts['flops'] / 1e6, 3),
    'remark': differ,
  }


def _differing(case: Case, facts: Mapping[str, Any]) -> str:
  """What of the nets is not the same on both sides; empty if all is."""
  said = []
  for section, name in (('teachers', 'main'), ('students', 'student')):
    own = speed.size_of(speed.role_of(case, section, name, {'logits'}))
    kind = section.removesuffix('s')
    if facts[kind] != own:
      model = case.config[section][name]['model']
      said.append(
        f'{model} has {own:,} parameters here and {facts[kind]:,} there'
      )
  return '; '.join(said)


def _trained_as_peers(config: dict) -> dict:
  """The config with the optimiser's numbers that the peers have."""
  train = {
    'learning_rate': SGD['lr'],
    'weight_decay': SGD['weight_decay'],
  }
  return {**config, 'train': {**config['train'], **train}}


def _terms(case: Case, program: str) -> dict[str, dict]:
  """The complete terms of a method, with the weights that were published."""
  large = case.input_shape[0] > 64
  stages = [f'stages/{i}' for i in range(4 if large else 3)]
  pooled = {'teacher': 'main', 'at': ('embedding', 'embedding')}
  own = {
    'plain': {},
    'kd': {
      'kd': {
        'loss': 'kl',
        'teacher': 'main',
        'weight': 0.9,
        'kw': {'temperature': 4.0},
      }
    },
    'dkd': {
      'own': {
        'loss': 'decoupled_kl',
        'teacher': 'main',
        'kw': {'alpha': 1.0, 'beta': 8.0, 'temperature': 4.0},
      }
    },
    'crd': {
      'own': {
        **pooled,
        'term': 'memory',
        'adapter': 'embed',
        'teacher_adapter': 'embed',
        'teacher_adapter_kw': {'width': 128},
        'kw': {'negatives': NEGATIVES, 'momentum': 0.5},
        'weight': 0.8,
      }
    },
    'reviewkd': {
      'own': {
        'loss': 'hierarchical_context',
        'teacher': 'main',
        'at': (stages, [f'{stage}/preactivation' for stage in stages]),
        'adapter': 'attention_fusion',
        'weight': 5.0,
      }
    },
    'at': {
      stage.replace('/', ''): {
        'loss': 'attention_transfer',
        'teacher': 'main',
        'at': (stage, stage),
        'weight': 1000.0,
      }
      for stage in stages
    },
    'rkd': {
      'distance': {'loss': 'rkd_distance', 'weight': 25.0, **pooled},
      'angle': {'loss': 'rkd_angle', 'weight': 50.0, **pooled},
    },
  }[program]
  labels = {
    'loss': 'cross_entropy',
    'weight': 0.1 if program == 'kd' else 1.0,
  }
  config = {**case.config, 'distill': {'labels': labels, **own}}
  return configs.plain(configs.complete(config))['distill']


def _later(path: tuple, value: jax.Array) -> jax.Array:
  """A memory as it is after the first epoch: it has seen all examples."""
  last = getattr(path[-1], 'key', '')
  return jnp.ones_like(value) if last == 'seen' else value


def _commit(folder: Path) -> str:
  """The commit of a clone, or that it has none."""
  done = subprocess.run(
    ['git', '-C', str(folder), 'describe', '--always', '--dirty', '--abbrev=12',
     '--exclude=*'],
    capture_output=True,
    text=True,
  )  # fmt: skip
  return done.stdout.strip() or 'no commit'


def _threads() -> int:
  """How many threads jax has here: one for each core that it may use."""
  if hasattr(os, 'sched_getaffinity'):  # not everywhere
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _notes(threads: int, device: str) -> list[str]:
  """What a reader of the figures must know."""
  some = f'{threads} threads' if threads > 1 else 'one thread'
  where = f'{some} each' if device == 'cpu' else 'one GPU'
  return [
    'A ratio is our time over theirs, below 1 where ours is faster: the median '
    f'over rounds in which each had its turn, on {where}; ms are ours.',
    'A step is: the teacher without gradient, the student, the losses, the '
    'gradient and SGD with momentum, on a batch that is on the device. Of the '
    "peers' trainers it leaves out data loading, accuracies and logging, and "
    'the draw of the negatives of CRD, which their data loaders make and our '
    'step does; ours has the norm of the gradient too. Their code runs eagerly '
    'as they run it; RepDistiller computes the divergence of logits for every '
    'method.',
    f'CRD has {NEGATIVES:,} negatives of {EXAMPLES:,} examples. {REVIEW_NOTE}',
    'MFLOPs are counted by XLA on our side and by PyTorch on theirs, which '
    'counts products and convolutions only.',
  ]
