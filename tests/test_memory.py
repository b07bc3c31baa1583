"""Freed memory is kept where the C library can be told so."""

import os
import platform
import subprocess
import sys

import pytest

# Large arrays, made and freed; prints whether the system cleared pages anew.
SCRIPT = """
import resource
import numpy as np
from jaxkd import memory
kept = memory.keep_freed()
def faults():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(8 << 20, np.uint8)
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults() < 100)
"""

glibc = pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc'
)


def run(**variables):
  names = ('PATH', 'PYTHONPATH', 'HOME')
  kept = {k: v for k, v in os.environ.items() if k in names}
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT],
    env=kept | variables,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split()


@glibc
def test_freed_memory_is_used_again():
  assert run() == ['True', 'True']


@glibc
def test_what_the_user_chose_is_left_alone():
  assert run(MALLOC_TRIM_THRESHOLD_='131072')[0] == 'False'
