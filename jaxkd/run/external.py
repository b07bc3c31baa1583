"""Groups of which there are outputs and no net: files and host functions.

See `jaxkd.teachers.external`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxkd import options
from jaxkd.data import views
from jaxkd.data.sources import Source
from jaxkd.distill import fusion
from jaxkd.distill.contexts import shown
from jaxkd.distill.roles import Role
from jaxkd.errors import UserError, unknown
from jaxkd.models.external import OUTPUTS, is_external
from jaxkd.run import build, terms
from jaxkd.students import inherit
from jaxkd.teachers import external
from jaxkd.teachers.host import HostFunction
from jaxkd.teachers.recorded import Recorded

_TRIED = 4  # examples that a function is tried on
# What a group without a net cannot have, beside the value that says so.
_OF_NETS = {
  'count': 1, 'per_seed': False, 'reads': (), 'made_of': (), 'quantize': '',
  'prune': '',
}  # fmt: skip


def role(
  entry: Mapping[str, Any],
  source: Source,
  locations: set[str],
  *,
  at: str,
  kind: str,
) -> Role:
  """The role of a group that a file or a function of the host is.

  Args:
    entry: its complete entry.
    source: the data.
    locations: names of the outputs that terms and nets look at.
    at: the entry's name.
    kind: what logits are, see `jaxkd.tasks`.

  Raises:
    UserError: an entry or an output that such a group cannot have, or outputs
      that are not for these data.
  """
  build.check_restored_model(entry, at)
  restore, classes = entry['restore'], build.classes_of(entry, source)
  own = {**entry, 'specialize.of': entry['specialize']['of']}
  for name, value in {**_OF_NETS, 'specialize.of': ''}.items():
    if own[name] != value:
      raise UserError(
        f'{at}.{name}: {restore} gives outputs of one net, not the net; set it '
        f'to {value!r}'
      )
  if jax.process_count() > 1:
    raise UserError(
      f'{at}.restore: cached outputs work on a single host only; run on one '
      'host'
    )
  if restore.startswith(OUTPUTS):
    options.check(entry['kw'], {}, name=restore, at=f'{at}.kw')
    for use, text in entry['views'].items():
      if text:
        raise UserError(
          f'{at}.views.{use}: the outputs in a file do not depend on a view; '
          'leave it empty'
        )
    found = Recorded(restore, source, classes, at, kind)
  else:
    if views.draws(views.parse(entry['views']['eval']), source.input_shape):
      raise UserError(
        f'{at}.views.eval: it is random, and in evaluation one output of '
        f'{restore} is cached for each example; choose a view without draws'
      )
    build.input_shape(entry, source, at)
    found = HostFunction(
      restore,
      build.options_of(entry, source),
      _examples(entry['views']['train'], source),
      splits=frozenset(source.splits),
      classes=classes,
      each=source.splits['train'].index.each,
      at=at,
      kind=kind,
    )
  for location in sorted(locations - found.shapes.keys()):
    raise unknown('layer', location, found.shapes, f'{at}.restore')
  return Role(
    external.net(found.checksum),
    entry['views']['train'],
    entry['views']['eval'],
    shape={name: x.shape for name, x in found.shapes.items()},
    at=at,
    external=found,
  )


def _examples(view: str, source: Source) -> Any:
  """What a view shows of the first examples."""
  id = np.arange(_TRIED, dtype=np.int32) % len(source.splits['train'])
  inputs = source.splits['train'].fetch(id)['inputs']
  batch = {'inputs': inputs, 'epoch': 0 * id, 'id': id}
  return jax.device_get(jax.jit(lambda b: shown(view, b, 0))(batch))


def check_references(
  config: Mapping[str, Any], arms: Mapping[str, dict]
) -> None:
  """Refuses what needs the net of a group that has outputs alone.

  Args:
    config: of a round, complete.
    arms: the config of each of its arms.

  Raises:
    UserError: naming the entry.
  """
  teachers = config['teachers']
  for at, name in _references(config, arms):
    restore = teachers.get(name, {}).get('restore', '')
    if is_external(restore):
      raise UserError(
        f'{at}: {name} has only outputs ({restore}), and this needs a net; '
        'name a group that has one'
      )


def _references(
  config: Mapping[str, Any], arms: Mapping[str, dict]
) -> Iterator[tuple[str, str]]:
  """Entries that name a group because of its net, and the group."""
  for name, entry in config['teachers'].items():
    at = f'teachers.{name}'
    yield from ((f'{at}.made_of', of) for of in entry['made_of'])
    yield f'{at}.specialize.of', entry['specialize']['of']
    yield f'{at}.init', inherit.source(entry['init'])
    yield from _weighed(entry['distill'], f'{at}.')
  for own in arms.values():
    made = own['data']['generated']
    yield 'data.generated.teacher', made['teacher'] if made['name'] else ''
    for name, entry in own['students'].items():
      yield f'students.{name}.init', inherit.source(entry['init'])
    yield from _weighed(own['distill'], '')


def _weighed(distill: Mapping[str, dict], at: str) -> Iterator[tuple[str, str]]:
  """Groups whose nets are weighed on the validation split."""
  for name, term in terms.in_use(distill).items():
    if term['fuse_weights'] == fusion.VALIDATION:
      for group in terms.groups_of(term):
        yield f'{at}distill.{name}.fuse_weights', group
