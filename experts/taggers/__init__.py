"""Families of taggers, behind experts.tags."""
