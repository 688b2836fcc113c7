"""Where the program `swarm` starts: signals are heeded before anything else is imported."""

from __future__ import annotations

from runtime.cli import interrupts


def main() -> None:
    """The entry point."""
    interrupts.end_at_once()
    from runtime.cli import main as command

    command.main()


if __name__ == "__main__":
    main()
