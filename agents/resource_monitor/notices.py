"""Sends alerts to the receivers of the home's settings: a POST of JSON to an address, or a command that reads it.

What goes wrong here is a line in the host's log and nothing else: a receiver is slow, away or broken, and training does
not notice. Each receiver gets one notice at a time and so many per hour; what comes while too many wait is dropped.
"""

import asyncio
import os
import signal
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog

from runtime.home.settings import Receiver

log = structlog.get_logger()

MOST_WAITING = 8
"""Notices that wait for one receiver."""
HOUR = 3600.0


@dataclass
class Outbox:
    """The notices for one receiver: those that wait, and when the last ones were sent."""

    receiver: Receiver
    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    sent: deque[float] = field(default_factory=deque)

    def admits(self, now: float) -> bool:
        """Whether another notice may be sent at this moment, which is counted when it may."""
        while self.sent and now - self.sent[0] >= HOUR:
            self.sent.popleft()
        if len(self.sent) >= self.receiver.per_hour:
            return False
        self.sent.append(now)
        return True


class Notifier:
    """Sends notices in tasks of its own, one per receiver."""

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self.boxes = {receiver.label: Outbox(receiver) for receiver in receivers}
        self._tasks = [asyncio.create_task(self._empty(box)) for box in self.boxes.values()]

    def tell(self, label: str, notice: bytes) -> None:
        """Have a receiver told, and return at once."""
        box = self.boxes[label]
        try:
            if not box.admits(asyncio.get_running_loop().time()):
                log.warning("too many alerts in an hour: not sent", receiver=label, per_hour=box.receiver.per_hour)
                return
            box.waiting.put_nowait(notice)
        except asyncio.QueueFull:
            log.warning("too many alerts wait for a receiver: not sent", receiver=label)

    async def close(self) -> None:
        """Send no more; what is being sent is cut off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _empty(self, box: Outbox) -> None:
        while True:
            notice = await box.waiting.get()
            receiver = box.receiver
            try:
                async with asyncio.timeout(receiver.timeout_seconds):
                    await (post(receiver.url, notice) if receiver.url else execute(receiver.command, notice))
            except (OSError, ValueError, EOFError) as error:
                # An address may hold a secret, and so may what an error says of it.
                log.warning("an alert was not received", receiver=receiver.label, error=type(error).__name__)


async def post(url: str, notice: bytes) -> None:
    """Send the notice to the address; `ValueError` when the answer is no success. Redirections are not followed."""
    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    try:
        place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = (
            f"POST {place} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(notice)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode("ascii") + notice)
        await writer.drain()
        _, _, answer = (await reader.readline()).partition(b" ")
        if not answer.startswith(b"2"):
            raise ValueError("the receiver did not accept it")
    finally:
        writer.transport.abort()


async def execute(command: Sequence[str], notice: bytes) -> None:
    """Run the command with the notice at its input, without a shell; `ValueError` when it fails.

    It and what it started are killed when it is not waited for any longer.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )
    try:
        await process.communicate(notice)
        if process.returncode:
            raise ValueError(f"the command ended with {process.returncode}")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
