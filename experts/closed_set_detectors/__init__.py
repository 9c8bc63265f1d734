"""Families of detectors with labels of their own, behind experts.closed_set."""
