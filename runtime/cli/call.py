"""One call of a command: shared options and arguments, settings, and where output goes."""

import functools
import json
import math
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from contracts.errors import NotFound
from runtime.api.home_context import HomeContext
from runtime.cli import interrupts
from runtime.cli.output import say
from runtime.views.formatting import printable_json

T = TypeVar("T")

Json = dict[str, Any]
"""A JSON object: what the swarm answers to a command, and what a command answers to a program."""


class Call(HomeContext):
    """The first argument of each command function: `result` prints data to stdout, `note` anything else to stderr."""

    def __init__(
        self, *, home: str | None, url: str | None, creds: str | None, person: str | None, as_json: bool
    ) -> None:
        super().__init__(home=home, url=url, creds=creds, person=person)
        self.json = as_json

    def result(self, value: Mapping[str, object], text: str | Callable[[], str]) -> None:
        """The answer: one JSON object on one line, or text for people."""
        if self.json:
            self.line(value)
        else:
            say(text if isinstance(text, str) else text())

    def line(self, value: Mapping[str, object]) -> None:
        """Print one JSON object on one line of stdout."""
        import orjson

        try:
            text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:
            # A stranger's whole numbers may be larger than our JSON writer takes; what is no number is null as there.
            plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
            text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False)
        say(printable_json(text))

    def note(self, text: str) -> None:
        """Something worth knowing that is not the answer, on stderr."""
        say(text, err=True)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work to its end; SIGINT and SIGTERM cancel it wherever it waits."""
        return interrupts.run(work)

    def ask(self, verb: str, **body: Any) -> Json:
        """What the running swarm answers to a command; `Unreachable` when none runs."""

        async def answer() -> Json:
            async with self.swarm() as swarm:
                return await swarm.command(verb, **body)

        return self.wait(answer())

    @property
    def live(self) -> bool:
        """Whether progress is drawn: a person watches, and did not ask for JSON."""
        return super().live and not self.json


class Seconds(click.ParamType[float]):
    """How long to wait at most: a number from 0 on."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`."""
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        if not (math.isfinite(seconds) and seconds >= 0):
            self.fail(f"{value!r} is no time to wait: give seconds from 0 on.", param, ctx)
        return seconds


SECONDS = Seconds()

_SHARED = (
    click.option("--home", metavar="DIR", help="Home of the swarm (SWARM_HOME; default ./.swarm)."),
    click.option("--url", metavar="URL", help="Use this NATS server instead of the home's own (SWARM_URL)."),
    click.option("--creds", metavar="FILE", help="Credentials for --url (SWARM_CREDS)."),
    click.option("--as", "person", metavar="NAME|FILE", help="Ask, and sign, as this person."),
    click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object on one line."),
)
_NAMES = ("home", "url", "creds", "person", "as_json")


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command takes, also before the command's name."""
    for option in reversed(_SHARED):
        function = option(function)
    return function


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command whose function is given a `Call` first, then its own parameters; it may return an exit code."""

    def declare(function: Callable[..., Any]) -> click.Command:
        return click.command(name, click.Command, **attributes)(shared(calling(function)))

    return declare


def calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put the shared options, those of the groups above included, into one `Call`."""

    @functools.wraps(function)
    def run(**parameters: Any) -> Any:
        own = {key: parameters.pop(key) for key in _NAMES}
        remember(own)
        meta = click.get_current_context().meta
        options: Json = {key: meta.get(f"swarm.{key}") for key in _NAMES}
        try:
            return function(Call(**(options | {"as_json": bool(options["as_json"])})), **parameters)
        except NotFound as error:
            name = str(parameters.get("session", ""))
            from runtime.api.session_source import is_bundle

            if not is_bundle(name) or not error.message.startswith("there is no session"):
                raise
            message = f"{name!r} is a bundle, and this command takes a session of a home."
            raise NotFound(
                message, cure="Bundles are for: swarm audit, report, diff, diagnose, trace and trials.", path=name
            ) from error

    return run


def remember(own: Json) -> None:
    """Keep what this command or group was given, for itself and the commands below it."""
    click.get_current_context().meta.update({f"swarm.{key}": value for key, value in own.items() if value})


def complete_session(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Sessions in the home's files, newest first; no log is read."""
    home = ctx.params.get("home") or ctx.meta.get("swarm.home") or os.environ.get("SWARM_HOME") or ".swarm"
    folder = Path(home) / "sessions"
    names = sorted((path.name for path in folder.iterdir()), reverse=True) if folder.is_dir() else []
    return [name for name in ("last", *names) if name.startswith(incomplete)]


session_argument = click.argument("session", metavar="S", shell_complete=complete_session)
