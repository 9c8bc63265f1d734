"""Families of score models, behind experts.aesthetic, nsfw and watermark."""
