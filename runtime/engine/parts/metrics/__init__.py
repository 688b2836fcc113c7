"""Metrics over all answers of a split, one file each."""
