"""Figures of merit that hold what a stage says against what is true of a scene."""
