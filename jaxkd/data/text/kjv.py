"""The King James Bible, as Debian has it."""

import re
import shutil
import subprocess

from jaxkd.errors import UserError

PROGRAM = 'bible'
INSTALL = 'apt-get install bible-kjv bible-kjv-text'
_VERSE = re.compile(r'([1-3]?[A-Za-z]+\d+):\d+ (.+)')  # Ge1:1 In the beginning


def chapters(passage: str) -> dict[str, str]:
  """The chapters of a passage by name, a verse in each line.

  Args:
    passage: as the program takes it, e.g. 'gen1:1-deu34:12'. What is beyond the
      last chapter of a book is taken as that.

  Raises:
    UserError: the program or its text is not installed, or there is no such
      passage.
  """
  program = shutil.which(PROGRAM)
  told, said = None, 'no verses'
  if program and re.match(r'\w', passage):
    told = subprocess.run(
      [program, '-f', passage],
      stdin=subprocess.DEVNULL,
      capture_output=True,
      check=False,
      text=True,
    )
    said = told.stderr.strip() or said
  if not program or (told and told.returncode):
    raise UserError(
      "data.source: kjv is read from Debian's packages bible-kjv and "
      f'bible-kjv-text, which are not installed; run `{INSTALL}`, or take a '
      'text of your own as text:PATH'
    )
  found: dict[str, list[str]] = {}
  for line in told.stdout.splitlines() if told else ():
    if verse := _VERSE.fullmatch(line.strip()):
      found.setdefault(verse[1], []).append(verse[2])
  if not found or told.stderr:
    raise UserError(
      f'data.kw.passage: {passage!r} is no passage ({said}); write one as in '
      "'gen1:1-deu34:12'"
    )
  return {chapter: '\n'.join(verses) for chapter, verses in found.items()}
