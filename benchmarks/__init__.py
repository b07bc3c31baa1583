"""Stored rows and speed figures, and the programs that measure speed."""
