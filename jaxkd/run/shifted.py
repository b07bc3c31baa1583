"""Shifts the logits of students after training (`logit_shift`)."""

import numpy as np

from jaxkd.data.sources import Source
from jaxkd.distill.roles import Role, copies_of
from jaxkd.errors import UserError
from jaxkd.run import build, evaluate, jobs
from jaxkd.run.plan import Round
from jaxkd.run.types import Session
from jaxkd.students import logit_shift, stored


def classes_of(
  part: Round, arm: str, name: str, role: Role, source: Source
) -> np.ndarray | None:
  """The classes whose logits are shifted for each seed, bool [S, K].

  None where a student is left as it is.

  Raises:
    UserError: the logits of a student cannot be shifted.
  """
  entry = part.arms[arm]['students'][name]
  at = f'students.{name}.logit_shift'
  if not entry['logit_shift']:
    return None
  if role.reads or 'logits' not in build.output_shapes(role.net, role.shape):
    raise UserError(
      f'{at}: it needs a net that reads the examples and outputs logits, which '
      f'{name} does not; leave it empty'
    )
  if source.splits['train'].index.each:
    raise UserError(
      f'{at}: it needs one class for each example, and in {source.name} an '
      'example has many; leave it empty'
    )
  if part.arms[arm]['data']['generated']['name']:
    raise UserError(
      f'{at}: the arm {arm} sees generated examples, so it is not known which '
      'classes are missing; leave it empty'
    )
  return logit_shift.classes(
    entry['logit_shift'],
    source.splits['train'].index.classes,
    jobs.of_arm(part, arm, source, {}).weights,
    source.num_classes,
    at=at,
  )


def shifted(
  session: Session, part: Round, arm: str, variables: dict[str, dict]
) -> tuple[dict[str, Role], dict[str, dict], dict[str, np.ndarray]]:
  """The students of an arm, with their logits shifted if the arm asks for it.

  The shift is found for each seed on the validation split, and returned with
  the metrics of the test split. Variables are as they are stored.
  """
  students, variables = dict(part.students[arm]), dict(variables)
  source, shifts = session.source, {}
  for name, role in part.students[arm].items():
    classes = classes_of(part, arm, name, role, source)
    if classes is None:
      continue
    found = []
    for copy in copies_of(name, role.copies):
      dense = stored.dense(variables[copy])
      given = evaluate.logits(session, role, dense, 'validation')
      seeds = zip(*given, classes, strict=True)
      found.append([logit_shift.shift(*own) for own in seeds])
      bias = np.array(found[-1])[:, None] * classes
      variables[copy] = logit_shift.with_shift(variables[copy], bias)
    net = logit_shift.shifted(role.net, source.num_classes)
    students[name] = role._replace(net=net)
    if name == evaluate.reported(students):
      shifts['test/shift'] = np.mean(found, 0)
  return students, variables, shifts
