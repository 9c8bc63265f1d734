"""Captions held against what is true of their pictures."""
