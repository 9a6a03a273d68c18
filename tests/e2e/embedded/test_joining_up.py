"""``Cluster()`` in the directory of a running `jetmap up`: it joins that, and only that."""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import functions
from house import House, Up
from jetmap import Cluster, UnknownFunction
from jetmap.errors import BrokerUnreachable
from jetmap.wire.messages import FunctionRef
from jetmap.wire.seals import Sealer, new_key, offer_of
from waiting import PATIENCE, wait_for, wait_until

pytestmark = pytest.mark.anyio

SCRIPT = """
import os, sys
import msgspec
from jetmap import Cluster, task
from tasks import double
from beside import helper

class Pair(msgspec.Struct):
    n: int

@task
def own(pair: Pair) -> tuple[int, int]:
    return pair.n + VERSION, os.getppid()

if __name__ == "__main__":
    import json
    with Cluster().sync as cluster:
        found = {
            "offered": cluster.map(double, [1, 2]),
            "by name": cluster.map("double", [3]),
            "script": cluster.map(own, [Pair(1), Pair(2)]),
            "module": cluster.map(helper, [1, 2]),
            "names": [f.info.name for f in cluster.functions],
        }
    print(json.dumps(found))
"""
SAME_NAME = """
from jetmap import Cluster, task

@task
def double(n: int) -> str:
    return "the script's"

if __name__ == "__main__":
    with Cluster().sync as cluster:
        print(*cluster.map(double, [1]), *cluster.map("double", [1]))
"""
BESIDE = """
import os
from jetmap import task

@task
def helper(n: int) -> tuple[str, int]:
    return __file__, os.getppid()
"""


def python(house: House, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=house.directory,
        env=house.environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def agent_of(up: Up) -> int:
    return up.child("worker").pid


def servers_of(house: House) -> int:
    """Count the NATS servers with files in the runtime directory."""
    return len(list(house.runtime.rglob("*.nats")))


@pytest.fixture
def inside(shared_up: Up, monkeypatch: pytest.MonkeyPatch) -> Up:
    """An ``up``, in whose directory this process is."""
    _enter(shared_up.house, monkeypatch)
    return shared_up


def _enter(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.directory)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(house.runtime))
    monkeypatch.delenv("JETMAP_NATS_URL", raising=False)


# What runs where


def test_a_script_joins_it(shared_up: Up) -> None:
    """The script's functions need not be offered: they may be its own or another folder's,
    and again when the script was changed."""
    house, agent = shared_up.house, agent_of(shared_up)
    scripts = house.directory / "scripts"
    scripts.mkdir()
    (scripts / "beside.py").write_text(BESIDE)
    for version in (1, 10):
        (scripts / "later.py").write_text(SCRIPT.replace("VERSION", str(version)))
        done = python(house, "scripts/later.py", PYTHONPATH=str(house.directory))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        found = json.loads(done.stdout)
        assert found["offered"] == [2, 4] and found["by name"] == [6]
        assert found["script"] == [[1 + version, agent], [2 + version, agent]]
        assert found["module"] == [[str(scripts / "beside.py"), agent]] * 2
        # What it offers to others stays what it was.
        assert found["names"] == ["double", "slow"]
    assert servers_of(house) == 1
    assert shared_up.get("/map/double", "[4]") == (200, [8])
    assert shared_up.get("/map/own", "[4]")[0] == 404


def test_a_script_has_a_function_of_a_name_that_is_offered(shared_up: Up) -> None:
    (shared_up.house.directory / "same_name.py").write_text(SAME_NAME)
    done = python(shared_up.house, "same_name.py")
    assert (done.stdout, done.stderr) == ("the script's 2\n", "")
    assert shared_up.get("/map/double", "[4]") == (200, [8])


def test_a_session_joins_it(shared_up: Up) -> None:
    code = (
        "import os\nfrom jetmap import Cluster, task\n@task\ndef f(n: int) -> int:\n"
        "    return os.getppid()\n"
        "with Cluster().sync as cluster:\n    print(set(cluster.map(f, range(20))))\n"
    )
    done = python(shared_up.house, "-c", code)
    assert (done.stdout, done.stderr) == (f"{{{agent_of(shared_up)}}}\n", "")


async def test_both_lanes_at_once(inside: Up) -> None:
    """Maps of what it offers and of what it does not, side by side, on the same two cores."""
    async with Cluster() as cluster:
        many = range(14, 2000)  # (It raises for 13.)
        shared, own = await asyncio.gather(
            cluster.map("double", many), cluster.map(functions.is_prime, many)
        )
        assert shared == [2 * n for n in many]
        assert own == [functions.is_prime(n) for n in many]


