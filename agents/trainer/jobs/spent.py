"""Where a training child's time goes, by name. What it measures is telemetry: no bit of training depends on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any


class PhaseSeconds:
    """Seconds by what they were spent on; what is measured inside something else is not counted twice."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._total = 0.0

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Everything inside, without what is measured there under other names."""
        begun, before = perf_counter(), self._total
        try:
            yield
        finally:
            took = perf_counter() - begun
            self._seconds[name] += took - (self._total - before)
            self._total = before + took

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted; cheap enough for every step. Nothing may be measured inside it."""

        def measured(*args: Any) -> Any:
            begun = perf_counter()
            answer = function(*args)
            took = perf_counter() - begun
            self._seconds[name] += took
            self._total += took
            return answer

        return measured

    def as_json(self) -> dict[str, float]:
        """Seconds so far, to the millisecond."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}
