"""Finds a swarm: from what a caller names to its settings, its home, and the connection to the host that runs there."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from contracts.errors import NotFound, Unreachable

if TYPE_CHECKING:
    from runtime.api.swarm import Swarm
    from runtime.home.home import Home
    from runtime.home.settings import Settings
    from runtime.views.progress import Progress


T = TypeVar("T")


class HomeContext:
    """Settings and home, each read when it is first asked for: most commands need one of them at most."""

    def __init__(
        self, *, home: str | None = None, url: str | None = None, creds: str | None = None, person: str | None = None
    ) -> None:
        """`person` is the name of somebody whose credentials are in the home, or a file of credentials."""
        self._options: dict[str, Any] = {"home": home, "url": url, "creds": creds}
        self._person = person

    def configure(self, **options: Any) -> None:
        """Further settings that are given; None leaves one as it is."""
        self._options |= options

    @property
    def words(self) -> str:
        """The options with which another command finds the same swarm, each behind a space."""
        given = {**self._options, "as": self._person}
        named = [(name, given.get(name)) for name in ("home", "url", "creds", "as")]
        return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in named if value)

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings with the given ones applied."""
        from runtime.home import settings

        found = settings.load(**self._options)
        if self._person is None:
            return found
        is_name = os.sep not in self._person and not self._person.endswith(".json")
        return settings.load(**self._options | {"creds": self._person_file(found) if is_name else self._person})

    def _person_file(self, found: Settings) -> str:
        from runtime.home.home import Home

        path = Home(found.home).person(str(self._person))
        if not path.exists():
            message = f"there are no credentials of {self._person!r} in {str(found.home)!r}."
            raise NotFound(
                message, cure=f"Name the file (--as FILE), or admit the person: swarm person new {self._person}"
            )
        return str(path)

    @functools.cached_property
    def home(self) -> Home:
        """The home that the settings name; refused when it is none that this software can read."""
        from runtime.home.home import Home

        home = Home(self.settings.home)
        home.check()
        return home

    @property
    def up(self) -> bool:
        """Whether there is a swarm to ask: a server was named, or the home's host lives."""
        named = bool(self.settings.url or self.settings.creds)
        host = None if named else self.home.host()
        return named or (host is not None and host.alive)

    @property
    def live(self) -> bool:
        """Whether a person watches stderr on a terminal that can be redrawn."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def progress(self, *, quiet: bool = False) -> Progress:
        """How a session's progress is shown: drawn in a notebook's cell or on a terminal, else told in lines."""
        from runtime.views import notebook
        from runtime.views.progress import progress

        show = None if quiet else notebook.cell()
        return notebook.NotebookProgress(show) if show else progress(sys.stderr, live=self.live, quiet=quiet)

    def note(self, text: str) -> None:
        """Something worth knowing that is not the answer, for the person: on stderr."""
        from runtime.views.formatting import printable

        # Looked up at each line: a notebook replaces stderr.
        print(printable(text), file=sys.stderr, flush=True)  # noqa: T201 - for a person

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work to its end, in a thread of its own: the caller's loop may be running already."""
        from runtime.jobs.event_loop import in_thread

        return in_thread(lambda: work)

    @asynccontextmanager
    async def swarm(self) -> AsyncIterator[Swarm]:
        """The running swarm; `Unreachable` when there is none."""
        if not self.up:
            raise Unreachable(f"no swarm runs in {str(self.home.root)!r}.", cure="Start it: swarm up -d")
        from runtime.api.swarm import Swarm

        async with Swarm.connect(self.settings) as swarm:
            yield swarm
