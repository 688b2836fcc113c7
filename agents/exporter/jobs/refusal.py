"""Why no file can be made: raised anywhere in a job, told as its answer, said by the agent as `export.refused`."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import Any

from runtime.jobs.job import Job

SECONDS = 900
"""A library that hangs on a model is ended by the system after this time: a death of the job like any other."""


class Unexportable(Exception):
    """This model cannot become this file: a code for machines, a sentence and a cure for people."""

    def __init__(self, code: str, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.cure = code, message, cure


def refusing(main: Callable[[Job], dict[str, Any]]) -> Callable[[Job], dict[str, Any]]:
    """A job function whose refusals are answers, and whose time is limited when it has a process of its own."""

    @functools.wraps(main)
    def guarded(job: Job) -> dict[str, Any]:
        if threading.current_thread() is threading.main_thread():
            signal.alarm(SECONDS)
        try:
            return main(job)
        except Unexportable as error:
            return {"refused": {"code": error.code, "message": error.message, "cure": error.cure}}
        except ModuleNotFoundError as error:
            cure = f"pip install {error.name}"
            return {
                "refused": {"code": "missing-module", "message": f"there is no module {error.name!r}.", "cure": cure}
            }

    return guarded
