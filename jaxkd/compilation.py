"""Compiling quickly what runs once."""

from collections.abc import Callable

import jax

# XLA:CPU spends 19 s on drawing the parameters of a small residual network,
# and 2 s without these of its passes.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}


def once(function: Callable) -> Callable:
  """A compiled function whose compilation takes longer than its run."""
  options = _QUICK if jax.default_backend() == 'cpu' else None
  return jax.jit(function, compiler_options=options)
