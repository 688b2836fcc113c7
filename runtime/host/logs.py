"""What the processes say about themselves: structlog to stderr. These lines are for operators, no audit trail."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from runtime.views.formatting import one_line, printable


def configure(level: str = "info", *, as_json: bool = False) -> None:
    """Set up logging for this process, once."""
    colors = sys.stderr.isatty()
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=colors)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _printable(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> dict[str, Any]:
    """Everything in a line as text that steers no terminal: subjects and errors of guests are among it."""
    return {
        one_line(name): value
        if isinstance(value, bool | int | float | None)
        else (printable if name == "exception" else one_line)(str(value))
        for name, value in line.items()
    }
