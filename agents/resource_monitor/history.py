"""Samples as files in a session's folder, in two resolutions: minutes of seconds, and days of minutes.

Each is a file of JSON lines that begins again when it is full; the full one is kept beside it, the one before is gone.
"""

from contextlib import suppress
from pathlib import Path

from runtime.home.home import PRIVATE

SECONDS, MINUTES = "seconds", "minutes"
MOST_LINES = {SECONDS: 900, MINUTES: 1440}
"""Lines after which a file begins again: a quarter of an hour of seconds, a day of minutes."""
LONGEST_LINE = 1 << 16
"""Bytes of a line; a longer one is left out."""


class BoundedLines:
    """One such file; what an earlier process wrote into it counts."""

    def __init__(self, folder: Path, resolution: str) -> None:
        self._path = folder / f"{resolution}.jsonl"
        self._most = MOST_LINES[resolution]
        self._lines: int | None = None

    def add(self, line: bytes) -> None:
        """Append a line. A disk that is full loses it: nothing waits for samples."""
        if len(line) > LONGEST_LINE:
            return
        with suppress(OSError):
            if self._lines is None:
                self._path.parent.mkdir(mode=PRIVATE, exist_ok=True)
                earlier = self._path.read_bytes() if self._path.exists() else b""
                self._lines = earlier.count(b"\n")
                # A line that a kill cut off is ended, so that it takes no other with it.
                line = line if earlier[-1:] in (b"", b"\n") else b"\n" + line
            if self._lines >= self._most:
                self._path.replace(self._path.with_suffix(".before.jsonl"))
                self._lines = 0
            with self._path.open("ab") as file:
                file.write(line + b"\n")
            self._lines += 1
