"""A small server on the loopback that speaks chat completions, well or badly, for tests of the advisor."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

Exchange = http.server.BaseHTTPRequestHandler
Reply = bytes | Callable[[Exchange], None]
"""The body of a well-formed response, or what is done with the connection instead."""


@dataclass
class Endpoint:
    """What a server was asked: the bodies and the heads; `over` is set when it is to end what it is still saying."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def endpoint(*replies: Reply) -> Iterator[Endpoint]:
    """A server that answers with these in turn, and with the last one for ever.

    A connection is good for one request. It stays open after the answer, and a second request on it is lost.
    """
    asked = Endpoint()
    left = list(replies)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        over = asked.over
        used = False

        def do_POST(self) -> None:
            self.close_connection |= self.used
            if self.used:
                return
            self.used = True
            asked.heads.append({name.lower(): value for name, value in self.headers.items()})
            asked.bodies.append(orjson.loads(self.rfile.read(int(self.headers["content-length"]))))
            reply = left.pop(0) if len(left) > 1 else left[0]
            with suppress(OSError):
                respond(self, reply) if isinstance(reply, bytes) else reply(self)

        def log_message(self, *_: Any) -> None:
            """Tests print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        asked.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield asked
        finally:
            asked.over.set()
            server.shutdown()
            thread.join()


def respond(to: Exchange, body: bytes, status: int = 200, length: int | None = None, **heads: str) -> None:
    """Send one response; `heads` are further ones, with `_` for `-`."""
    to.send_response(status)
    known = {"content_type": "application/json", "content_length": str(len(body) if length is None else length)}
    for name, value in (known | heads).items():
        if value:
            to.send_header(name.replace("_", "-"), value)
    to.end_headers()
    to.wfile.write(body)


def status(code: int, **heads: str) -> Reply:
    """A reply of another status."""
    return lambda to: respond(to, b'{"error": {"message": "no"}}', code, **heads)


def silence(to: Exchange) -> None:
    """Say nothing until the test is over."""
    to.over.wait(30)  # type: ignore[attr-defined]


def drip(to: Exchange) -> None:
    """Send a body that has no end, a little at a time."""
    respond(to, b"", content_length="", connection="close")
    while not to.over.wait(0.01):  # type: ignore[attr-defined]
        to.wfile.write(b" ")


def flood(to: Exchange) -> None:
    """Send a body that has no end, as fast as it is taken."""
    respond(to, b"", content_length="", connection="close")
    while not to.over.is_set():  # type: ignore[attr-defined]
        to.wfile.write(b" " * 65536)


def completion(text: str, **usage: Any) -> bytes:
    """The body of an answer that says `text`."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    told = usage or {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return orjson.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": told}
    )


def answer(action: str, value: float | None = None, confidence: str = "likely") -> bytes:
    """The body of an answer in the form that is asked for."""
    return completion(orjson.dumps({"action": action, "value": value, "confidence": confidence}).decode())
