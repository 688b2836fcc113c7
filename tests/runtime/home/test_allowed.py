"""Which files a request may name: none in a home whatever is open, and those of a folder that its owner opens to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import subjects
from bus.blobs import DirectoryBlobs
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import InvalidRequest
from contracts.request import read_request
from runtime.home import allowed, settings
from runtime.home.allowed import RequestPath
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from tests.harness import crew, small_request, until_said

TABLE = "a,b,y\n" + "".join(f"{n},{n * n % 7},{n % 2}\n" for n in range(60))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "place" / "home")
    made.prepare()
    (made.keys / "root.key").write_text("secret")
    return made


def refused(path: Path, *roots: Path) -> str:
    with pytest.raises(InvalidRequest) as told:
        RequestPath(str(path), "data.path", "").allowed(roots)
    return told.value.problems[0].message


def test_no_folder_is_open_unless_somebody_opened_it(home: Home) -> None:
    assert allowed.roots(home, settings.load(home=str(home.root))) == []
    beside = home.root.parent / "beside.csv"
    beside.write_text(TABLE)
    assert "outside the folders" in refused(beside)


@pytest.mark.parametrize("name", ["keys/root.key", "layout", "keys/../keys/root.key"])
def test_nothing_in_a_home_is_data_whatever_is_open(home: Home, name: str) -> None:
    for root in (home.root.parent, home.root, home.keys, Path("/")):
        assert "lies in the home of a swarm" in refused(home.root / name, root)


def test_a_link_into_a_home_and_one_out_of_it_lie_in_it(home: Home) -> None:
    into, out, data = home.root.parent / "into.csv", home.root / "out.csv", home.root.parent / "data.csv"
    data.write_text(TABLE)
    into.symlink_to(home.keys / "root.key")
    out.symlink_to(data)
    for link in (into, out):
        assert "lies in the home of a swarm" in refused(link, home.root.parent)
    assert RequestPath(str(data), "data.path", "").allowed([home.root.parent]) == data.resolve()


@pytest.mark.parametrize(
    ("name", "says"),
    [("ring", "form a ring"), ("x" * 300, "too long"), ("a\0b", "null"), ("file/x", "Not a directory")],
)
def test_a_path_that_leads_nowhere_is_told_and_stops_nobody(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "ring").symlink_to(tmp_path / "round")
    (tmp_path / "round").symlink_to(tmp_path / "ring")
    (tmp_path / "file").write_text("")
    assert says in refused(Path(f"{tmp_path}/{name}"), tmp_path)


def test_a_store_of_blobs_elsewhere_is_closed_too(home: Home, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "datasets").mkdir(parents=True)
    store = DirectoryBlobs(shared)
    store.identity()
    place = store.path(store.put(b"a,b\n1,2\n"))
    assert "lies in the home of a swarm" in refused(place, tmp_path)


def test_a_folder_whose_name_only_begins_alike_is_another(tmp_path: Path) -> None:
    for name in ("in", "inside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_text(TABLE)
    assert "outside the folders" in refused(tmp_path / "inside" / "x.csv", tmp_path / "in")


def test_a_home_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = Home(tmp_path / "home")
        made.prepare()
        made.session("00-x")
        made.work("00-x")
        made.instance()
        made.open_to("00-x", [tmp_path])
        DirectoryBlobs(made.blobs).put(b"bytes")
    finally:
        os.umask(before)
    assert [str(path) for path in [made.root, *made.root.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_a_home_that_others_could_read_is_closed_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "home" / "sessions").mkdir(parents=True)
    (tmp_path / "home").chmod(0o755)
    Home(tmp_path / "home").prepare()
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_blobs_that_homes_share_stay_as_their_owner_has_them(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    made = Home(tmp_path / "home")
    made.prepare(str(shared))
    place = DirectoryBlobs(made.blobs).path(DirectoryBlobs(made.blobs).put(b"bytes"))
    assert stat.S_IMODE(shared.stat().st_mode) == stat.S_IMODE(place.parent.stat().st_mode) == 0o750
    assert stat.S_IMODE(place.stat().st_mode) == 0o440


# The owner and the clients


def table_request(folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text(TABLE)
    data = {"source": "csv", "path": str(folder / "rows.csv"), "target": "y"}
    return read_request(small_request(data=data, training={"epochs": 1, "batch_size": 8})).resolved()


SPACE = {"optimizer.learning_rate": {"type": "float", "low": 0.01, "high": 0.1}}


async def asked(made: SwarmNode, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(await made.bus.ask(subject, orjson.dumps(body), timeout=10))
    return answer


async def prepared(made: SwarmNode, session: str) -> DatasetPrepared | DatasetRejected:
    history = made.tail.history(session)
    while True:
        for fact in history.facts:
            if isinstance(fact.event, DatasetPrepared | DatasetRejected):
                return fact.event
        await history.grown(history.size)


async def test_the_folder_that_an_owner_runs_a_request_in_is_open_to_that_session_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    request = table_request(folder)
    async with crew(tmp_path / "home", ("data_manager",)) as made:
        opened = await asked(made, subjects.owner_command("train"), {**request, "folder": str(folder)})
        found = await prepared(made, opened["session"])
        assert isinstance(found, DatasetPrepared), found
        other = await asked(made, subjects.owner_command("train"), request)
        assert isinstance(await prepared(made, other["session"]), DatasetRejected)
        client = await asked(made, subjects.command("train"), request)
        assert isinstance(await prepared(made, client["session"]), DatasetRejected)
        # Asked where clients ask, a folder is no word that anybody knows.
        strange = await asked(made, subjects.command("train"), {**request, "folder": str(folder)})
        assert "folder" in str(strange["error"])


async def test_a_trial_reads_what_its_search_may_read_and_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    request = table_request(folder)
    (folder / "secret.csv").write_text(TABLE)
    search = {"method": "search", "base": request, "space": SPACE, "trials": 1, "metric": "val_loss"}
    async with crew(tmp_path / "home", ("data_manager",)) as made:
        begun = await asked(made, subjects.owner_command("search"), {**search, "folder": str(folder)})
        for path, kind in ((folder / "rows.csv", DatasetPrepared), (folder / "secret.csv", DatasetRejected)):
            wanted = {**request, "data": {**request["data"], "path": str(path)}}
            trial = await asked(made, subjects.command("trial"), {"parent": begun["session"], "request": wanted})
            assert isinstance(await prepared(made, trial["session"]), kind)


async def test_only_the_owner_changes_who_may_take_part(tmp_path: Path) -> None:
    async with crew(tmp_path / "home", ("ledger",)) as made:
        for verb, body in (("admit", {"name": "ant"}), ("rotate", {"role": "trainer"}), ("revoke", {"key": "trainer"})):
            answer = await asked(
                made, subjects.command(verb), {**body, **({"reason": "x"} if verb == "revoke" else {})}
            )
            assert answer["error"]["code"] == "refused", answer
            assert "owner" in answer["error"]["message"]
        answer = await asked(made, subjects.owner_command("rotate"), {"role": "trainer"})
        assert answer["role"] == "trainer", answer


async def test_no_statistics_are_told_of_so_few_rows_that_they_would_tell_the_rows(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    request = table_request(folder)
    told = {}
    async with crew(tmp_path / "home", ("data_manager",)) as made:
        for share in (0.1, 0.8):
            split = {**request["data"]["split"], "train": share, "val": 0.1, "test": round(0.9 - share, 3)}
            wanted = {**request, "data": {**request["data"], "split": split}, "folder": str(folder)}
            opened = await asked(made, subjects.owner_command("train"), wanted)
            found = (await until_said(made, opened["session"], "dataset.prepared")).event
            assert isinstance(found, DatasetPrepared)
            told[found.splits["train"]] = (found.facts.mean, found.facts.scale, found.facts.target_mean)
    (few, of_few), (enough, of_enough) = sorted(told.items())
    assert few < 30 <= enough
    assert of_few == ([], [], 0.0)
    assert len(of_enough[0]) == len(of_enough[1]) == 2
