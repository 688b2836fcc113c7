"""The files that `compose.yaml` mounts, checked by the server itself and run as three real processes."""

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus import cluster, nkeys, subjects
from bus.durables import Layout
from bus.jetstream import JetStreamAdmin, connect, connect_admin
from bus.link import api
from bus.port import Log, Record
from bus.rights import seed_file
from bus.server import find_binary
from contracts.errors import Ambiguous, Conflict, InvalidInput, Unreachable
from tests.bus.conformance import TRAINER, S, fact, some, taken, woken

ROOT = Path(__file__).parents[2]
CONF = ROOT / "deploy" / "nats.conf"
NODES = (1, 2, 3)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@dataclass
class Cluster:
    """Three servers on loopback with the deployed files; only ports, names and stores are their own."""

    home: Path
    ports: list[int] = field(default_factory=lambda: free_ports(9))
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{self.ports[n - 1]}" for n in NODES)

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    def key(self, identity: str) -> nkeys.UserKey:
        return nkeys.read(seed_file(self.keys, identity))

    def environment(self, node: int) -> dict[str, str]:
        env = self.home / "users.env"
        cluster.keys(self.keys, env, [f"127.0.0.1:{self.ports[5 + n]}" for n in NODES])
        shared = dict(line.split("=", 1) for line in env.read_text().splitlines())
        return {
            **os.environ,
            **{name: value.strip("'") for name, value in shared.items()},
            "SWARM_NODE": f"nats-{node}",
            "SWARM_HOST": "127.0.0.1",
            "SWARM_PORT": str(self.ports[node - 1]),
            "SWARM_MONITOR": f"127.0.0.1:{self.ports[2 + node]}",
            "SWARM_CLUSTER_PORT": str(self.ports[5 + node]),
            "SWARM_STORE": str(self.home / f"store-{node}"),
        }

    def start(self, node: int) -> None:
        with (self.home / f"log-{node}").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                [find_binary(), "-c", CONF], env=self.environment(node), stdout=log, stderr=log
            )

    def kill(self, node: int) -> None:
        process = self.processes.pop(node)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def names(self) -> set[str]:
        return {f"nats-{node}" for node in self.processes}


async def until(holds: Callable[[], Awaitable[bool]], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(Unreachable):
            if await holds():
                return
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.1)


async def group(admin: JetStreamAdmin) -> dict[str, Any]:
    """Who leads the stream of facts, and which replicas are current."""
    info = await api(admin._link, "STREAM.INFO.EV_00", patience=2.0)
    found: dict[str, Any] = info["cluster"]
    return found


async def whole(admin: JetStreamAdmin) -> bool:
    found = await group(admin)
    replicas = found.get("replicas", [])
    return bool(found.get("leader")) and len(replicas) == 2 and all(one.get("current") for one in replicas)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    three = Cluster(tmp_path)
    try:
        for node in NODES:
            three.start(node)
        yield three
    finally:
        for node in list(three.processes):
            three.kill(node)


async def write(bus: Log, record: Record, after: int) -> int:
    """Append one record whatever happens to the servers: the protocol of every writer of an exclusive lane."""
    while True:
        try:
            return await bus.append([record], lane=TRAINER, after=after)
        except (Ambiguous, Conflict):
            with contextlib.suppress(Unreachable):
                head = await bus.head(TRAINER)
                if head is not None and head.body == record.body:
                    return head.seq
        except Unreachable:
            await asyncio.sleep(0.05)


