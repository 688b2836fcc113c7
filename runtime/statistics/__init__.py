"""Intervals and tests of figures: pure functions, in which everything random is drawn from a seed."""
