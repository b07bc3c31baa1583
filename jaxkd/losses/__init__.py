"""Distillation losses: pure functions on arrays, unreduced over the batch."""
