"""How often a process that holds long logs is looked through for cycles. Facts hold none, and live long."""

from __future__ import annotations

import gc


def seldom() -> None:
    """Look seldom: doing it as often as Python does by default takes as long as the fold itself."""
    gc.set_threshold(50_000, 50, 100)
