"""What the text of a table means, the same where a model is trained and where it is asked. It opens no file."""

from __future__ import annotations

DELIMITERS = ",;\t|"


def delimiter_of(header: str) -> str:
    """What separates the cells of a CSV file, by its first line."""
    counts = {mark: header.count(mark) for mark in DELIMITERS}
    return max(DELIMITERS, key=lambda mark: counts[mark])


def shortest(value: float) -> str:
    """`1`, `1.0` and `01` are one label."""
    return str(int(value)) if value.is_integer() else repr(value)
