"""Language models: the next token, after those before it.

Logits are [B, L, K], labels the tokens that follow the inputs, [B, L], of which
``valid`` of the batch says which count, and its ``bytes`` [B, L] how many bytes
of the text each stands for.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxkd.data.tokens import UNK
from jaxkd.tasks.fidelity import of_positions
from jaxkd.tasks.metrics import counted_valid, mean, nll_of_valid
from jaxkd.types import Metric

GROUND_TRUTH = 'cross_entropy'
LABELS = ('tokens',)
MASK = 'valid'
FIELDS = ('bytes',)
fidelity = of_positions
BITS = 8  # that a byte of an unknown word costs


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Perplexity of a token, its log-likelihood, and bits for a byte of text.

  `perplexity` is the exponential of `nll`, the mean over all tokens of a split
  in nats. Both depend on the vocabulary: an unknown word is a token like any
  other, and easy to guess. `bits_per_byte` does not, for it is the length of a
  code for the text, over the length of the text: a token takes the logarithm of
  its probability, and an unknown word besides its bytes, 8 bits each.
  """
  del classes
  return {
    'perplexity': Metric(nll_of_valid, _perplexity, higher_is_better=False),
    'nll': Metric(nll_of_valid, mean, higher_is_better=False),
    'bits_per_byte': Metric(_bits, mean, higher_is_better=False),
  }


def _perplexity(total, count):
  with np.errstate(over='ignore'):  # of a net that diverged
    return np.exp(mean(total, count))


def _bits(outputs, batch, teachers):
  total, _ = nll_of_valid(outputs, batch, teachers)
  spelt = jnp.where(batch['labels'] == UNK, BITS * batch['bytes'], 0)
  return (
    total / jnp.log(2.0) + counted_valid(spelt, batch)[0],
    counted_valid(batch['bytes'], batch)[0],
  )
