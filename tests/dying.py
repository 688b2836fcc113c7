"""Processes that are dying: the first thread is gone, another still has their files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BEGIN = "import ctypes, os, sys, threading\n"
_END_BUT_FOR_A_THREAD = """
threading.Thread(target=threading.Event().wait).start()
print(flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)  # exit, of this thread only
"""


@contextmanager
def half_dead(code: str, *given: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this code and then ends but for one thread, as what is killed does for a moment (Linux)."""
    words = [sys.executable, "-c", _BEGIN + code + _END_BUT_FOR_A_THREAD, *given]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "\n"
            deadline = time.monotonic() + 10
            while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() < deadline, "its first thread does not end"
            yield child
        finally:
            child.kill()
