"""The keeper of an embedded cluster: real processes, really killed. Its agent is a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jetmap.embedded import membership
from jetmap.embedded.locks import take
from jetmap.embedded.membership import KeeperSpec, Membership, join_keeper
from jetmap.errors import BrokerUnreachable
from waiting import wait_until_sync

STAND_IN = """
import asyncio, gc, pathlib, subprocess, sys

class Agent:
    is_broken = False
    def __init__(self, connection, order):
        assert connection.connected
        self.worker = None
    async def start(self):
        print("agent: started", file=sys.stderr, flush=True)
        # As a worker, it inherits stderr, and ends when the keeper does.
        self.worker = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        pathlib.Path("started").touch()
    async def drain(self, grace):
        pathlib.Path("drained").touch()
        await self.stop()
    async def stop(self):
        self.worker.kill()
        self.worker.wait()

class Starting(Agent):
    async def start(self):
        pathlib.Path("starting").touch()
        await asyncio.Event().wait()
    async def stop(self):
        pass

def make(connection, order):
    assert gc.isenabled()  # It rests while the keeper starts.
    return Agent(connection, order)

def starting(connection, order):
    return Starting(connection, order)

def broken(connection, order):
    raise ValueError("no agent today")
"""

# Does what its stdin says, and tells what it sees as JSON lines.
USER = """
import asyncio, json, sys
from jetmap.nats.connection import Connection
from jetmap.embedded.membership import KeeperSpec, join_keeper

def tell(**facts):
    print(json.dumps(facts), flush=True)

async def main(spec, agent):
    m = await join_keeper(KeeperSpec(**spec), 100, agent=agent)
    connection = await Connection.open(m.servers, name="user", auth=m.auth, timeout=100)
    async def reconnected():
        tell(event="reconnected")
    connection.on_reconnect(reconnected)
    async def hear(msg):
        tell(event="heard", data=msg.data.decode())
    await connection.subscribe("talk", hear)
    await connection.flush(100)
    tell(starter=m.starter, url=m.servers[0], password=m.auth.password, keeper=m.keeper_pid)
    async def renewed():
        tell(event="renewed", url=m.servers[0], password=m.auth.password, keeper=m.keeper_pid)
    m.on_renewed(renewed)
    while command := (await asyncio.to_thread(sys.stdin.readline)).split():
        if command[0] == "say":
            await connection.publish("talk", command[1].encode())
        elif command[0] == "failed":
            while m.failed is None:
                await asyncio.sleep(0.01)  # It polls as wait_until does.
            tell(event="failed", reason=m.failed)
        elif command[0] == "leave":
            await connection.close()
            await m.leave()
            return

asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2]))
"""


class User:
    def __init__(self, place: Path, spec: dict[str, Any], agent: str, stderr: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, json.dumps(spec), agent],
            cwd=place,
            env=environment(place),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def hears(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the user ended"
        heard: dict[str, Any] = json.loads(line)
        return heard

    def until(self, event: str) -> dict[str, Any]:
        """Read on to the next event of this kind.

        A user that is slow to answer its server is cut off, so it may have reconnected once more.
        """
        while (heard := self.hears())["event"] != event:
            pass
        return heard

    def does(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def leaves(self) -> None:
        self.does("leave")
        assert self.process.wait(100) == 0

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class House:
    """A directory of its own with a runtime directory, and the users that live there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.users: list[User] = []
        (place / "stand_in.py").write_text(STAND_IN)
        (place / "run").mkdir(mode=0o700)

    def user(
        self, agent: str = "stand_in:make", stderr: Any = subprocess.DEVNULL, **spec: Any
    ) -> User:
        user = User(self.place, spec, agent, stderr)
        self.users.append(user)
        return user

    @property
    def files(self) -> list[str]:
        directory = self.place / "run" / "jetmap"
        return sorted(path.name for path in directory.iterdir())

    @property
    def keepers(self) -> list[psutil.Process]:
        return [p for p in processes_in(self.place) if "jetmap.embedded.keeper" in command(p)]

    @property
    def servers(self) -> list[psutil.Process]:
        return [p for p in processes_in(self.place) if "nats-server.conf" in command(p)]

    def is_empty(self) -> bool:
        return not processes_in(self.place) and self.files == []


