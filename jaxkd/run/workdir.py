"""The folder of a run: the lock on it, and whether it is of the same run."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxkd import files, locks
from jaxkd.errors import UserError, reading, within, writing
from jaxkd.run_files import COMPUTED, CONFIG, MADE, PROVENANCE, ROW
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
