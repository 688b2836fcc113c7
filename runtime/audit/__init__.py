"""Verdicts on sessions that need no trust in whoever ran them. Each mode is a module of its own; all only read."""

from runtime.audit.entries import bundle, log
from runtime.replay.verdict import UNANCHORED, Divergence, Verdict

__all__ = ["UNANCHORED", "Divergence", "Verdict", "bundle", "log"]
