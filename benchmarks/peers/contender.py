"""A peer as the benchmark sees it: a process that is asked for steps, in an environment of packages that has it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.engine.environment import sealed

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_SILENT = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass
class Contender:
    """One peer at work."""

    process: asyncio.subprocess.Process
    words: Path

    async def us(self, steps: int) -> float:
        """Let it train for so many steps; the microseconds that one took."""
        return float((await self._said(str(steps)))["us"])

    async def _said(self, line: str) -> dict[str, Any]:
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n".encode())
        answer = await process.stdout.readline()
        if not answer:
            raise RuntimeError(f"it ended: {self.words.read_text(errors='replace').strip()[-500:]}")
        return dict(json.loads(answer))


@asynccontextmanager
async def contender(python: Path, name: str, task: Mapping[str, Any], folder: Path) -> AsyncIterator[Contender]:
    """The peer of `benchmarks/peers/NAME.py`, one thread, with a folder of its own to write to."""
    own = folder / name
    own.mkdir(parents=True)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # The environment of our own training processes, so that no kernel is another because of it.
    environment = sealed(kept, profile="exact", threads=1) | _SILENT | {"PYTHONPATH": str(ROOT), "TMPDIR": str(own)}
    with (own / "words").open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-P", "-m", f"benchmarks.peers.{name}"),
            env=environment,
            cwd=own,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**task, "folder": str(own)}).encode() + b"\n")
    try:
        yield Contender(process, own / "words")
    finally:
        process.stdin.close()
        await process.wait()


def environment(place: Path) -> Path:
    """The interpreter of the peers' packages, which are installed there once; torch must be the build that we run."""
    python = place.absolute() / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pins = ["-c", str(ROOT / "constraints.txt"), "-r", str(REQUIREMENTS)]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins], check=True)
    ours, theirs = (_torch(one) for one in (Path(sys.executable), python))
    if ours != theirs:
        raise SystemExit(f"the peers have torch {theirs}, and this is {ours}: remove {place} and let it be made anew")
    return python


def _torch(python: Path) -> str:
    code = "import torch; print(torch.__version__)"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()
