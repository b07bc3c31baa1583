"""Texts: documents, conversations, vocabularies, rows of tokens."""
