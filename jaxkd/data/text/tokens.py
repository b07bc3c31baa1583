"""The numbers of the tokens that are no words."""

from typing import Any, NamedTuple

PAD, UNK, BOS, EOS = 0, 1, 2, 3


class Special(NamedTuple):
  """The special tokens of one vocabulary; by default those of our own.

  Attributes:
    pad: fills rows up. It may be another special token, so lengths are told
      by ``valid``, ``segments`` or ``prompt_length``, and not by it.
    bos: begins a document.
    eos: ends a document or an answer.
    unk: stands for what the vocabulary cannot write; None if it can write all.
  """

  pad: int = PAD
  bos: int = BOS
  eos: int = EOS
  unk: int | None = UNK


def shifted(tokens: Any) -> Any:
  """What comes before each token of a sentence: `BOS`, then all but the last.

  Args:
    tokens: int [..., L], of NumPy or JAX.
  """
  xp = tokens.__array_namespace__()
  first = xp.full_like(tokens[..., :1], BOS)
  return xp.concatenate([first, tokens[..., :-1]], axis=-1)
