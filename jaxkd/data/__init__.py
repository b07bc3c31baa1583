"""Stage 1: the data, who sees which of it, and how it looks to them."""
