"""Stage 1: data sources, which examples each net sees, and their views."""
