"""Training of populations of anything: no distillation in here."""
