"""What a run has found: rows, tables, plots, and their statistics."""
