"""How often a process that holds long logs is looked through for reference cycles. Facts hold none, and live long."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def collect_seldom() -> None:
    """Look seldom: doing it as often as Python does by default takes as long as the fold itself."""
    gc.set_threshold(50_000, 50, 100)


@contextmanager
def collection_paused() -> Iterator[None]:
    """Switch the cycle collector off while a session is read: it finds nothing and takes a third of the time."""
    sweeping = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if sweeping:
            gc.enable()
