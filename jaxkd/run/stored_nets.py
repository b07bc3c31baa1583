"""The nets of a run: where they are stored, and how they are loaded."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from jaxkd import files, models, shapes, tasks
from jaxkd.data import inputs as inputs_lib
from jaxkd.data import views
from jaxkd.errors import UserError, reading, unknown, within
from jaxkd.models import precision
from jaxkd.run.loaded import DETECTOR, LoadedNet
from jaxkd.run_files import CONFIG, NETS, ROW
from jaxkd.students import compression, logit_shift, stored
from jaxkd.teachers import specialists


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
    UserError: there is none, or no arm is named and the run has not trained
      all of them.
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
    with within(at), reading(path):
      left = [] if (path / ROW).exists() else _left(config, rounds)
    if left:
      raise UserError(
        f'{at}{path}: the run there has not finished, and there are no '
        f'students of {", ".join(left)} yet; give its command again, or name '
        f'one of the folders below {nets}'
      )
    arm = arms[0] if len(arms) == 1 else arm
  if arm not in arms:
    raise unknown('arm', arm, arms, f'{at}{path}')
  roles = sorted(p.name for p in (students / arm).iterdir())
  role = role or ('student' if 'student' in roles else roles[0])
  if role not in roles:
    raise unknown('role', role, roles, f'{at}{path}')
  return students / arm / role


def _left(config: Mapping[str, Any], students: Sequence[Path]) -> list[str]:
  """The rounds, or the arms, of a run that have no students so far."""
  if config.get('rounds'):
    return sorted({*config['rounds']} - {path.parent.name for path in students})
  trained = {path.name for path in students[-1].iterdir()}
  return sorted({*config.get('arms', ())} - trained)


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
    The line; empty where the net takes no images, or names neither one class of
    each nor its objects.
  """
  try:
    spec = stored.description(find_net(where))
  except UserError:  # the report claims something of nets that are no students
    return ''
  known, judged = spec.get('inputs'), tasks.find(task)
  output = getattr(judged, 'OUTPUT', 'logits')
  if known is None or not inputs_lib.are_files(inputs_lib.from_json(known)):
    return ''
  if {*output} == DETECTOR:
    return "print(net.predict(variables, 'mine.png')[0])"
  if output != 'logits' or getattr(judged, 'LABELS', ()):
    return ''
  if tasks.logits_of(task) != 'softmax':
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