async def test_share_false_has_workers_of_its_own(inside: Up) -> None:
    agents = {agent["agent"] for agent in inside.get("/workers")[1]}
    async with Cluster() as joined:
        assert {p.agent for p in joined.workers} == agents
    async with Cluster(share=False, cores=1) as private:
        assert agents.isdisjoint(p.agent for p in private.workers)


def test_jobs_run_what_it_offers(shared_up: Up) -> None:
    code = (
        "from jetmap import Cluster, task\nfrom tasks import double\n"
        "@task\ndef own(n: int) -> int: return n\n"
        "with Cluster().sync as cluster:\n"
        "    print(list(cluster.submit(double, range(3)).results()))\n"
        "    cluster.submit(own, range(3))\n"
    )
    script = shared_up.house.directory / "submits.py"
    script.write_text(code)
    done = python(shared_up.house, "submits.py")
    assert done.stdout == "[0, 2, 4]\n"
    last = done.stderr.strip().splitlines()[-1]
    assert "own is not one of the functions of `jetmap up`" in last
    assert f"jetmap up tasks.py {script}" in last


# Older code


def test_older_code_is_never_run(house: House) -> None:
    """Neither of the function's file nor of one that it imports; the call says how to go on."""
    helper = house.directory / "constants.py"
    helper.write_text("FACTOR = 2\n")
    house.tasks.write_text(
        "import constants\nfrom jetmap import task\n"
        "@task\ndef double(n: int) -> int:\n    return constants.FACTOR * n\n"
    )
    house.up()
    script = house.directory / "user.py"
    script.write_text(
        "from jetmap import Cluster\nfrom tasks import double\n"
        "with Cluster().sync as cluster:\n    print(cluster.map(double, [1]))\n"
    )
    assert python(house, "user.py").stdout == "[2]\n"
    helper.write_text("FACTOR = 3  # from now on\n")
    done = python(house, "user.py")
    last = done.stderr.strip().splitlines()[-1]
    assert done.stdout == "" and "constants.py changed since it was started" in last
    assert "restart it (jetmap up tasks.py), or start it with --reload" in last
    helper.write_text("FACTOR = 2\n")
    assert python(house, "user.py").stdout == "[2]\n"


@pytest.mark.slow
def test_with_reload_the_call_waits_for_todays_code(house: House) -> None:
    up = house.up("--reload")
    script = house.directory / "user.py"
    script.write_text(
        "from jetmap import Cluster\nfrom tasks import double\n"
        "with Cluster().sync as cluster:\n    print(cluster.map(double, range(1, 9)))\n"
    )
    text = house.tasks.read_text()
    house.tasks.write_text(text.replace("2 * n + plus", "3 * n + plus"))
    assert python(house, "user.py").stdout == f"{[3 * n for n in range(1, 9)]}\n"
    assert up.stop() == 0


# It ends, and another follows


async def test_it_ends_and_another_follows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    up = house.up()
    _enter(house, monkeypatch)
    async with Cluster() as cluster:
        assert await cluster.map(functions.is_prime, [7, 8]) == [True, False]
        works = [functions.Work(n, 2000) for n in range(600)]
        running = asyncio.ensure_future(cluster.map(functions.work, works))
        await wait_until(lambda: cluster.stats.items_done > 5, "the map runs")
        assert up.stop(signal.SIGKILL) == -signal.SIGKILL
        await wait_until(lambda: not cluster.connected, "its server is gone")
        with pytest.raises(BrokerUnreachable, match=r"has ended: start it again there \(jetmap up"):
            await cluster.map(functions.is_prime, [7])
        house.up()  # With another port, password and key.

        async def works_again() -> bool:
            try:
                return await cluster.map(functions.is_prime, [7, 8]) == [True, False]
            except BrokerUnreachable:
                return False

        await wait_for(works_again, "it has found the new one")
        assert await running == list(range(600))


