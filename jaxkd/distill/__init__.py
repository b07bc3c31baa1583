"""Stage 3: what is distilled, from where, and how it is transferred."""
