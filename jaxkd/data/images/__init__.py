"""Images from files and tables, drawn ones, and annotations."""
