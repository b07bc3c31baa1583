"""The workdir of a run: its files, and the lock on it."""

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from jaxkd import files, locks, models, shapes, tasks
from jaxkd.data import inputs as inputs_lib
from jaxkd.data import views
from jaxkd.errors import UserError, reading, unknown, within, writing
from jaxkd.models import precision
from jaxkd.run.loaded import LoadedNet
from jaxkd.run_files import COMPUTED, CONFIG, MADE, NETS, PROVENANCE, ROW
from jaxkd.students import compression, logit_shift, stored
from jaxkd.teachers import specialists
from jaxkd.train import hosts

# What a run's provenance says of jaxkd, beside checksums of data and code.
VERSION, COMMIT = 'jaxkd', 'commit of jaxkd'


def locked(
  path: Path,
) -> contextlib.AbstractContextManager[Callable[[], None]]:
  """Keeps other processes out of the folder; see `jaxkd.locks.locked`.

  Raises:
    UserError: the folder cannot be written, or another process is at work.
  """
  return locks.locked(path, at='--workdir')


def check_shared(path: Path) -> None:
  """Refuses a folder that is not the same one on all hosts.

  Raises:
    UserError: some host does not see the first one's lock.
  """
  owner = hosts.broadcast_from_host0(
    'the owner', locks.owner(path) if hosts.is_first() else ''
  )
  with hosts.raise_everywhere('the workdir'):
    if locks.owner(path) != owner:
      raise UserError(
        f'--workdir {path}: it is another folder than on host 0; give one on a '
        'disk that all hosts share, or in a bucket'
      )


def enter(
  path: Path, config: str, provenance: Mapping[str, str], *, overwrite: bool
) -> dict[str, str]:
  """Makes the folder this run's own, or finds that it is.

  Args:
    path: the folder.
    config: the run's config as JSON.
    provenance: of its data, nets and code; see `jaxkd.run.provenance`.
    overwrite: whether a run there may be removed: a finished one, or one of
      another config, other data or other code. One that was cut short goes on.

  Returns:
    The provenance when the run began, which may be another commit of jaxkd.

  Raises:
    UserError: the folder cannot be written, or holds another run.
  """
  held = path / CONFIG
  with within('--workdir: '), writing(path):
    files.make_folder(path)
    if overwrite and held.exists() and not _goes_on(path, config, provenance):
      for name in MADE:
        files.remove(path / name)
    if not held.exists():
      others = [n for n in MADE if n != PROVENANCE and (path / n).exists()]
      if others:
        raise UserError(
          f'--workdir {path}: it holds {", ".join(others)} but no {CONFIG}, '
          'so it is not known whose they are; choose another folder'
        )
      _begin(path, provenance)
      files.write_text(held, config)
      return dict(provenance)
    text = held.read_bytes().decode(errors='replace')
    if text == config and not _has_computed(path):
      _begin(path, provenance)  # whatever it began with, nothing is left of it
  if text != config:
    entry, there, here = _difference(text, config, held)
    raise UserError(
      f'--workdir {path}: it holds the run of another config, in which '
      f'{entry} is {there} and not {here}; choose another folder, or '
      '--overwrite to remove that run'
    )
  began = _began(path)
  if began is None:
    raise UserError(
      f'--workdir {path}: the run there was cut short and has no {PROVENANCE}, '
      'so it is not known which data and code it began with; choose another '
      'folder, or --overwrite to remove that run and start again'
    )
  if began.get(VERSION) != provenance.get(VERSION):
    raise UserError(
      f'--workdir {path}: the run there began with {jaxkd_of(began)}, and this '
      f'is {jaxkd_of(provenance)}; go on with that version, choose another '
      'folder, or --overwrite to remove that run and start again'
    )
  _check_unchanged(path, began, provenance)
  return began


def check_finished(path: Path, provenance: Mapping[str, str]) -> str:
  """Refuses to show a finished run for one that would have other results.

  Args:
    path: the folder of a finished run of this config.
    provenance: of a run that would begin now.

  Returns:
    A remark on its provenance for the user; mostly empty.

  Raises:
    UserError: it came from other data or other code.
  """
  began = _began(path)
  if began is None:
    return ', of which data and code is not known'
  _check_unchanged(path, began, provenance)
  ran, runs = jaxkd_of(began), jaxkd_of(provenance)
  return '' if ran == runs else f' with {ran} (this is {runs})'


def _check_unchanged(
  path: Path, there: Mapping[str, str], here: Mapping[str, str]
) -> None:
  """Refuses other data, other nets that teachers start from, or other code."""
  changed: dict[str, list[str]] = {}
  for entry in {**here, **there}:
    jaxkd = entry in (VERSION, COMMIT)
    if not jaxkd and there.get(entry) != here.get(entry):
      name, _, part = entry.removesuffix(')').partition(' (')
      changed.setdefault(name, []).append(part)
  if changed:
    said = [
      f'{name} ({", ".join(parts)})' if any(parts) else name
      for name, parts in changed.items()
    ]
    have = 'have' if len(said) > 1 else 'has'
    raise UserError(
      f'--workdir {path}: {" and ".join(said)} {have} changed since the run '
      'there began; choose another folder, or --overwrite to remove that run '
      'and start again'
    )


