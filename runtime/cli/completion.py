"""`swarm completion`: what a shell needs to complete commands, options and session ids."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from runtime.cli.call import Call, command

KINDS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
WHERE = {
    "bash": 'eval "$(swarm completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(swarm completion zsh)" in ~/.zshrc',
    "fish": "swarm completion fish > ~/.config/fish/completions/swarm.fish",
}


@command("completion")
@click.argument("shell", type=click.Choice(list(KINDS)))
def completion(call: Call, *, shell: str) -> None:
    """Print the completion script for SHELL."""
    root = click.get_current_context().find_root().command
    script = KINDS[shell](root, {}, "swarm", "_SWARM_COMPLETE").source()
    call.note(f"To have it always: {WHERE[shell]}")
    call.result({"shell": shell, "script": script}, script)
