"""Families of detectors that are asked about tags, behind experts.open_set."""
