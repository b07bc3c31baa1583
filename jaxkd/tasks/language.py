"""Language models: the next token, given those before it.

Logits are [B, L, K], labels the tokens that follow the inputs, [B, L], of which
``valid`` of the batch says which count (all of a text, or the completions of
prompts alone), and its ``bytes`` [B, L] how many bytes of the text each stands
for. ``unknown_bytes`` [B, L] are those of words that the vocabulary does not
have, 0 for other labels; without this field there are none. Rows may be packed
with several texts: then inputs are a dict of ``tokens``, ``segments`` and
``positions``, and nothing else changes.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxkd import losses
from jaxkd.tasks import fidelity as fidelity_lib
from jaxkd.tasks.metrics import counted_valid, mean, nll_of_valid
from jaxkd.types import Metric

GROUND_TRUTH = 'cross_entropy'
LABELS = ('tokens',)
MASK = 'valid'
FIELDS = ('bytes',)
BITS = 8  # that a byte of an unknown word costs


def fidelity(teacher: str) -> dict[str, Metric]:
  """How closely a net follows a group of teachers, by token that counts.

  `agreement` is the share of tokens for which both find the same likeliest;
  `teacher_kl` the divergence from the teacher, in nats a token; `acceptance`
  the share of tokens that the net may draft for its teacher in speculative
  decoding, 1 less the total variation distance (Leviathan et al., 2023).

  Args:
    teacher: the group's name. Its members' probabilities are averaged.
  """

  def overlap(outputs, batch, teachers):
    target = fidelity_lib.log_probabilities(teachers, teacher)
    distance = losses.total_variation(outputs['logits'], target)
    return counted_valid(1 - distance, batch)

  return {
    **fidelity_lib.of_positions(teacher),
    'acceptance': Metric(overlap, mean, teacher=teacher),
  }


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Perplexity of a token, its log-likelihood, and bits for a byte of text.

  `perplexity` is the exponential of `nll`, the mean over all tokens of a split
  that count, in nats. Both depend on the vocabulary: an unknown word is a token
  like any other, and easy to guess. `bits_per_byte` does not, for it is the
  length of a code for the text, over the length of the text: a token takes the
  logarithm of its probability, and an unknown word besides its bytes, 8 bits
  each.
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
  bits = total / jnp.log(2.0)
  if 'unknown_bytes' in batch:
    bits += BITS * counted_valid(batch['unknown_bytes'], batch)[0]
  return bits, counted_valid(batch['bytes'], batch)[0]
