"""The process that zygotes of tests are forked from; see `tests.zygotes`.

python -P -m tests.nursery ORDERS MODULE...
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import NoReturn

from runtime.jobs import process, zygote


def main(arguments: list[str]) -> None:
    """Import, then fork a zygote for every three descriptors: its control socket, its output, and where to tell."""
    orders = socket.socket(fileno=int(arguments[0]))
    zygote.prepare(arguments[1:])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that none has to be reaped
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, 1, 3)
        if not data:
            return
        control, output, told = descriptors
        pid = os.fork()
        if pid == 0:
            orders.detach()
            _become_zygote(control, output)
        name = os.pidfd_open(pid)
        with socket.socket(fileno=told) as answer:
            socket.send_fds(answer, [str(pid).encode()], [name])
        for descriptor in (control, output, name):
            os.close(descriptor)


def _become_zygote(control: int, output: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process.set_pdeathsig()
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_all_descriptors_but({0, 1, 2, control})
        code = zygote.serve(socket.socket(fileno=control))
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
