"""Readers of web-image metadata: which files, which columns, which rows."""
