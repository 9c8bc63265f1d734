"""Embeddings that users already have, joined to a run's rows by uid or URL."""
