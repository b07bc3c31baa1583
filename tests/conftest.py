"""Strictness for all tests, set before jax starts."""

import os
import pathlib
from importlib import metadata

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Eight devices, and programs that compile fast rather than run fast.
FLAGS = (
  '--xla_force_host_platform_device_count=8',
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
  '--xla_cpu_parallel_codegen_split_count=1',
)
# These emitters take two thirds of compiling; later releases have no choice,
# and end where they are told of an option that they do not know.
if metadata.version('jaxlib').startswith('0.10.'):
  FLAGS += ('--xla_cpu_use_fusion_emitters=false',)
os.environ.setdefault('XLA_FLAGS', ' '.join(FLAGS))
CACHE = pathlib.Path(__file__).parents[1] / '.cache' / 'xla'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')

import jax  # noqa: E402
import pytest  # noqa: E402

from jaxkd.train import sharding  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')


# Runs use one device, but in tests that are marked `all_devices`.
sharding.all_devices = lambda: jax.devices()[:1]


@pytest.fixture(autouse=True)
def _devices(request, monkeypatch):
  if 'all_devices' in request.keywords:
    monkeypatch.setattr(sharding, 'all_devices', jax.devices)


@pytest.fixture
def strict_dtypes():
  """Implicit dtype promotion raises; for code of ours alone."""
  with jax.numpy_dtype_promotion('strict'):
    yield


@pytest.fixture
def x64():
  """Double precision, to compare with float64 references."""
  with jax.enable_x64(True):
    yield
