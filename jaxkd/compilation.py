"""Compiling quickly what runs once."""

from collections.abc import Callable
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


def once(function: Callable, **options: Any) -> Callable:
  """A compiled function whose compilation takes longer than its run.

  Args:
    function: any.
    **options: as `jax.jit` takes them.
  """
  quick = _QUICK if jax.default_backend() == 'cpu' else None
  return jax.jit(function, compiler_options=quick, **options)
