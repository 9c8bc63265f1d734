"""Families of text readers, behind experts.ocr."""
