"""Verdicts on sessions that need no trust in the people who ran them. Each mode has a module; all of them only read."""

from runtime.audit.log_check import check_bundle, check_log
from runtime.replay.verdict import UNANCHORED, Divergence, Verdict

__all__ = ["UNANCHORED", "Divergence", "Verdict", "check_bundle", "check_log"]
