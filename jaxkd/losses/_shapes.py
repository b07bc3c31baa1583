"""Specs for arrays whose positions need not be those of another."""


def free(array, name: str, *last: str) -> str:
  """The spec of [B, ..., *last] with axes in the middle of its own.

  Args:
    array: the argument, whose rank gives the number of axes; one at least.
    name: what to call them: ``name``, or ``name1``, ``name2`` and so on.
    *last: the names of the axes at the end, which other arrays may share.

  Example:
    >>> import jax.numpy as jnp
    >>> free(jnp.zeros((2, 8, 8, 3)), 'S', 'C')
    'float[B, S1, S2, C]'
  """
  middle = getattr(array, 'ndim', 0) - 1 - len(last)
  names = [f'{name}{i + 1}' for i in range(middle)] if middle > 1 else [name]
  return f'float[{", ".join(("B", *names, *last))}]'
