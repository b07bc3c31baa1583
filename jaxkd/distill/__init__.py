"""Distillation: terms of the loss, and the step that learns by them."""

# `step` is both a function and the file that it is made of. The function is
# what the package gives, so internal code imports names from the file.
from jaxkd.distill.api import Step, mesh, step
from jaxkd.distill.model import Model, net, variables_of

__all__ = ['Model', 'Step', 'mesh', 'net', 'step', 'variables_of']
