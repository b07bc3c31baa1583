"""Refuses what takes a softmax, for tasks whose logits have none.

A softmax over probabilities of their own, or over measured values, would give
numbers, and wrong ones. Losses are left to the user where a sigmoid could be
meant; those that cannot mean anything are refused too.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxkd import losses, tasks
from jaxkd.errors import UserError
from jaxkd.run import terms

SOFTMAX, VALUES = 'softmax', 'values'
# Losses of `jaxkd.losses.responses` that compare plain numbers.
_OF_NUMBERS = ('logit_mse', 'noisy_logit_mse')
_FUSIONS = ('mean_probabilities', 'geometric_mean', 'majority_vote')
_WEIGHTS = ('validation', 'confidence', 'router')
_NO = 'leave it empty'


def check(config: Mapping[str, Any], own_arms: Mapping[str, dict]) -> None:
  """Refuses entries that take a softmax of what the task's nets predict.

  Args:
    config: of a round.
    own_arms: the config of each arm.

  Raises:
    UserError: there is one, and the task has no softmax.
  """
  name = config['task']
  kind = tasks.logits_of(name)
  if kind == SOFTMAX:
    return
  found = [_of_teachers(config), _of_terms(config, kind, 'teachers')]
  for own in own_arms.values():
    found += [_of_students(own), _of_terms(own, kind)]
  for each in found:
    for entry, todo in each:
      raise UserError(
        f'{entry}: it takes a softmax over the classes, and nets of the task '
        f'{name} have none; {todo}'
      )


def _of_teachers(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  for name, entry in config['teachers'].items():
    at = f'teachers.{name}'
    if entry['made_of'] and entry['fuse'] != 'mean_logits':
      yield f'{at}.fuse', "set it to 'mean_logits'"
    if entry['specialize']['of']:
      yield f'{at}.specialize.of', _NO
    if entry['cache']['top']:
      yield f'{at}.cache.top', 'set it to 0'


def _of_students(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  for name, entry in config['students'].items():
    if entry['logit_shift']:
      yield f'students.{name}.logit_shift', _NO
  generator = config['data']['generated']['name']
  if generator and ':' not in generator:
    yield 'data.generated.name', f'{_NO}, or name a function of yours'


def _of_terms(
  config: Mapping[str, Any], kind: str, section: str = ''
) -> Iterator[tuple[str, str]]:
  """Entries of terms; of all groups of teachers, or of the students."""
  distills = {'': config['distill']}
  if section:
    distills = {
      f'{section}.{name}.': entry['distill']
      for name, entry in config[section].items()
    }
  for at, distill in distills.items():
    for name, term in terms.in_use(distill).items():
      for entry, todo in _of_term(term, kind):
        yield f'{at}distill.{name}.{entry}', todo


def _of_term(term: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str]]:
  if term['fuse'] in _FUSIONS:
    yield 'fuse', "set it to 'mean_logits'"
  if term['fuse_weights'] in _WEIGHTS:
    yield 'fuse_weights', _NO
  if term['top']:
    yield 'top', 'set it to 0'
  for entry in ('when', 'example_weight'):
    if term[entry] in losses.__all__:
      yield entry, f'{_NO}, or name a function of yours'
  loss = getattr(losses, term['loss'], None) if kind == VALUES else None
  of_logits = loss and loss.__module__.endswith('.responses')
  if of_logits and term['loss'] not in _OF_NUMBERS:
    yield 'loss', "choose 'squared_error', 'teacher_bounded' or 'logit_mse'"
