"""Logits over vocabularies that are too large to form them."""

from jaxkd.logits.factored import Factored as Factored
from jaxkd.logits.sparse import SparseLogits as SparseLogits
