"""Clips of compressed video, from files and made in code."""
