"""Generated examples, which the students of an arm see instead of the data."""

import functools
from pathlib import Path

import jax

from jaxkd import run_files, shapes
from jaxkd.data.examples import Examples
from jaxkd.data.sources import Source
from jaxkd.distill.roles import Group
from jaxkd.errors import Stopped, UserError
from jaxkd.run import config as configs
from jaxkd.run import evaluate, names, shares
from jaxkd.run.plan import Round
from jaxkd.run.types import Session
from jaxkd.teachers import generator as generator_lib


def generator_of(
  part: Round, arm: str, source: Source, groups: dict[str, Group]
) -> generator_lib.Generator | None:
  """The generator of an arm's examples; None where it sees the data.

  Raises:
    UserError: settings of the data that generated examples do not support, or a
      teacher that examples cannot be made of.
  """
  data, at = part.arms[arm]['data'], 'data.generated'
  entry = data['generated']
  if not entry['name']:
    return None
  alone = next(iter(part.teachers)) if len(part.teachers) == 1 else ''
  name = entry['teacher'] or alone
  names.known(name, part.teachers, f'{at}.teacher')
  share = shares.of_students(data)
  if share.fraction != 1 or share.partition != 'none':
    raise UserError(
      f'{at}: generated data is always used in full; set '
      'data.fraction.students=1.0 and '
      "data.partition.students='none', and its size by data.generated.count"
    )
  for other, role in part.teachers.items():
    if role.cache:
      part_of = 'restore' if role.external else 'cache.outputs'
      raise UserError(
        f'teachers.{other}.{part_of}: cached outputs are of the data, and '
        f'the arm {arm} sees generated examples; leave this empty'
      )
  if jax.process_count() > 1:
    raise UserError(
      f'{at}: examples are generated on a single host only; run on one host'
    )
  group, teacher = groups[name], part.config['teachers'][name]
  if teacher['count'] > 1:
    raise UserError(
      f'{at}.teacher: {name} has several nets, and examples are made of one; '
      f'set teachers.{name}.count=1'
    )
  if group.role.reads or name not in part.predicts:
    raise UserError(
      f'{at}.teacher: {name} must read the data and output logits; choose '
      'another'
    )
  return generator_lib.Generator(
    entry,
    evaluate.predicted_by(group.role),
    group.role.net.apply,
    _first(group),
    source.splits['train'],
    input_shape=source.input_shape,
    num_classes=source.num_classes,
    seeds=part.seeds,
    of=configs.as_json({k: teacher[k] for k in ('model', 'kw', 'views')}),
    classes=source.classes,
    defaults=_special(source),
  )


def _special(source: Source) -> dict[str, int]:
  """The special tokens of the data's tokenizer, where it has its own."""
  special = getattr(getattr(source, 'tokenizer', None), 'special', None)
  if special is None:
    return {}
  return {'stop': special.eos, 'pad': special.pad, 'bos': special.bos}


def make(
  session: Session,
  part: Round,
  arm: str,
  groups: dict[str, Group],
  directory: Path,
) -> Examples | None:
  """Generates the examples of an arm; None where it sees the data."""
  generator = generator_of(part, arm, session.source, groups)
  if generator is None:
    return None
  stage = f'{part.prefix}{arm}'

  def leave():
    if session.stop is not None and session.stop.is_set():
      raise Stopped(f'stopped while examples for {stage} were made')

  progress = functools.partial(session.progress, f'generated/{stage}')
  root = directory / run_files.GENERATED
  examples = generator.make(root, progress, session.say, leave)
  generator_lib.picture(examples, generator.rows, root / f'{stage}.png')
  return examples


def _first(group: Group) -> dict:
  """The variables of the first of the T nets of each seed, or their shapes."""
  own = group.per_member
  return shapes.mapped(lambda x: x[:, 0] if own else x[:1], group.variables)
