"""Semantic duplicates: rows whose cosine lies above a threshold, found without ever holding a similarity matrix."""
