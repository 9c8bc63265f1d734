"""Ratios and tables about the fusion model."""
