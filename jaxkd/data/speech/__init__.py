"""Sounds, utterances with transcripts, and frames of speech."""