@pytest.fixture
def house() -> Iterator[House]:
    place = Path(tempfile.mkdtemp(prefix="jm-")).resolve()
    house = House(place)
    try:
        yield house
        for user in house.users:
            user.close()
        for keeper in house.keepers:
            keeper.terminate()  # sooner than after its two seconds
        wait_until_sync(house.is_empty, "the last keeper's end")
    finally:
        for user in house.users:
            user.close()
        for process in processes_in(place):
            process.kill()
        shutil.rmtree(place)


def environment(place: Path) -> dict[str, str]:
    return os.environ | {"XDG_RUNTIME_DIR": str(place / "run"), "PYTHONPATH": str(place)}


def processes_in(place: Path) -> list[psutil.Process]:
    """Living processes whose working directory is there, except this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(place):
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_four_that_start_at_once_share_one_keeper_and_leave_nothing_when_killed(
    house: House,
) -> None:
    users = [house.user() for _ in range(4)]
    facts = [user.hears() for user in users]
    assert sum(fact["starter"] for fact in facts) == 1
    assert len({(fact["keeper"], fact["url"], fact["password"]) for fact in facts}) == 1
    assert [keeper.pid for keeper in house.keepers] == [facts[0]["keeper"]]
    assert len(house.servers) == 1
    users[0].does("say hello")
    assert [user.until("heard")["data"] for user in users] == ["hello"] * 4
    for user in users:
        user.process.kill()
    wait_until_sync(house.is_empty, "the end of keeper, server and files")


def test_a_killed_keeper_is_replaced_on_the_same_port_with_the_same_password(
    house: House,
) -> None:
    users = [house.user() for _ in range(2)]
    facts = [user.hears() for user in users]
    (server,) = house.servers
    os.kill(facts[0]["keeper"], signal.SIGKILL)
    wait_until_sync(lambda: server not in house.servers, "the server's end")
    # Their clients reconnect without knowing any of it, sooner or later than their memberships.
    renewed = []
    for user in users:
        events: dict[str, dict[str, Any]] = {}
        while not {"reconnected", "renewed"} <= set(events):
            heard = user.hears()
            events[heard["event"]] = heard
        renewed.append(events["renewed"])
    assert len({fact["keeper"] for fact in renewed}) == 1
    assert renewed[0]["keeper"] != facts[0]["keeper"]
    for fact in renewed:
        assert (fact["url"], fact["password"]) == (facts[0]["url"], facts[0]["password"])
    assert len(house.keepers) == 1
    users[0].does("say again")
    assert [user.until("heard")["data"] for user in users] == ["again"] * 2


def test_a_killed_server_is_started_again_by_its_keeper(house: House) -> None:
    user = house.user()
    user.hears()
    (server,) = house.servers
    server.kill()
    wait_until_sync(lambda: house.servers not in ([], [server]), "another server")
    user.until("reconnected")
    user.does("say again")
    assert user.until("heard")["data"] == "again"


@pytest.mark.slow
def test_a_server_whose_port_is_taken_is_started_when_it_is_free(house: House) -> None:
    with (house.place / "said").open("w") as stderr:
        user = house.user(stderr=stderr)
    keeper = psutil.Process(user.hears()["keeper"])
    (server,) = house.servers
    wait_until_sync((house.place / "started").exists, "the agent's start")
    port = next(c.laddr.port for c in server.net_connections() if c.status == psutil.CONN_LISTEN)

    def taken() -> socket.socket | None:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:  # Threads of the server may outlive its first one for a moment.
            return None

    keeper.suspend()
    try:
        server.kill()
        listener = wait_until_sync(taken, "the port is free")
    finally:
        keeper.resume()
    with listener:
        said = house.place / "said"
        wait_until_sync(lambda: "does not start" in said.read_text(), "the keeper's error")
    user.until("reconnected")


@pytest.mark.slow
def test_a_server_that_dies_while_the_agent_starts_is_started_again(house: House) -> None:
    user = house.user("stand_in:starting")
    user.hears()
    wait_until_sync((house.place / "starting").exists, "the start of the agent")
    (server,) = house.servers
    server.kill()
    wait_until_sync(lambda: house.servers not in ([], [server]), "another server")
    user.until("reconnected")


@pytest.mark.slow
def test_the_keeper_outlives_its_starter_while_it_is_used(house: House) -> None:
    first, second = house.user(), None
    first.hears()
    second = house.user()
    assert not second.hears()["starter"]
    first.leaves()
    # Longer than a keeper stays without users.
    with pytest.raises(subprocess.TimeoutExpired):
        second.process.wait(2.5)
    assert len(house.keepers) == 1


@pytest.mark.slow
def test_a_captured_script_does_not_wait_for_the_keeper(house: House) -> None:
    script = house.user(stderr=subprocess.PIPE)
    assert script.hears()["starter"]
    other = house.user()
    assert not other.hears()["starter"]
    # To the end of what it and the keeper it has started may write.
    _, said = script.process.communicate("leave\n", timeout=100)
    assert script.process.returncode == 0, said
    assert len(house.keepers) == 1


@pytest.mark.slow
def test_what_workers_print_goes_to_a_user_that_is_there(house: House) -> None:
    with (house.place / "first").open("w") as first, (house.place / "second").open("w") as second:
        a, b = house.user(stderr=first), house.user(stderr=second)
        assert {a.hears()["starter"], b.hears()["starter"]} == {True, False}
        log_a, log_b = house.place / "first", house.place / "second"
        wait_until_sync(
            lambda: "agent: started" in log_a.read_text() + log_b.read_text(),
            "the agent's print",
        )
        (a if log_a.read_text() else b).leaves()
        rest = log_b if log_a.read_text() else log_a
        (server,) = house.servers
        server.kill()
        wait_until_sync(lambda: "starting it again" in rest.read_text(), "the keeper's warning")


def test_sigterm_drains_the_agent(house: House) -> None:
    user = house.user()
    keeper = user.hears()["keeper"]
    wait_until_sync((house.place / "started").exists, "the agent's start")
    os.kill(keeper, signal.SIGTERM)
    wait_until_sync((house.place / "drained").exists, "the drain")
    assert user.until("renewed")["keeper"] != keeper  # who is still there gets another


def test_an_agent_that_cannot_start_is_told(house: House) -> None:
    user = house.user("stand_in:broken")
    user.hears()
    user.does("failed")
    assert user.until("failed")["reason"] == "ValueError: no agent today"


@pytest.mark.slow
def test_what_killed_keepers_left_is_swept(house: House) -> None:
    user = house.user(pool="other")
    keeper = user.hears()["keeper"]
    user.process.kill()
    os.kill(keeper, signal.SIGKILL)
    wait_until_sync(lambda: not processes_in(house.place), "the server's end")
    left = house.files
    assert left
    house.user().hears()
    assert not set(left) & set(house.files)


@pytest.fixture
def own_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="jm-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    yield place
    shutil.rmtree(place)


@pytest.mark.anyio
async def test_a_keeper_that_ends_before_it_answers(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "PROGRAM", "import sys; sys.stdin.read()")
    with pytest.raises(BrokerUnreachable, match="ended before it answered"):
        await join_keeper(KeeperSpec(), 30)


@pytest.mark.anyio
@pytest.mark.parametrize("share", [True, False])
async def test_a_user_that_is_slow_finds_the_keeper_that_it_has_started(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    """On a busy machine it may take longer than a keeper lives without users."""
    monkeypatch.setattr(membership, "STARTS", 1)
    start = Membership._start_keeper

    def start_slowly(self: Membership, *descriptors: int) -> Any:
        started = start(self, *descriptors)
        ready = self._lock.with_suffix(".nats") / "nats-server.conf"
        wait_until_sync(ready.exists, "the keeper starts its server")
        time.sleep(3)  # The fault itself.
        return started

    monkeypatch.setattr(Membership, "_start_keeper", start_slowly)
    joined = await join_keeper(KeeperSpec(share=share), 100)
    assert joined.starter
    await joined.leave()
    wait_until_sync(lambda: not list((own_directory / "jetmap").iterdir()), "the keeper's end")


@pytest.mark.anyio
async def test_a_keeper_that_does_not_answer(own_directory: Path) -> None:
    (await probe_lock(own_directory)).unlink()
    descriptor = take(await probe_lock(own_directory))
    assert descriptor is not None
    try:
        with pytest.raises(BrokerUnreachable, match="does not answer"):
            await join_keeper(KeeperSpec(), 0.1)
    finally:
        os.close(descriptor)


async def probe_lock(directory: Path) -> Path:
    lock = Membership(KeeperSpec())._lock
    lock.touch()
    return lock
