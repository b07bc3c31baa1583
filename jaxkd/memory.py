"""Memory that a program on a CPU has given back, kept for the next one.

Each call of a program asks for all of its memory anew. On Linux the C library
hands large pieces back to the system as soon as they are free, and the system
clears every page of them before the next call may have it.
"""

import ctypes
import os
import platform

# Of mallopt, as <malloc.h> numbers them.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
  """Lets this process keep the memory that is freed, until it ends.

  It then holds as much as it ever needed at once, and somewhat more. A user
  who has set the C library's own variables, ``MALLOC_...``, is left with that.

  Returns:
    Whether it does: the C library is glibc, and nothing else was chosen.
  """
  chosen = any(name.startswith('MALLOC_') for name in os.environ)
  if chosen or platform.libc_ver()[0] != 'glibc':
    return False
  library = ctypes.CDLL(None)
  # One arena, since those of other threads than the first cannot grow large.
  options = (_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0), (_ARENA_MAX, 1)
  return all(library.mallopt(*option) == 1 for option in options)
