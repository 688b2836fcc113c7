"""Draws docs/run.svg from a real run: a training whose host is killed in the middle, and that goes on to the same bits.

`python docs/picture.py` takes about a minute, in a home that is thrown away. It fails when the weights are not those of
the same training undisturbed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import stigmergy  # noqa: E402 - found beside this folder
from runtime.api import hosting  # noqa: E402
from runtime.api.home_context import HomeContext  # noqa: E402
from runtime.home.home import Home  # noqa: E402
from runtime.log.archive import Archive  # noqa: E402
from runtime.views import svg  # noqa: E402
from runtime.views.blocks import Curves  # noqa: E402
from runtime.views.session_page import charts  # noqa: E402
from runtime.views.session_record import SessionRecord  # noqa: E402

REQUEST = {
    "name": "digits",
    "data": {"source": "digits"},
    "model": {"architecture": "mlp", "hidden": [256, 256], "dropout": 0.1},
    "schedule": {"type": "cosine", "warmup_steps": 50},
    "training": {"epochs": 60},
    "early_stopping": {"enabled": False},
    "diagnosis": {"auto_fix": False},
    "export": {"formats": []},
}


async def kill_in_the_middle(home: Path) -> str:
    """The session of a training whose host was killed in the middle."""
    async with stigmergy.Swarm.start(home=home) as swarm:
        session = await swarm.submit(REQUEST, request_id="killed")
        async for line in swarm.events(session, follow=True):
            if line["name"] == "window.recorded" and line["data"]["last"] >= 600:
                host = Home(home).host()
                assert host is not None  # noqa: S101 - it answers
                os.kill(host.pid, signal.SIGKILL)
                return session
    raise SystemExit("the training ended before it could be killed")


def main() -> None:
    """Train twice, compare, draw."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        whole = stigmergy.train(REQUEST, home=home, request_id="whole", progress=False)
        session = stigmergy.Session(asyncio.run(kill_in_the_middle(home)), home=home)
        while (host := Home(home).host()) and host.alive:
            time.sleep(0.01)
        hosting.bring_up(HomeContext(home=str(home)))
        session.follow(progress=False)
        digests = [one.summary()["weights_digest"] for one in (whole, session)]
        history = Archive(Home(home)).read(session.id).history
        record = SessionRecord.of(history.state, history.facts)
        curves = next(one for one in charts(history.state, record) if isinstance(one, Curves))
        subprocess.run([sys.executable, "-m", "runtime.cli.start", "down", "--home", str(home)], cwd=ROOT, check=True)
    if digests[0] != digests[1]:
        raise SystemExit(f"the weights differ: {digests}")
    (ROOT / "docs" / "run.svg").write_bytes(svg.picture_of(curves))
    print(f"weights {digests[0]}, killed or not")


if __name__ == "__main__":
    main()
