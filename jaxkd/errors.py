"""One kind of error for everything that a user can put right."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """A mistake in a config, a flag, a file or the data.

  The message is one sentence that names the entry at fault and says what to
  do; the scripts print it without a traceback and exit with code 2.
  """


def unknown(
  kind: str, name: str, known: Iterable[str], at: str = ''
) -> UserError:
  """The error for a name that is not there, with the nearest known ones.

  Args:
    kind: what the name should have named, e.g. ``'loss'``.
    name: the name given.
    known: the names there are.
    at: the config entry that held it, e.g. ``'distill.soft.loss'``.
  """
  known = sorted(map(str, known))
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  where = f'{at}: ' if at else ''
  did = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
  return UserError(
    f'{where}there is no {kind} {name!r}{did} '
    f'(known: {", ".join(known) or "none"})'
  )
