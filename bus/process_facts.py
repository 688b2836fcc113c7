"""What the operating system says about one process: Linux in /proc, others through `ps`. It starts and ends none."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessFacts(NamedTuple):
    """One line of /proc/PID/stat, as far as it is needed; times are clock ticks."""

    state: str
    own_ticks: int
    """Processor time of the process, in user code and in the kernel."""
    children_ticks: int
    """Processor time of the children that it has waited for."""
    threads: int
    started: int
    """When it began, since boot."""
    memory_bytes: int
    """Its pages in memory now."""

    @property
    def has_ended(self) -> bool:
        """Whether it is a zombie, which waits for its parent to notice."""
        return self.state in ("Z", "X")


def read(pid: int) -> ProcessFacts | None:
    """The facts of a process on Linux; None when there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; what follows it does not.
    state, *figures = line.rpartition(b")")[2].split()
    numbers = [0, *map(int, figures)]
    own, children = sum(numbers[11:13]), sum(numbers[13:15])
    return ProcessFacts(state.decode(), own, children, numbers[17], numbers[19], numbers[21] * PAGE_BYTES)


def ps(pid: int, column: str) -> str:
    """One column of `ps` about a process, where there is no /proc; empty when there is no such process."""
    command = ["/bin/ps", "-o", f"{column}=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
    return shown.stdout.strip()
