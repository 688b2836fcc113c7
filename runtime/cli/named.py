"""The argument S, a session's id, a unique beginning of one, or `last`, and how a shell completes it."""

from __future__ import annotations

import os
from pathlib import Path

import click


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Sessions in the home's files, newest first; no log is read."""
    home = ctx.params.get("home") or ctx.meta.get("swarm.home") or os.environ.get("SWARM_HOME") or ".swarm"
    folder = Path(home) / "sessions"
    names = sorted((one.name for one in folder.iterdir()), reverse=True) if folder.is_dir() else []
    return [name for name in ("last", *names) if name.startswith(incomplete)]


session_argument = click.argument("session", metavar="S", shell_complete=complete)
