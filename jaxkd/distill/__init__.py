"""Distillation: terms of the loss, and the step that trains on them."""

# `step` and `term` are also the names of files. Here they are the functions;
# internal code imports from the files.
from jaxkd.distill.api import Step, mesh, step
from jaxkd.distill.fusion import fused
from jaxkd.distill.model import Model, net, variables_of
from jaxkd.distill.term import term
from jaxkd.distill.transfer import conditional, weighted

__all__ = [
  'Model',
  'Step',
  'conditional',
  'fused',
  'mesh',
  'net',
  'step',
  'term',
  'variables_of',
  'weighted',
]