def jaxkd_of(provenance: Mapping[str, str]) -> str:
  """The jaxkd of a run: its version, and its commit where that is known."""
  commit = provenance.get(COMMIT)
  at = f' at commit {commit}' if commit else ''
  return f'jaxkd {provenance.get(VERSION)}{at}'


def _goes_on(path: Path, config: str, provenance: Mapping[str, str]) -> bool:
  """Whether the run there was cut short and is the same run."""
  same = holds(path, config) and _began(path) == provenance
  return same and not (path / ROW).exists()


def _has_computed(path: Path) -> bool:
  """Whether a run has left anything that another must not go on with."""
  return (path / ROW).is_file() or any(
    (path / name).is_file()
    or any(not locks.is_lock(each) for each in files.below(path / name))
    for name in COMPUTED
  )


def _begin(path: Path, provenance: Mapping[str, str]) -> None:
  text = json.dumps(provenance, indent=1, sort_keys=True)
  files.write_text(path / PROVENANCE, text)


def _began(path: Path) -> dict[str, str] | None:
  """The provenance of the run in a folder; None if it is not known."""
  try:
    held = json.loads((path / PROVENANCE).read_text())
  except (OSError, ValueError):
    return None
  return held if isinstance(held, dict) else None


def holds(path: Path, config: str) -> bool:
  """Whether the folder is that of a run of this config."""
  # A bucket that cannot be read may hold it.
  nothing = FileNotFoundError if files.is_remote(path) else OSError
  with within('--workdir: '), reading(path):
    try:
      return (path / CONFIG).read_text() == config
    except (nothing, UnicodeDecodeError):
      return False


def _difference(there: str, here: str, path: Path) -> tuple[str, Any, Any]:
  """The first entry in which two configs differ, and its values."""
  try:
    there = json.loads(there)
  except ValueError as error:
    raise UserError(
      f'{path} is damaged ({error}); --overwrite starts afresh'
    ) from error
  there, here = flat(there), flat(json.loads(here))
  for entry in sorted({*there, *here}):
    if there.get(entry, 'absent') != here.get(entry, 'absent'):
      return entry, there.get(entry, 'absent'), here.get(entry, 'absent')
  return 'its layout', 'another', 'this'


def flat(tree: Any, at: str = '') -> dict[str, Any]:
  """The entries of a config by name."""
  if not isinstance(tree, Mapping) or not tree:
    return {at: tree}
  return {
    path: value
    for name, child in tree.items()
    for path, value in flat(child, f'{at}.{name}' if at else name).items()
  }


def net_folder(path: Path, stage: str) -> Path:
  """Where the nets of a stage are exported."""
  return path / NETS / stage


def find_net(
  where: str | Path, *, arm: str = '', role: str = '', at: str = ''
) -> Path:
  """The folder of an exported net, in a workdir or given itself.

  Of a workdir it is a student of the last round: of the arm, by default the one
  that the run's report claims to be better, and of the role, by default
  'student', or the first by name where none is called so.

  Raises:
    UserError: there is none.
  """
  at_ = at.rstrip(': ') or 'jaxkd.load'
  path = files.path(where, at=at_, remote=True)
  nets = path / NETS
  with within(at), reading(nets):
    if not nets.is_dir():
      return path
  rounds = sorted(nets.glob('students')) or sorted(nets.glob('*/students'))
  if not rounds:
    raise UserError(f'{at}{path}: the run there has not trained its students')
  students = rounds[-1]  # of the last round, where there are several
  arms = sorted(p.name for p in students.iterdir())
  if not arm:
    try:
      config = json.loads((path / CONFIG).read_text())
      arm = config['report']['compare']['better'].split('/')[-1]
    except (OSError, ValueError, KeyError) as error:
      raise UserError(
        f'{at}{path / CONFIG} cannot be read ({error!r}); name one of the '
        f'folders below {nets}'
      ) from error
    arm = arms[0] if len(arms) == 1 else arm
  if arm not in arms:
    raise unknown('arm', arm, arms, f'{at}{path}')
  roles = sorted(p.name for p in (students / arm).iterdir())
  role = role or ('student' if 'student' in roles else roles[0])
  if role not in roles:
    raise unknown('role', role, roles, f'{at}{path}')
  return students / arm / role


def other_students(where: str | Path, found: Path) -> list[str]:
  """Those that `find_net` has passed over in a workdir, each as ARM/ROLE.

  Args:
    where: what it was given.
    found: what it gave.
  """
  if files.as_path(files.expanded(str(where))) not in found.parents:
    return []  # no workdir was given, but the net itself
  students = found.parents[1].glob('*/*')
  return sorted(f'{p.parent.name}/{p.name}' for p in students if p != found)


