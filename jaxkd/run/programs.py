"""Compiled programs: kept on disk from one run to the next, and counted."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import platform
import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import logging
from rich.console import Console

MOST = 2**30  # bytes of the folder
_SUFFIX = '-cache'  # of JAX's files
_QUICKEST = 'jax_persistent_cache_min_compile_time_secs'


def keep() -> str:
  """Has JAX keep all compiled programs on disk, and find them there again.

  Where the user names a folder to JAX, by ``$JAX_COMPILATION_CACHE_DIR`` or
  its config, it is that one. Else it is one of the user's cache, which is
  trimmed to `MOST` bytes whenever a run starts. A folder that cannot be
  written is a warning and no error.

  Returns:
    The folder; empty where no programs are kept.
  """
  if not jax.config.jax_enable_compilation_cache:
    return ''
  named = jax.config.jax_compilation_cache_dir
  if named == '':
    return ''
  if _QUICKEST.upper() not in os.environ:
    # JAX's limit is a second, and most programs of a small run take less:
    # together, a quarter of all its compilation.
    jax.config.update(_QUICKEST, 0.0)
  if named is not None:
    return named
  try:
    folder = directory()
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / uuid.uuid4().hex
    probe.touch()
    probe.unlink()
  except (OSError, RuntimeError) as error:
    logging.warning('compiled programs are not kept: %s', error)
    return ''
  jax.config.update('jax_compilation_cache_dir', str(folder))
  threading.Thread(target=trim, args=(folder, MOST), daemon=True).start()
  return str(folder)


@contextlib.contextmanager
def kept(console: Console) -> Iterator['Count']:
  """Keeps programs, says where, and counts those of all threads meanwhile."""
  folder = keep()
  if folder:
    console.print(
      f'compiled programs are kept in {folder}',
      style='dim',
      markup=False,
      highlight=False,
      soft_wrap=True,
    )
  with counted(of_all_threads=True) as made:
    yield made


def directory() -> Path:
  """The folder of this machine's programs, in the user's cache.

  Programs for a CPU use what its processor has, and JAX does not promise to
  tell them apart: in a home that different machines share, one might read what
  it cannot execute. So every kind of processor has a folder.

  Raises:
    RuntimeError: the user has no home.
  """
  root = os.environ.get('XDG_CACHE_HOME')
  cache = Path(root) if root else Path.home() / '.cache'
  return cache / 'jaxkd' / 'programs' / _processor()


def _processor() -> str:
  """A name for what the processor can execute."""
  facts = [platform.machine(), platform.processor()]
  with contextlib.suppress(OSError):
    text = Path('/proc/cpuinfo').read_text(errors='replace')
    for line in ('model name', 'flags', 'Features', 'CPU part'):
      found = re.search(rf'^{line}\s*: (.*)$', text, re.MULTILINE)
      facts.append(found[1] if found else '')
  return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def trim(folder: Path, most: int) -> None:
  """Removes the programs that were used longest ago.

  JAX has a limit of its own, but looks at every file of the folder whenever it
  adds one: a sixth of a second each among 4,000 programs.

  Args:
    folder: of JAX's files.
    most: bytes that they may take.
  """
  found = []
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    for entry in entries:
      with contextlib.suppress(OSError):  # another process has removed it
        if entry.name.endswith(_SUFFIX):
          stat = entry.stat()
          used = max(stat.st_atime, stat.st_mtime)
          found.append((used, stat.st_size, entry.path))
  total = 0
  for _, size, path in sorted(found, reverse=True):
    total += size
    if total > most:
      with contextlib.suppress(OSError):
        os.unlink(path)


@dataclasses.dataclass
class Count:
  """Programs that were made ready to run.

  Attributes:
    seconds: what was compiled -> how long it took, all programs of that name.
    compiled: how many were compiled.
    found: how many were found on disk.
  """

  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  compiled: int = 0
  found: int = 0

  @property
  def total(self) -> float:
    """Seconds of all that was compiled."""
    return sum(self.seconds.values())

  def __str__(self):
    """What was compiled, in words; empty if nothing was."""
    if not self.compiled:
      return ''
    name = max(self.seconds, key=self.seconds.get)
    slowest = f', {name} in {self.seconds[name]:.1f} s'
    found = f'; {self.found} more found compiled' if self.found else ''
    programs = 'program' if self.compiled == 1 else 'programs'
    return (
      f'{self.compiled} {programs} compiled in {self.total:.1f} s'
      f'{slowest if len(self.seconds) > 1 else ""}{found}'
    )


@contextlib.contextmanager
def counted(*, of_all_threads: bool = False) -> Iterator[Count]:
  """Counts the programs that are made ready meanwhile.

  Args:
    of_all_threads: whether to count those of other threads too.
  """
  _listen()
  opened = Count(), None if of_all_threads else threading.get_ident()
  _counts.append(opened)
  try:
    yield opened[0]
  finally:
    # By identity: equal counts may be open.
    _counts[:] = [each for each in _counts if each is not opened]


_counts: list[tuple[Count, int | None]] = []
_hit = threading.local()  # whether the thread has just found a program on disk


@functools.cache
def _listen() -> None:
  """Has JAX tell of each program; a listener cannot be taken back."""

  def on_event(event, **facts):
    if event == '/jax/compilation_cache/cache_hits':
      _hit.now = True

  def on_duration(event, seconds, **facts):
    if event != '/jax/core/compile/backend_compile_duration':
      return
    hit, _hit.now = getattr(_hit, 'now', False), False
    called = str(facts.get('fun_name', 'a program'))
    name = re.sub(r'^jit\((.*)\)$', r'\1', called)
    for count, thread in list(_counts):
      if thread not in (None, threading.get_ident()):
        continue
      if hit:
        count.found += 1
      else:
        count.compiled += 1
        count.seconds[name] = count.seconds.get(name, 0.0) + seconds

  jax.monitoring.register_event_listener(on_event)
  jax.monitoring.register_event_duration_secs_listener(on_duration)
