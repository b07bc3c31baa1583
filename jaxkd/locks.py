"""Locks on folders: one process at a time, on a disk or in a bucket.

On a disk the kernel holds the lock and takes it back however the process ends.
A bucket has no such locks. There a lock is a numbered file, `.lock/00000001`,
which the store lets one writer create; the highest number has the folder. Its
owner writes it again every `BEAT` seconds. Another process takes the next
number where the owner has said that it is done, or is known to have died on
this machine, or has written nothing for `STALE` seconds. That is measured by
how long the file stays the same, so no two clocks are compared. An owner that
was only suspended finds the higher number when it goes on, and stops.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import logging

from jaxkd import files
from jaxkd.errors import UserError, within, writing

FILE = '.lock'
BEAT = 15.0  # seconds between two signs of life
STALE = 60.0  # seconds without one


@contextlib.contextmanager
def locked(folder: os.PathLike, *, at: str) -> Iterator[Callable[[], None]]:
  """Keeps other processes out of a folder, which is made if need be.

  Args:
    folder: on a disk or in a bucket.
    at: the flag or the config entry that names it, for errors.

  Yields:
    A function that raises a `UserError` if the lock has been lost, to another
    process that took this one for dead. On a disk it never is.

  Raises:
    UserError: the folder cannot be written, or another process is at work.
  """
  how = _in_bucket if files.is_remote(folder) else _on_disk
  with how(folder, at) as check:
    yield check


def owner(folder: os.PathLike) -> str:
  """Who has the lock of a folder, in words; empty if nobody is known."""
  place = files.as_path(folder) / FILE
  if files.is_remote(place):
    number = max(_numbers(place), default=0)
    return _read(place, number).get('owner', '') if number else ''
  return place.read_text() if place.exists() else ''


def is_lock(path: str) -> bool:
  """Whether a file is one of these locks, by its path."""
  return FILE in Path(path).parts


def _myself() -> str:
  return f'process {os.getpid()} on {socket.gethostname()}'


def _busy(folder: os.PathLike, at: str, who: str) -> UserError:
  return UserError(
    f'{at}: {who or "another process"} is at work in {folder}; wait until it '
    'has ended, or choose another folder'
  )


@contextlib.contextmanager
def _on_disk(folder: Path, at: str) -> Iterator[Callable[[], None]]:
  with within(f'{at}: '), writing(folder):
    files.make_folder(folder)
    file = (folder / FILE).open('a+')
  with file:  # it stays: removed, it could be locked twice
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise _busy(folder, at, file.read()) from error
    except OSError as error:
      logging.warning('%s cannot be locked (%s)', folder, error.strerror)
    file.truncate(0)
    file.write(_myself())
    file.flush()
    os.fsync(file.fileno())  # for other hosts to see
    yield lambda: None


@contextlib.contextmanager
def _in_bucket(folder: Any, at: str) -> Iterator[Callable[[], None]]:
  place = folder / FILE
  with within(f'{at}: '), writing(folder):
    number = _taken(place, folder, at)
  lost, done = threading.Event(), threading.Event()
  signs = threading.Thread(
    target=_give_signs, args=(place, number, lost, done), daemon=True
  )
  signs.start()

  def check():
    if lost.is_set():
      raise UserError(
        f'{at}: {owner(folder) or "another process"} has taken this process '
        f'for dead, as it wrote nothing to {folder} for {STALE:.0f} s, and '
        'goes on there; leave the run to it'
      )

  try:
    yield check
  finally:
    done.set()
    signs.join()
    if not lost.is_set():
      with contextlib.suppress(Exception):  # it will be found stale
        _write(place, number, free=True)


def _taken(place: Any, folder: Any, at: str) -> int:
  """Takes the next number; returns it.

  Raises:
    UserError: another process has the folder, or was faster.
  """
  last = max(_numbers(place), default=0)
  if last:
    _wait_for_end(place, last, folder, at)
  own = last + 1
  try:
    _write(place, own, mode='create')
  except Exception as error:
    if not isinstance(error, FileExistsError) and _status(error) != 412:
      raise
    raise _busy(folder, at, _read(place, own).get('owner', '')) from error
  if max(_numbers(place)) > own:  # taken meanwhile by one that waited long
    raise _busy(folder, at, owner(folder))
  for number in _numbers(place):
    if number < own:
      with contextlib.suppress(Exception):  # higher numbers count alone
        files.remove(place / _name(number))
  return own


def _wait_for_end(place: Any, number: int, folder: Any, at: str) -> None:
  """Returns once the owner of a number is known, or taken, to have ended."""
  first = _read(place, number)
  if first.get('free') or _has_died(first):
    return
  who = first.get('owner', '') or 'another process'
  logging.warning(
    '%s: %s has not said that it ended; waiting up to %.0f s for a sign of it',
    folder,
    who,
    STALE,
  )
  begun = time.monotonic()
  while time.monotonic() - begun < STALE:
    time.sleep(min(1.0, STALE / 4))
    now = _read(place, number)
    if now.get('free'):
      return
    if now != first:
      raise _busy(folder, at, who)
  logging.warning(
    '%s: no sign of %s for %.0f s; its lock is taken over', folder, who, STALE
  )


def _has_died(held: dict) -> bool:
  """Whether a process of this machine wrote it that is no longer there."""
  own = _machine()
  if not own or held.get('machine') != own:
    return False
  return not Path('/proc', str(held.get('pid'))).exists()


def _machine() -> str:
  """What tells this start of this machine, and this container, from others.

  Empty where the system does not tell.
  """
  try:
    boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.stat("/proc/self/ns/pid").st_ino}'
  except OSError:
    return ''


def _give_signs(
  place: Any, number: int, lost: threading.Event, done: threading.Event
) -> None:
  """Writes the lock again and again, until it is done or lost."""
  count = 0
  while not done.wait(BEAT):
    count += 1
    try:
      if max(_numbers(place), default=number) > number:
        lost.set()
        return
      _write(place, number, count=count)
    except Exception as error:  # the store may be back the next time
      logging.warning('%s cannot be renewed (%s)', place, error)


def _name(number: int) -> str:
  return f'{number:08d}'


def _numbers(place: Any) -> list[int]:
  return [int(name) for name in files.below(place) if name.isdecimal()]


def _read(place: Any, number: int) -> dict:
  """What a lock says; empty if it is gone or damaged."""
  try:
    held = json.loads((place / _name(number)).read_text())
  except (FileNotFoundError, ValueError):
    return {}
  return held if isinstance(held, dict) else {}


def _write(
  place: Any, number: int, *, mode: str = 'overwrite', **facts: Any
) -> None:
  """Writes a lock, with mode 'create' only if there is none of this number."""
  held = {'owner': _myself(), 'pid': os.getpid(), 'machine': _machine()}
  text = json.dumps({**held, **facts})
  store = files.filesystem(place)
  key = os.fspath(place / _name(number))
  store.pipe_file(key, text.encode(), mode=mode)


def _status(error: Exception) -> int:
  """The status of an error that came over HTTP; 0 where it did not."""
  code = str(getattr(error, 'code', ''))
  return int(code) if code.isdecimal() else 0