@pytest.mark.long
async def test_one_server_after_another_dies_and_every_acknowledged_event_is_found(three: Cluster) -> None:
    await cluster.provision(three.keys, three.url, Layout(replicas=3, facts_bytes=2**28))
    acknowledged: list[tuple[int, bytes]] = []
    finished = asyncio.Event()

    async def keep_writing(bus: Log) -> None:
        after, n = 0, 0
        while not finished.is_set():
            record = fact(n)
            after = await write(bus, record, after)
            acknowledged.append((after, record.body))
            n += 1

    async def more() -> None:
        target = len(acknowledged) + 50
        await until(lambda: asyncio.sleep(0, len(acknowledged) >= target))

    async with (
        connect_admin(three.url, three.key("admin"), layout=Layout(replicas=3)) as admin,
        connect(three.url, "trainer", three.key("trainer")) as trainer,
        connect(three.url, "validator", three.key("validator")) as validator,
    ):
        await until(lambda: whole(admin))
        await admin.consumer("validator", subjects.waking("window.recorded"))
        async with validator.read(subjects.session(S), follow=True) as records:
            writing = asyncio.create_task(keep_writing(trainer))
            await more()
            leader = int((await group(admin))["leader"].removeprefix("nats-"))
            for node in (leader, *(n for n in NODES if n != leader)):
                three.kill(node)
                await more()
                three.start(node)
                await until(lambda: whole(admin))
                await more()
            finished.set()
            await asyncio.wait_for(writing, 30)
            followed = await some(records, len(acknowledged))
        served = await taken(validator, TRAINER)
        async with validator.wakes("validator") as wakes:
            assert (await woken(wakes)).stored.subject == fact(0).subject
    assert [(r.seq, r.body) for r in served] == acknowledged
    assert [(r.seq, r.body) for r in followed] == acknowledged
    assert [r.body for r in served] == [fact(n).body for n in range(len(acknowledged))]


@pytest.mark.long
async def test_two_writers_on_one_lane_have_one_winner_over_three_servers(three: Cluster) -> None:
    await cluster.provision(three.keys, three.url, Layout(replicas=3, facts_bytes=2**28))
    await cluster.provision(three.keys, three.url, Layout(replicas=3, facts_bytes=2**28))
    async with (
        connect(three.url, "trainer", three.key("trainer")) as one,
        connect(three.url, "trainer", three.key("trainer")) as two,
    ):
        after = 0
        for n in range(20):
            size = 1 + n % 3
            tries = [bus.append([fact(n)] * size, lane=TRAINER, after=after) for bus in (one, two)]
            results = await asyncio.gather(*tries, return_exceptions=True)
            assert sorted(type(result).__name__ for result in results) == ["Conflict", "int"]
            after += size
        assert [r.seq for r in await taken(two, TRAINER)] == list(range(1, after + 1))


def test_the_server_itself_accepts_the_deployed_files(tmp_path: Path) -> None:
    checked = subprocess.run(
        [find_binary(), "-t", "-c", CONF], env=Cluster(tmp_path).environment(1), capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert "is valid" in checked.stderr


def test_the_deployed_accounts_are_the_ones_the_code_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.main(["accounts"]) == 0
    assert capsys.readouterr().out == (ROOT / "deploy" / "accounts.conf").read_text()


def test_a_guest_is_added_to_the_accounts_of_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    key = nkeys.mint().public
    assert cluster.main(["accounts", "--guest", f"footprint={key}"]) == 0
    assert key in capsys.readouterr().out
    assert cluster.main(["accounts", "--guest", "footprint"]) == InvalidInput.exit_code
    assert "names no key" in capsys.readouterr().err


def test_minting_again_keeps_users_and_route_password(tmp_path: Path) -> None:
    nodes = [f"nats-{n}:6222" for n in NODES]
    cluster.keys(tmp_path / "keys", tmp_path / "users.env", nodes)
    first = (tmp_path / "users.env").read_text()
    cluster.keys(tmp_path / "keys", tmp_path / "users.env", nodes)
    assert (tmp_path / "users.env").read_text() == first
    assert (tmp_path / "users.env").stat().st_mode & 0o777 == 0o600
    assert f"NKEY_TRAINER='{nkeys.read(seed_file(tmp_path / 'keys', 'trainer')).public}'" in first


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


SERVICE_KEYS = {
    "image", "build", "restart", "networks", "depends_on", "entrypoint", "command", "healthcheck", "environment",
    "ports", "volumes",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def test_compose_uses_only_what_its_schema_knows(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "networks", "volumes"}
    for service in compose["services"].values():
        assert set(service) <= SERVICE_KEYS
        assert isinstance(service.get("command", []), list)
        assert isinstance(service.get("environment", {}), dict)
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())
        assert service.get("restart") in ("no", "unless-stopped")
        assert set(service["networks"]) <= set(compose["networks"])
        for name, wanted in service.get("depends_on", {}).items():
            assert name in compose["services"]
            assert wanted["condition"] in CONDITIONS
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in compose["services"][name]
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).is_dir()


