"""From request to an exported, audited model: what `make demo` runs. Everything it makes stays in ./.swarm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SWARM = [sys.executable, "-m", "runtime.cli.start"]


def main() -> int:
    """Start, train, audit, say where to look, and shut down whatever happened."""
    try:
        code = swarm("run", str(HERE / "digits.yaml"))
        if code:
            return code
        print("\nAudit of the log: chains, signatures, ledger, seal, every blob.", flush=True)
        code = swarm("audit", "last")
        look()
        return code
    finally:
        swarm("down")


def swarm(*words: str) -> int:
    """Run one command of the product, as a user would."""
    print(f"\n$ swarm {' '.join(words)}", flush=True)
    return subprocess.run([*SWARM, *words], check=False).returncode


def look() -> None:
    """Where the session, its model and its log are."""
    shown = subprocess.run([*SWARM, "show", "last", "--json"], check=True, capture_output=True, text=True)
    session = json.loads(shown.stdout)
    folder = Path(".swarm").absolute() / "sessions" / session["session"]
    print(f"\nThe session's files: {folder}")
    for one in session["artifacts"]:
        if "path" in one:
            print(f"The model:           {one['path']}")
    print("Look further (no server needed): swarm events last, swarm replay last, swarm audit last")


if __name__ == "__main__":
    sys.exit(main())
