"""What a result was computed with, and when: device, versions, commit, time."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

PACKAGES = ('jaxkd', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')


def device() -> str:
  """The accelerator, or the processor and its number of cores."""
  found = jax.devices()[0]
  if found.platform != 'cpu':
    return f'{len(jax.devices())} × {found.device_kind}'
  return f'CPU, {os.cpu_count()} cores, {platform.machine()}'


def versions() -> dict[str, str]:
  """Of Python and of the packages that decide what is computed."""
  found = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {'python': platform.python_version(), **found}


def now() -> str:
  """The time, for a reader, e.g. ``2026-03-01 14:05 +0100``."""
  return datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %z')


def commit() -> str:
  """The commit of the source tree; empty for an installed package."""
  try:
    done = subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=12'],
      cwd=Path(__file__).parent,
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ''
  return done.stdout.strip()