def test_compose_starts_three_servers_one_provisioning_job_and_the_agents(compose: dict[str, Any]) -> None:
    services = compose["services"]
    servers = [name for name in services if name.startswith("nats-")]
    assert len(servers) == 3
    assert all("healthcheck" in services[name] for name in servers)
    assert set(services["provision"]["depends_on"]) == set(servers)
    assert services["provision"]["restart"] == "no"
    assert services["agents"]["depends_on"] == {"provision": {"condition": "service_completed_successfully"}}
    assert services["agents"]["environment"]["SWARM_URL"].count("nats://") == 3


def test_compose_publishes_on_loopback_only_and_gives_no_server_a_seed(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if name.startswith("nats-"):
            assert not any(mount.startswith("home:") for mount in service["volumes"])
            assert all(mount.endswith(":ro") for mount in service["volumes"] if not mount.startswith("store-"))


def test_compose_gives_every_server_each_variable_of_its_configuration(compose: dict[str, Any], tmp_path: Path) -> None:
    nodes = compose["services"]["keys"]["command"][3:]
    assert nodes == [f"--node=nats-{n}:6222" for n in NODES]
    cluster.keys(tmp_path / "keys", tmp_path / "users.env", [node.removeprefix("--node=") for node in nodes])
    shared = {line.split("=", 1)[0] for line in (tmp_path / "users.env").read_text().splitlines()}
    text = CONF.read_text() + (ROOT / "deploy" / "accounts.conf").read_text()
    used = {word.strip("[],}")[1:] for word in text.split() if word.strip("[],}").startswith(("$SWARM", "$NKEY"))}
    for n in NODES:
        assert used <= shared | set(compose["services"][f"nats-{n}"]["environment"])


def test_compose_jobs_are_commands_that_exist(compose: dict[str, Any]) -> None:
    for name in ("keys", "provision"):
        service = compose["services"][name]
        assert service["entrypoint"] == ["python", "-m", "bus.cluster"]
        assert cluster._parser().parse_args(service["command"]).job == name


def image() -> list[list[str]]:
    """The lines of the Dockerfile as words, continued ones put together."""
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip() and line[0] != "#"]


def test_the_image_has_the_distribution_and_closes_the_home_that_compose_keeps(compose: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = image()
    copied = {name for line in lines if line[0] == "COPY" for name in line[1:-1]}
    assert {"contracts", "bus", "runtime", "agents", "stigmergy", "constraints.txt", "pyproject.toml"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == copied
    home = next(line[1].partition("=")[2] for line in lines if line[0] == "ENV")
    folders = next(line for line in lines if "install" in line and home in line)
    assert folders[folders.index("-m") + 1] == "0700"
    assert ["VOLUME", home] in lines
    assert ["ENTRYPOINT", "[swarm]"] in lines
    assert "swarm" in project["project"]["scripts"]
    assert project["project"]["name"] in (ROOT / "deploy" / "Dockerfile").read_text()
    for name in ("keys", "provision", "agents"):
        assert f"home:{home}" in compose["services"][name]["volumes"]
    assert compose["services"]["agents"]["command"] == ["up"]
