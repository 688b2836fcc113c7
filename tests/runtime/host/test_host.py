"""Who may be the host of a home."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from contracts.errors import Refused
from runtime.home.home import Home
from runtime.host import host
from tests.dying import half_dead

HOLDS = """
from pathlib import Path
from runtime.home.home import Home
Home(Path(sys.argv[1])).lock()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the threads of a process that ended")
async def test_what_a_dying_host_still_holds_is_waited_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with half_dead(HOLDS, str(tmp_path)) as dying:
        with pytest.raises(Refused, match="held by another host"):
            home.lock()
        taking = asyncio.create_task(host._locked(home))
        await asyncio.sleep(0)
        assert not taking.done()
        dying.kill()
        await taking
    assert home.holds()
    home.unlock()


async def test_a_home_whose_host_lives_is_refused_at_once(tmp_path: Path) -> None:
    first, second = Home(tmp_path), Home(tmp_path)
    await host._locked(first)
    with pytest.raises(Refused, match="held by another host"):
        await host._locked(second)
    first.unlock()


def test_a_folder_full_of_other_files_is_no_home(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    with pytest.raises(Refused, match=r"is no home: it holds other files \('thesis.tex'\)"):
        Home(tmp_path).prepare()
    assert list(tmp_path.iterdir()) == [mine]
    for begun in ("keys", "blobs"):
        home = tmp_path / f"with {begun}"
        (home / begun).mkdir(parents=True)
        (home / "notes.txt").write_text("beside")
        Home(home).prepare()
