"""A click group that imports a command only when it is called: `--help` costs click and nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from runtime.cli.table import Entry


class LazyGroup(click.Group):
    """A group whose commands are named in a table."""

    def __init__(self, *args: Any, table: Mapping[str, Entry], package: str = "runtime.cli", **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._table = table
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands in the order of the table, without importing any."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for a name that the table lacks."""
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        found: click.Command = getattr(importlib.import_module(f"{self._package}.{module}"), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a suggestion for a name that does not exist."""
        if args and args[0] not in self._table and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self._table, 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, from the table alone."""
        for section in dict.fromkeys(entry.section for entry in self._table.values()):
            rows = [(name, entry.help) for name, entry in self._table.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names of commands from the table, without importing any; options are completed by click."""
        named = [CompletionItem(n, help=e.help) for n, e in self._table.items() if n.startswith(incomplete)]
        return named + click.Command.shell_complete(self, ctx, incomplete)
