"""Distillation: terms of the loss, and the step that learns by them."""

# `term` is both a function and the file that it is made of. The function is
# what the package gives, so internal code imports names from the file.
from jaxkd.distill.fusion import fused
from jaxkd.distill.term import term
from jaxkd.distill.transfer import conditional, weighted

__all__ = ['conditional', 'fused', 'term', 'weighted']
