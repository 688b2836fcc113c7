"""The command `swarm`: finds the command asked for, runs it, and ends with its exit code. It does no work itself.

A command is imported only when it is called, so that `--help` costs click and nothing else.
Exit codes: 0 ok, 1 failed, 2 usage or invalid input, 3 verification negative, 4 not found, 5 bus unreachable,
6 refused, 124 timed out, 130 interrupted.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from runtime.cli.call import remember, shared
from runtime.cli.exit_codes import conclude
from runtime.jobs import garbage
from runtime.version import VERSION


class Entry(NamedTuple):
    """One command: the module of `runtime.cli` that defines it, its section in the list, and its one line of help."""

    module: str
    section: str
    help: str


BEGIN = "Begin"
SESSIONS = "Sessions"
EVIDENCE = "Evidence"
SWARM = "The swarm"
MORE = "Your own parts"

COMMANDS: dict[str, Entry] = {
    "init": Entry("init", BEGIN, "Write a request (and a workload) to start from."),
    "check": Entry("check", BEGIN, "Judge a request: schema, one real batch, memory and time."),
    "run": Entry("run", BEGIN, "Train: start the swarm if needed, submit, show progress and the outcome."),
    "submit": Entry("run", BEGIN, "Submit a request and return at once."),
    "tune": Entry("run", BEGIN, "Submit a search whose trials are sessions."),
    "fork": Entry("forks", BEGIN, "Go on from the exact bits of a session, with a change or without."),
    "sessions": Entry("sessions", SESSIONS, "List the sessions, newest first."),
    "show": Entry("show", SESSIONS, "Show a session now, or as of one of its events."),
    "trials": Entry("trials", SESSIONS, "List the trials of a search, and say how the best is trained in full."),
    "watch": Entry("run", SESSIONS, "Follow a session live until it has ended."),
    "wait": Entry("run", SESSIONS, "Wait until a session has ended."),
    "events": Entry("show", SESSIONS, "Print a session's events, one JSON object per line."),
    "pause": Entry("sessions", SESSIONS, "Ask a session to wait."),
    "resume": Entry("sessions", SESSIONS, "Let a paused session go on."),
    "cancel": Entry("sessions", SESSIONS, "Ask a session to end now."),
    "approve": Entry("sessions", SESSIONS, "Let a proposal that waits take effect."),
    "reject": Entry("sessions", SESSIONS, "Let a proposal that waits come to nothing."),
    "export": Entry("session_files", SESSIONS, "Turn a session's model into a file of another format."),
    "report": Entry(
        "session_files", SESSIONS, "Show and write how a session went: figures, curves, decisions, artifacts."
    ),
    "checkpoints": Entry("checkpoints", SESSIONS, "List what was kept of a session, as what, and why."),
    "inspect": Entry("checkpoints", SESSIONS, "Show the tensors of a checkpoint and verify its roots."),
    "predict": Entry("checkpoints", SESSIONS, "Ask a session's model about rows of your own."),
    "replay": Entry("show", EVIDENCE, "Fold a session from its log and show the state at any point."),
    "audit": Entry("audit", EVIDENCE, "Verify a session or a bundle: what its log says is whole and unchanged."),
    "bundle": Entry("session_files", EVIDENCE, "Write a sealed session as one file that anybody can verify."),
    "trace": Entry("trace", EVIDENCE, "Show which steps saw a row, or which rows a step saw."),
    "prove": Entry("forks", EVIDENCE, "Show what an intervention was worth: with it and without, from the same bits."),
    "diff": Entry("show", EVIDENCE, "Show in what two sessions differ, and in which window they part."),
    "diagnose": Entry("show", EVIDENCE, "Show what is wrong with a session, and write the next request."),
    "anchor": Entry(
        "session_files", EVIDENCE, "Keep a session's signed root elsewhere: in a file or a git repository."
    ),
    "up": Entry("host", SWARM, "Start the swarm of this home."),
    "down": Entry("host", SWARM, "End the swarm of this home; what trains is resumed by the next `up`."),
    "status": Entry("host", SWARM, "Show which processes and agents run."),
    "queue": Entry("host", SWARM, "Show which sessions train, and which wait: at which place, and why."),
    "doctor": Entry("host", SWARM, "Look for what is wrong here, with the cure for each finding."),
    "agents": Entry("agents", SWARM, "List the agents: what each hears and says, and whether it runs."),
    "keys": Entry("keys", SWARM, "List the keys that sign; give a role a new one; end one."),
    "person": Entry("keys", SWARM, "Admit people with rights, who sign what they ask; turn them out."),
    "dlq": Entry("agents", SWARM, "Show what handlers could not do and what was not admitted; try again."),
    "agent": Entry("agents", MORE, "Admit an agent of your own, or run one alone."),
    "workload": Entry("init", MORE, "Register models and data of your own."),
    "config": Entry("config", MORE, "Show the settings with their origin, and the schemas."),
    "asyncapi": Entry("config", MORE, "Print the AsyncAPI document of every channel and message."),
    "completion": Entry("config", MORE, "Print the script that completes commands in your shell."),
}


EPILOG = """\b
S is a session's id, a unique beginning of it, its --request-id, `last` (the newest training) or
`last-KIND` (last-search, last-audit, ...); SEQ is an event's place in it, from 1.
Every command takes --json: one object on one line, errors as {"error": {code, message, path, cure}}.
Exit codes: 0 ok, 1 failed, 2 invalid, 3 not verified, 4 not found, 5 no bus, 6 refused, 124 timed out.
"""


class Cli(click.Group):
    """The top group: its commands are those of the table, and every error becomes one message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands in the order of the table, without importing any."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for a name that the table lacks."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"runtime.cli.{COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a suggestion for a name that does not exist."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, from the table alone."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names of commands from the table, without importing any; options are completed by click."""
        named = [CompletionItem(n, help=e.help) for n, e in COMMANDS.items() if n.startswith(incomplete)]
        return named + click.Command.shell_complete(self, ctx, incomplete)

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
            # Known before parsing, because errors of parsing are answered in the same form.
            as_json="--json" in (given[: given.index("--")] if "--" in given else given),
        )
        if standalone_mode:
            sys.exit(code)
        return code


@click.group(
    "swarm",
    cls=Cli,
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
    garbage.collect_seldom()
    swarm.main()


if __name__ == "__main__":
    main()
