"""Stage 2: the teachers, trained here or restored."""
