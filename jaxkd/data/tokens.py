"""The numbers of the tokens that are no words."""

from typing import Any

PAD, UNK, BOS, EOS = 0, 1, 2, 3


def shifted(tokens: Any) -> Any:
  """What comes before each token of a sentence: `BOS`, then all but the last.

  Args:
    tokens: int [..., L], of NumPy or JAX.
  """
  xp = tokens.__array_namespace__()
  first = xp.full_like(tokens[..., :1], BOS)
  return xp.concatenate([first, tokens[..., :-1]], axis=-1)
