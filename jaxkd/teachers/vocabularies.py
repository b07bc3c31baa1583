"""Vocabularies: whether a restored teacher's tokens are those of the data.

Probabilities are compared token by token, so token 5 must be the same piece of
text on both sides. Where it is not, losses would still be numbers, and wrong.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxkd import models
from jaxkd.data import views
from jaxkd.data.sources import Source
from jaxkd.data.text.alignment import STUDENT
from jaxkd.errors import UserError
from jaxkd.models import hugging_face, pytorch
from jaxkd.models.given import Given
from jaxkd.students import stored

TOKENIZER = 'tokenizer.json'
CHOICES = (
  'restore a teacher of this tokenizer, or let the students learn texts that '
  'it has written (sequence-level distillation), or give it tokens of its own '
  "(data.source='two_tokenizers') and compare by universal_logit_distance"
)


def check_restored(
  name: str, entry: Mapping[str, Any], pieces: Sequence[str], source: Source
) -> list[str]:
  """Refuses a teacher whose tokens mean something else than those of the data.

  Args:
    name: the group's.
    entry: its complete entry in the config.
    pieces: what each of its tokens stands for; empty if nothing tells.
    source: the data.

  Returns:
    Notes for the row.

  Raises:
    UserError: a token is another one there, or is missing there.
  """
  if not source.vocabulary or entry['classes'] or entry['reads']:
    return []  # no tokens, or such as the config says to be others
  here, at = source.classes, f'teachers.{name}.restore'
  if not _are_names(pieces) or not _are_names(here):
    return [
      f'nothing tells which tokens the restored teachers {name} know; token '
      f'numbers are taken to be those of {source.name}'
    ]
  for number, (a, b) in enumerate(zip(pieces, here, strict=False)):
    if a != b:
      raise UserError(
        f'{at}: token {number} is {a!r} there and {b!r} in {source.name}; '
        f'{CHOICES}; if they mean the same, set teachers.{name}.classes='
        f'{len(here)}'
      )
  if len(pieces) < len(here):
    raise UserError(
      f'{at}: it knows {len(pieces):,} tokens, the first of the '
      f'{len(here):,} of {source.name}; {CHOICES}'
    )
  if len(pieces) > len(here) and _rows(entry) < len(pieces):
    raise UserError(
      f'{at}: it knows {len(pieces):,} tokens, of which {source.name} has the '
      f'first {len(here):,}; write teachers.{name}.kw.vocabulary='
      f'{len(pieces)} to leave out the logits of the others'
    )
  if len(pieces) > len(here):
    return [
      f'the restored teachers {name} know {len(pieces):,} tokens, of which '
      f'{source.name} has the first {len(here):,}: they never see the others, '
      'nor are these compared'
    ]
  return []


def pieces_of(restore: str, folder: Path | Given) -> Sequence[str]:
  """The pieces that a restored teacher says that it knows; else none.

  Args:
    restore: the entry `restore`, which says what is there.
    folder: what it names.
  """
  if restore.startswith(pytorch.PREFIX) or isinstance(folder, Given):
    return ()
  if hugging_face.is_folder(restore):
    return of_folder(folder)
  return stored.description(folder).get('classes', ())


def padding(at: str, entry: Mapping[str, Any], source: Source) -> list[str]:
  """The note on a head with more rows than the data have tokens.

  Args:
    at: the net's entry, as ``teachers.main``.
    entry: the complete entry of a teacher or a student.
    source: the data.
  """
  rows = _rows(entry)
  if not source.vocabulary or rows <= source.num_classes:
    return []
  return [
    f'the head of {at} has {rows:,} rows, and {source.name} '
    f'{source.num_classes:,} tokens: the logits of the other '
    f'{rows - source.num_classes:,} rows are left out, and probabilities are '
    'over what is left'
  ]


def check_own_tokens(at: str, entry: Mapping[str, Any], source: Source) -> None:
  """Refuses a teacher of other tokens that would read those of the data.

  Args:
    at: the teacher's entry, as ``teachers.main``.
    entry: the complete entry.
    source: the data.

  Raises:
    UserError: it has tokens of its own and no part of the inputs.
  """
  own = entry.get('classes', 0)
  if not source.vocabulary or own in (0, source.num_classes) or entry['reads']:
    return
  for use in ('train', 'eval'):
    view = views.parse(entry['views'][use], at=f'{at}.views.{use}')
    if views.part_of(view) in ('', STUDENT):
      raise UserError(
        f'{at}.classes: it knows {own:,} tokens and would be shown the numbers '
        f'of the {source.num_classes:,} of {source.name}; take '
        "data.source='two_tokenizers', and show it its own by "
        f'{at}.views.{use}="part(\'teacher\')"'
      )


def of_folder(folder: Path) -> tuple[str, ...]:
  """The pieces of a folder's ``tokenizer.json``; empty if there is none.

  Args:
    folder: of Hugging Face.

  Raises:
    UserError: a file that is no tokenizer.
  """
  file = folder / TOKENIZER
  if not file.is_file():
    return ()
  try:
    said = json.loads(file.read_text(encoding='utf-8'))
    known = said['model']['vocab']
    if isinstance(known, Mapping):
      numbers = {number: piece for piece, number in known.items()}
    else:  # pieces with their scores, in the order of their numbers
      numbers = {number: piece for number, (piece, _) in enumerate(known)}
    added = said.get('added_tokens') or ()
    numbers |= {token['id']: token['content'] for token in added}
    return tuple(numbers.get(i, '') for i in range(1 + max(numbers)))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{file} is no tokenizer of the package tokenizers; repair it'
    ) from error


def _are_names(pieces: Sequence[str]) -> bool:
  """Whether these are pieces of text, and not numbers for want of them."""
  return tuple(pieces) != tuple(map(str, range(len(pieces))))


def _rows(entry: Mapping[str, Any]) -> int:
  """Rows of the head, where the model has an option for more than tokens."""
  _, fixed = models.resolve(entry['model'])
  rows = {**fixed, **entry['kw']}.get('vocabulary', 0)
  return rows if isinstance(rows, int) else 0
