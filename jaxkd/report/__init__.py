"""Reports of finished runs: rows, tables, plots, and their statistics."""
