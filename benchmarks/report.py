"""How every benchmark says what it measured: a table for people, one JSON object for machines."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path


def parser(about: str) -> argparse.ArgumentParser:
    """The command line of a benchmark: `[--quick] [--json FILE]`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, no peers, under a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def options(about: str) -> argparse.Namespace:
    """What a benchmark without options of its own is asked."""
    return parser(about).parse_args()


def report(asked: argparse.Namespace, figures: Mapping[str, float], notes: Mapping[str, str] | None = None) -> None:
    """Print the table; write the JSON where it was asked for."""
    told = machine() | dict(notes or {})
    width = max(map(len, [*figures, *told]))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>14,.3f}")
    for name, text in told.items():
        print(f"{name:<{width}}  {text}")
    if asked.json:
        asked.json.write_text(json.dumps({"figures": dict(figures), "machine": told, "commit": commit()}, indent=2))


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "cpus": str(os.cpu_count()),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def filesystem(path: Path) -> str:
    """The kind of filesystem a path is on: memory makes every sync free."""
    found = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def commit() -> str:
    """The commit that was measured."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