def load(
  where: str | Path, *, arm: str = '', role: str = '', member: int = 0
) -> tuple[LoadedNet, dict]:
  """Loads a trained net and its weights.

  The net takes examples as the source of the data has them, e.g. images of the
  same size as uint8 or as floats from 0 to 1, and applies its evaluation view
  itself. Other inputs are refused. ``net.predict`` takes images of any size,
  and ``net.read`` reads files as the run did.

  Args:
    where: a finished workdir, one of the folders below its ``nets``, or an
      exported safetensors file.
    arm: the arm of a workdir; by default the one claimed to be better.
    role: the role in that arm; by default 'student', or the first by name.
    member: which of the trained members: by default that of the first seed.

  Returns:
    ``(net, variables)``. The net also has ``classes``, ``input_shape``,
    ``read`` and ``predict``, see `jaxkd.run.loaded.LoadedNet`.

  Raises:
    UserError: there is no such net.

  Examples::

    net, variables = jaxkd.load('runs/demo')
    outputs, _ = net.apply(variables, images)
    net.classes[outputs['logits'][0].argmax()]
  """
  folder = find_net(where, arm=arm, role=role)
  variables, spec = stored.load(folder)
  if not 0 <= member < spec['members']:
    raise UserError(
      f'{folder} holds {spec["members"]} members, so member {member} is not '
      'one of them'
    )
  special = spec.get('specialist', False)
  build = functools.partial(
    models.build,
    spec['model'],
    num_classes=spec['num_classes'] + special,
    input_shape=shapes.from_json(spec['input_shape']),
    dtype=spec['dtype'],
    **{name: _tuples(value) for name, value in spec['kw'].items()},
  )
  net = build()
  quantisation = spec.get('quantize', '')
  if quantisation:  # the weights are what they are; activations are rounded
    net = build(**compression.hooks(net, quantisation, at=str(folder)))
  if special:
    net = specialists.specialist(net, spec['num_classes'])
  net = precision.rounding(net, spec.get('param_dtype', precision.FULL))
  # Called `corrected` by runs of the release before.
  if spec.get('logit_shift', spec.get('corrected', False)):
    net = logit_shift.shifted(net, spec['num_classes'])
  view = views.parse(spec['view'], stored=True)
  known = _inputs(spec, view, folder)

  def forward(variables, inputs, *, key=None, train=False):
    seen = views.apply_in_evaluation(view, inputs)
    return net.apply(variables, seen, key=key, train=train)

  loaded = LoadedNet(
    net.init,
    forward,
    _classes(spec),
    known,
    view.text,
    spec.get('logits', 'softmax'),
    _tuples(spec.get('standardized', ())),
  )
  return loaded, jax.tree.map(lambda x: x[member], variables)


def prediction(where: str | Path, task: str) -> str:
  """The line of Python that predicts for an image file.

  It follows ``net, variables = jaxkd.load(...)``.

  Args:
    where: a finished workdir.
    task: of its config.

  Returns:
    The line; empty where the net takes no images, or names no class of each.
  """
  try:
    spec = stored.description(find_net(where))
  except UserError:  # the report claims something of nets that are no students
    return ''
  known, judged = spec.get('inputs'), tasks.find(task)
  output = getattr(judged, 'OUTPUT', 'logits')
  if known is None or output != 'logits' or getattr(judged, 'LABELS', ()):
    return ''
  if tasks.logits_of(task) != 'softmax':
    return ''
  if not inputs_lib.are_files(inputs_lib.from_json(known)):
    return ''
  return "print(net.predict(variables, 'mine.png')[0].name)"


def _inputs(
  spec: dict, view: views.View, folder: Path
) -> inputs_lib.Inputs | None:
  """The description of a net's inputs, as far as the run kept it."""
  if 'inputs' in spec:
    return inputs_lib.from_json(spec['inputs'])
  logging.warning(
    '%s is of a version of jaxkd that did not keep what its examples were: '
    '%s and ranges are not checked; run its config again to have that',
    folder,
    'sizes' if view.ops else 'types',
  )
  # Its net was built for what the view gives, if there is one.
  shape = shapes.from_json(spec['input_shape'])
  return None if view.ops else inputs_lib.unknown(shape)


def _classes(spec: dict) -> list[str]:
  """The names of the classes; numbers if they are not those of the data."""
  names, count = spec.get('classes', ()), spec['num_classes']
  return names if len(names) == count else [str(i) for i in range(count)]


def _tuples(value: Any) -> Any:
  """JSON has lists where the config had tuples."""
  if isinstance(value, list):
    return tuple(_tuples(v) for v in value)
  if isinstance(value, dict):
    return {name: _tuples(v) for name, v in value.items()}
  return value
