"""How a command ends: every error and every session becomes one exit code and one clear message, as text or as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import InvalidRequest, SwarmError, count_of, of_system
from runtime.cli import interrupts
from runtime.cli.output import cell, say, style
from runtime.views.formatting import printable_json

if TYPE_CHECKING:
    from contracts.replies import SessionReply
    from runtime.cli.call import Call, Json

NEGATIVE = 3
"""The exit code of a verification that did not hold."""


def conclude(work: Callable[[], Any], *, as_json: bool) -> int:
    """Do the work and give the exit code; what is raised is told on the stream where it belongs."""
    try:
        with interrupts.raising():
            code = work()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has closed it; Python would complain once more while it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last line of defence: nothing passes untold
        return _conclude_error(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def _conclude_error(error: BaseException, *, as_json: bool) -> int:
    if interrupts.interrupted():
        # An import or a library may have wrapped it on the way here.
        error = KeyboardInterrupt()
    ours = _known(error)
    expected = isinstance(error, SwarmError | click.ClickException | KeyboardInterrupt)
    if os.environ.get("SWARM_LOG_LEVEL", "").lower() == "debug" and not expected:
        import traceback

        say("".join(traceback.format_exception(error)), err=True)
    if ours is not None:
        return _print_error(ours.as_json(), _text(ours), ours.exit_code, as_json=as_json)
    if isinstance(error, click.ClickException):
        return _usage(error, as_json=as_json)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _print_error(
            _error_object("interrupted", "interrupted."), "interrupted", interrupts.CODE, as_json=as_json
        )
    return _defect(error, as_json=as_json)


def _known(error: BaseException) -> SwarmError | None:
    """The first error of ours among those that tasks raised together; what the system refused counts as one."""
    if isinstance(error, BaseExceptionGroup):
        return next((known for inner in error.exceptions if (known := _known(inner))), None)
    if isinstance(error, OSError):
        return of_system(error)
    return error if isinstance(error, SwarmError) else None


def _print_error(error: Json, text: str, code: int, *, as_json: bool) -> int:
    if as_json:
        import orjson

        say(printable_json(orjson.dumps({"error": error}).decode()))
    else:
        say(text, err=True)
    return code


def _error_object(code: str, message: str, cure: str = "", path: str = "") -> Json:
    return {"code": code, "message": message, "path": path, "cure": cure}


def _text(error: SwarmError) -> str:
    label = _label()
    if isinstance(error, InvalidRequest):
        count = len(error.problems)
        lines = [f"{label} the request has {count_of(count, 'problem')}."]
        for problem in error.problems:
            lines.append(f"  {style(problem.path or 'request', bold=True)}: {cell(problem.message)}")
            lines += [f"    {_hint(problem.cure)}"] if problem.cure else []
        return "\n".join(lines)
    where = f" ({error.path})" if error.path and error.path not in error.message else ""
    return f"{label} {_indented(error.message)}{where}" + (f"\n  {_hint(error.cure)}" if error.cure else "")


def _label() -> str:
    return style("error:", fg="red", bold=True)


def _hint(cure: str) -> str:
    return f"{style('hint:', fg='cyan')} {_indented(cure)}"


def _indented(text: str) -> str:
    """Lines below the first are indented: what others wrote into a message begins no line of ours."""
    return "\n  ".join(text.rstrip().splitlines())


def _usage(error: click.ClickException, *, as_json: bool) -> int:
    wants_help = isinstance(error, click.exceptions.NoArgsIsHelpError)
    if wants_help and not as_json:
        error.show()
        return error.exit_code
    context = error.ctx if isinstance(error, click.UsageError) else None
    shown = "a command is needed." if wants_help else " ".join(error.format_message().split())
    cure = f"See: {context.command_path if context else 'swarm'} --help"
    return _print_error(
        _error_object("usage", shown, cure), f"{_label()} {shown}\n  {_hint(cure)}", error.exit_code, as_json=as_json
    )


def _defect(error: BaseException, *, as_json: bool) -> int:
    import traceback
    from pathlib import Path

    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    message = f"a defect of this software: {type(error).__name__}: {error} (at {where})."
    cure = "Set SWARM_LOG_LEVEL=debug to see where it came from, and report it."
    text = f"{_label()} {_indented(message)}\n  {_hint(cure)}"
    return _print_error(_error_object("defect", message, cure, where), text, 1, as_json=as_json)


def answer_session(call: Call, summary: SessionReply) -> int:
    """Print the summary of a session as a command's answer; the exit code that says how the session ended."""
    from runtime.cli.pages import answer_page
    from runtime.views.answer_pages import session_page

    answer_page(call, summary, lambda: session_page(summary, call.words))
    return session_exit_code(summary)


def session_exit_code(summary: SessionReply) -> int:
    """0 for a session that completed, 1 for any other, 3 for an audit whose verdict is not pass."""
    if summary["state"] != "completed" or any(refusal["asked"] for refusal in summary.get("refused", ())):
        return 1
    return NEGATIVE if summary.get("verdict") not in (None, "pass") else 0