@pytest.mark.slow
async def test_open_maps_end_when_none_follows(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetmap.client.local_up.GONE_SECONDS", 0.5)
    up = house.up()
    _enter(house, monkeypatch)
    async with Cluster() as cluster:
        running = asyncio.ensure_future(cluster.map("slow", [0.01] * 100_000))
        await wait_until(lambda: cluster.stats.items_done > 20, "the map runs")
        up.stop(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(BrokerUnreachable, match="has ended"):
                await running


# Trust


@pytest.fixture
async def stranger(shared_up: Up) -> AsyncIterator[Cluster]:
    """Somebody who reaches the broker with its password, as other hosts do."""
    running = shared_up.house.running()
    url = running.url.replace("//", f"//{running.user}:{running.password}@")
    cluster = await Cluster.start(url)
    yield cluster
    await cluster.aclose()


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return open, (self._path, "w")


async def test_the_password_of_the_broker_is_not_enough(
    shared_up: Up, stranger: Cluster, tmp_path: Path
) -> None:
    """A caller with the password but not the key can only call functions by name."""
    touched = tmp_path / "touched"
    refs = {
        "value": FunctionRef("m", "f", value=pickle.dumps(Touch(str(touched))), digest="1"),
        "module": FunctionRef("os", "remove", digest="2"),
        "script": FunctionRef("__main__", "f", path=str(tmp_path / "evil.py"), digest="3"),
    }
    (tmp_path / "evil.py").write_text(f"open({str(touched)!r}, 'w')\ndef f(n): return n\n")
    dispatcher = stranger._session.dispatcher
    local = offer_of(bytes.fromhex(shared_up.house.running().key))
    assert dispatcher.roster.has_local(local)  # Its name is public.
    forger = Sealer(new_key())
    for name, ref in refs.items():
        with pytest.raises(UnknownFunction):
            await _open(stranger, "nowhere", None)
        for offer in ("", local):
            forger.offer = offer or forger.offer
            dispatcher._outbox._sealer = forger if offer else None
            dispatcher.roster.sealer = forger if offer else None
            # By their names, whatever they say beside; or not at all.
            if offer:
                errors = await _errors(stranger, "double", ref)
                assert {e.type for e in errors} == {"PermissionError"}, (name, errors)
                assert "the seal does not fit" in errors[0].message
            else:
                assert await _errors(stranger, "double", ref) == []
        assert not touched.exists(), name


async def _open(cluster: Cluster, name: str, ref: FunctionRef | None) -> Any:
    from jetmap.client.call import Call
    from jetmap.dispatch.map_spec import MapSpec

    source = Call.of("double", None).source([1, 2], keep=False, max_item=1000)
    spec = MapSpec(function=name, format="msgpack", ref=ref)
    return await cluster._session.dispatcher.open(spec, source)


async def _errors(cluster: Cluster, name: str, ref: FunctionRef) -> list[Any]:
    run = await _open(cluster, name, ref)
    return [error async for batch in run for error in batch.errors]


@pytest.mark.slow
async def test_another_host_gets_none_of_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It joined with the password, and offers the same tasks."""
    up = house.up()
    worker = house.start("worker", "tasks.py", "--cores", "1")
    await wait_until(lambda: up.ready == 3, "both are there")
    _enter(house, monkeypatch)
    async with Cluster() as cluster:
        pids = {int(at.rpartition("/")[2]) for at in await cluster.map(functions.where, range(300))}
        assert {psutil.Process(pid).ppid() for pid in pids} == {agent_of(up)}
        pids = set(await cluster.map("slow", [0.02] * 60))
    assert len(pids) == 3  # By name, all cores of the pool.
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0


def test_only_the_agent_knows_the_key(shared_up: Up) -> None:
    """Neither the gateway nor a worker's functions find it in their environment."""
    running = shared_up.house.running()
    for process in shared_up.house.descendants(shared_up.process):
        environment = "\n".join(f"{k}={v}" for k, v in process.environ().items())
        assert running.key not in environment
        assert running.key not in " ".join(process.cmdline())
    assert "JETMAP__UP" not in shared_up.child("api").environ()
    for file in (running.lock, running.password_file, running.code_file):
        assert Path(file).stat().st_mode & 0o077 == 0, file


@pytest.mark.slow
def test_the_banner_tells_other_directories(shared_up: Up, tmp_path: Path) -> None:
    running = shared_up.house.running()
    code = "from jetmap import Cluster\nwith Cluster().sync as c: print(c.map('double', [4]))\n"
    (tmp_path / "elsewhere.py").write_text(code)
    from jetmap.cli.up import exports

    line = exports(running)
    assert running.password not in line
    done = subprocess.run(
        ["bash", "-c", f'{line}\nexec "$@"', "bash", sys.executable, "elsewhere.py"],
        cwd=tmp_path,
        env=shared_up.house.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[8]\n", "")
