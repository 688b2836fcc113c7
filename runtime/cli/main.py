"""The command `swarm`: finds the command asked for, runs it, and ends with its exit code. It does no work itself.

Exit codes: 0 ok, 1 failed, 2 usage or invalid input, 3 verification negative, 4 not found, 5 bus unreachable,
6 refused, 124 timed out, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from runtime.cli.call import remember, shared
from runtime.cli.lazy import LazyGroup
from runtime.cli.outcome import conclude
from runtime.cli.table import COMMANDS
from runtime.jobs import cycles
from runtime.version import VERSION


class Cli(LazyGroup):
    """The top group of commands: it turns every error of a command into one message and an exit code."""

    def main(  # type: ignore[override] # click's overloads differ only in what standalone mode returns
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> int:
        """Run the command and exit with its code; without `standalone_mode`, return it."""
        given = list(sys.argv[1:] if args is None else args)
        if os.environ.get("NO_COLOR"):
            extra["color"] = False
        run = super().main
        code = conclude(
            lambda: run(given, prog_name or "swarm", complete_var, standalone_mode=False, **extra),
            as_json=_asks_for_json(given),
        )
        if standalone_mode:
            sys.exit(code)
        return code


EPILOG = """\b
S is a session's id, a unique beginning of it, or `last`; SEQ is an event's place in it, from 1.
Every command takes --json: one object on one line, errors as {"error": {code, message, path, cure}}.
Exit codes: 0 ok, 1 failed, 2 invalid, 3 not verified, 4 not found, 5 no bus, 6 refused, 124 timed out.
"""


def _asks_for_json(given: Sequence[str]) -> bool:
    """Known before parsing, because errors of parsing are answered in the same form."""
    return "--json" in (given[: given.index("--")] if "--" in given else given)


@click.group(
    "swarm",
    cls=Cli,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(VERSION, prog_name="swarm")
@shared
def swarm(**shared_options: Any) -> None:
    """Train models in a swarm whose log can be replayed, audited and computed again bit for bit."""
    remember(shared_options)


def main() -> None:
    """The entry point."""
    cycles.seldom()
    swarm.main()


if __name__ == "__main__":
    main()
