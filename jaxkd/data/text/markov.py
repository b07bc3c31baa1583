"""Text made in code: words that depend on the word before."""

import math

import numpy as np

LINES = 5  # of a document
_START = 0  # what stands before a line, and behind it


def documents(
  lines: int, words: int, branching: int, seed: int
) -> tuple[list[str], float]:
  """Lines of a Markov chain, and how well it can be known.

  Each word, and the beginning of a line, is followed by one of a few others,
  drawn with probabilities of its own.

  Args:
    lines: how many, `LINES` in a document.
    words: how many there are.
    branching: how many may follow each.
    seed: of the chain and of the lines.

  Returns:
    The documents, and the perplexity of the chain itself, for a word or an end
    of line: the exponential of its entropy rate.
  """
  random = np.random.default_rng(seed)
  chain = np.zeros((words + 1, words + 1))
  for i, row in enumerate(chain):
    # The next word is always among them, so that all words occur.
    after = 1 + i % words
    others = np.setdiff1d(np.arange(words + 1), (after, _START))
    chosen = random.choice(others, branching - 1, replace=False)
    row[[after, *chosen]] = random.dirichlet(np.ones(branching))
    if i != _START:
      row *= 0.9
      row[_START] = 0.1
  made = []
  for _ in range(math.ceil(lines / LINES)):
    made.append('\n'.join(_line(chain, random) for _ in range(LINES)))
  return made, math.exp(_entropy_rate(chain))


def _line(chain: np.ndarray, random: np.random.Generator) -> str:
  found, now = [], _START
  while True:
    now = random.choice(len(chain), p=chain[now])
    if now == _START:
      return ' '.join(found)
    found.append(f'w{now}')


def _entropy_rate(chain: np.ndarray) -> float:
  """Of the states, weighed by how often each occurs in the long run."""
  values, vectors = np.linalg.eig(chain.T)
  often = np.real(vectors[:, np.argmax(np.real(values))])
  often /= often.sum()
  surprise = -np.log(chain, out=np.zeros_like(chain), where=chain > 0)
  return float(often @ (chain * surprise).sum(1))
