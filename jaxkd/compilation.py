"""How programs are compiled: quickly where they run once, else to run fast."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax

# XLA:CPU spends 19 s on drawing the parameters of a small residual network,
# and 2 s without these of its passes.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
  'xla_cpu_parallel_codegen_split_count': 1,
}
# More than half of what is left; later releases have no choice.
if jax.__version_info__ < (0, 11):
  _QUICK['xla_cpu_use_fusion_emitters'] = False

# XLA:CPU hands products, sums and convolutions to a library, YNNPACK. Of
# convolutions its own are faster: the gradient of a kernel takes a quarter of
# the time, and the forward pass uses all cores.
_LIBRARY = 'xla_cpu_experimental_ynn_fusion_type'
_FAST = {
  _LIBRARY: 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'
}
_all_quickly = False


def once(function: Callable, **options: Any) -> Callable:
  """A compiled function whose compilation takes longer than its run.

  Args:
    function: any.
    **options: as `jax.jit` takes them.
  """
  quick = _QUICK if jax.default_backend() == 'cpu' else None
  return jax.jit(function, compiler_options=quick, **options)


def jit(function: Callable, **options: Any) -> Callable:
  """A compiled function that runs often, and may hold convolutions.

  Within `quickly` it is compiled as `once` does.

  JAX takes no such options for a function that is called while another one is
  traced; there `jax.jit` serves, and the options are those of the other.

  Args:
    function: any.
    **options: as `jax.jit` takes them.
  """
  if _all_quickly:
    return once(function, **options)
  fast = _fast() if jax.default_backend() == 'cpu' else None
  return jax.jit(function, compiler_options=fast, **options)


@contextlib.contextmanager
def quickly(wanted: bool) -> Iterator[None]:
  """Has all threads compile quickly meanwhile, for a run of little to compute.

  Args:
    wanted: if not, nothing changes.
  """
  global _all_quickly
  before = _all_quickly
  _all_quickly = before or wanted
  try:
    yield
  finally:
    _all_quickly = before


@functools.cache
def _fast() -> dict[str, str] | None:
  """What makes convolutions fast, where the compiler knows of it."""
  if _LIBRARY in os.environ.get('XLA_FLAGS', ''):
    return None  # the user's own choice
  try:
    jax.jit(lambda: 0, compiler_options=_FAST).lower().compile()
  except jax.errors.JaxRuntimeError:
    return None
  return _FAST
