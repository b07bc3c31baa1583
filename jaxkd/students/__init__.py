"""Stage 4: the students, arm by arm."""
