"""Where the program `swarm` starts: signals are heeded before anything else is imported."""

import sys

from runtime.cli import interrupts


def main() -> None:
    """The entry point."""
    interrupts.end_at_once()
    try:
        # Says so when another distribution or a folder has taken the place of a package of ours.
        import stigmergy  # noqa: F401
    except ImportError as error:
        sys.exit(f"error: {error}")
    from runtime.cli import main

    main.main()


if __name__ == "__main__":
    main()
