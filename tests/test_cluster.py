"""``Cluster`` as its users see it, embedded: real keeper, real nats-server, real workers."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import functions
from jetmap import (
    Cluster,
    ClusterClosed,
    ItemInvalid,
    ItemRaised,
    LimitExceeded,
    MapTimeout,
    NotImportable,
    Unencodable,
    UnknownFunction,
    task,
)
from jetmap.settings import Settings
from support import (
    FUNCTIONS,
    HERE,
    KEEPER,
    check,
    marked,
    nothing_left,
    outcomes,
    run_python,
    wait_until,
    wait_until_sync,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    with nothing_left() as mark:
        yield mark


@pytest.fixture(scope="module")
async def shared(mark: str) -> AsyncIterator[Cluster]:
    async with Cluster(tasks=FUNCTIONS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def inline() -> AsyncIterator[Cluster]:
    async with Cluster(inline=True) as cluster:
        yield cluster


@pytest.fixture(params=["embedded", "inline"])
def cluster(request: pytest.FixtureRequest, shared: Cluster, inline: Cluster) -> Cluster:
    """Both: inline gives the same as the cluster."""
    return shared if request.param == "embedded" else inline


# Maps


async def test_map(cluster: Cluster) -> None:
    numbers = range(3000)
    assert await cluster.map(functions.is_prime, numbers) == [
        functions.is_prime(n) for n in numbers
    ]
    assert await cluster.map(functions.is_prime, []) == []
    assert await cluster.map(functions.is_prime, [7]) == [True]
    assert await cluster.map(functions.is_prime, {2, 3}) == [True, True]


async def test_typed_values(cluster: Cluster) -> None:
    parts = [tuple(range(n)) for n in range(50)]
    sums = await cluster.map(functions.add, parts)
    assert sums == [functions.Sum(math.fsum(part), part) for part in parts]
    assert await cluster.map(functions.zeros, [0, 5]) == [b"", bytes(5)]
    (nan,) = await cluster.map(functions.add, [(1,)])
    assert nan.total == 1.0


async def test_functions_are_imported_at_first_use_pydantic_ones_too(cluster: Cluster) -> None:
    from typed_functions import Point, mirrored, root

    points = [Point(x=n, name=str(n)) for n in range(20)]
    expected = [Point(x=0, y=n, name=str(n)) for n in range(20)]
    assert await cluster.map(mirrored, points) == expected
    assert await cluster.map(root, [4, 9]) == [2.0, 3.0]
    values = await cluster.map(root, [4, -1], return_exceptions=True)
    check(values, [2.0, None], {1: ItemInvalid})
    assert any(status.info.name == "mirrored" for status in cluster.functions)


async def test_keyword_parameters(cluster: Cluster) -> None:
    assert await cluster.map(functions.scale, range(4), kwargs={"by": 3}) == [0, 3, 6, 9]
    twice = await cluster.map(functions.scale, [1, 2], kwargs={"by": 2, "plus": 1})
    assert twice == [3, 5]
    for wrong in (None, {"by": "2"}, {"by": 2, "more": 1}):
        with pytest.raises(TypeError, match="keyword parameters of scale"):
            await cluster.map(functions.scale, [1], kwargs=wrong)


async def test_by_name(cluster: Cluster) -> None:
    assert await cluster.map("is_prime", [7, 8]) == [True, False]
    (built_in,) = await cluster.map("add", [(1, 2)])
    assert built_in == {"total": 3.0, "parts": [1, 2]}
    assert await cluster.map("scale", [1], kwargs={"by": 5}) == [5]
    values = await cluster.map("scale", [1, 2], kwargs={"by": "5"}, return_exceptions=True)
    check(values, [None, None], {0: ItemInvalid, 1: ItemInvalid})
    with pytest.raises(UnknownFunction, match="nobody"):
        await cluster.map("nobody", [1])
    with pytest.raises(TypeError, match="is not a @task"):
        await cluster.map(len, [[]])


async def test_failing_items_keep_their_places(cluster: Cluster) -> None:
    values = await cluster.map(functions.odd_only, range(200), return_exceptions=True)
    check(values, list(range(200)), {n: ItemRaised for n in range(0, 200, 2)})
    error = values[4]
    assert isinstance(error, ItemRaised)
    assert (error.index, error.kind, error.type) == (4, "raised", "ValueError")
    assert error.message == "4 is even"
    assert error.traceback is not None and 'raise ValueError(f"{n} is even")' in error.traceback
    assert "compute.py" not in error.traceback


async def test_the_first_failing_item_in_input_order_is_raised(cluster: Cluster) -> None:
    # The early one takes long, so a later one fails first.
    items = [functions.Work(n) for n in range(400)]
    items[20] = functions.Work(20, 150_000, True)
    items[350] = functions.Work(350, 0, True)
    failed = cluster.stats.maps_ended["failed"]
    with pytest.raises(ItemRaised) as caught:
        await cluster.map(functions.work, items)
    assert caught.value.index == 20
    if cluster.stats.maps_started:  # An inline one has no statistics.
        assert cluster.stats.maps_ended["failed"] == failed + 1


async def test_items_and_values_that_do_not_fit_their_types(cluster: Cluster) -> None:
    items: list[Any] = [7, "7", 7.0, None, 2**70, 11]
    values = await cluster.map("is_prime", items, return_exceptions=True)
    failing: dict[int, Any] = dict.fromkeys((1, 2, 3), ItemInvalid) | {4: Unencodable}
    check(values, [True, *[None] * 4, True], failing)
    values = await cluster.map(functions.lies, range(20), return_exceptions=True)
    check(values, list(range(20)), {5: Unencodable, 15: Unencodable})


async def test_stream(cluster: Cluster) -> None:
    found = await outcomes(cluster.stream(functions.odd_only, range(500)))
    assert len(found) == 500
    for outcome in found:
        assert outcome.item == outcome.index
        assert outcome.ok == (outcome.index % 2 == 1)
        if outcome.ok:
            assert outcome.value == outcome.item
        else:
            with pytest.raises(ItemRaised, match="is even"):
                _ = outcome.value


async def test_an_ordered_stream(cluster: Cluster) -> None:
    items = [functions.Work(n, 3000 if n % 7 == 0 else 0) for n in range(300)]
    stream = cluster.stream(functions.work, items, ordered=True)
    async with stream:
        assert [outcome.value async for outcome in stream] == list(range(300))
    assert stream.done == stream.total == 300


async def test_async_iterables(cluster: Cluster) -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(100):
            await asyncio.sleep(0)
            yield n

    expected = [functions.is_prime(n) for n in range(100)]
    assert await cluster.map(functions.is_prime, numbers()) == expected
    found = await outcomes(cluster.stream(functions.is_prime, numbers()))
    assert [outcome.value for outcome in found] == expected


async def test_a_stream_takes_its_items_lazily(cluster: Cluster) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield 20_000

    # How much a value takes is learnt, as how long it takes.
    await cluster.map(functions.zeros, [20_000] * 200)
    read = 0
    async with cluster.stream(functions.zeros, endless()) as stream:
        async for outcome in stream:
            read += 1
            assert outcome.value == bytes(20_000)
            if read == 50:
                break
    # Results of 20 kB, of which a map may leave 16 MiB unread: it cannot have run far ahead.
    assert read == 50 <= taken < 5000


async def test_a_slow_reader_holds_back_only_its_own_map(shared: Cluster) -> None:
    async with shared.stream(functions.zeros, [20_000] * 5000) as stream:
        assert (await anext(stream)).ok
        await wait_until(lambda: stream.done * 20_000 > shared.settings.max_buffer_bytes, "full")
        assert await shared.map(functions.empty, range(3000)) == list(range(3000))
        assert stream.done < 2000
        read = 1
        async for outcome in stream:
            assert outcome.value == bytes(20_000)
            read += 1
        assert read == 5000


async def test_a_map_over_a_generator(cluster: Cluster) -> None:
    assert await cluster.map(functions.empty, (n for n in range(1000))) == list(range(1000))


async def test_timeout_of_a_map(cluster: Cluster) -> None:
    with pytest.raises(MapTimeout, match=r"within its timeout of 0\.3 s") as caught:
        await cluster.map(functions.spin, [0.05] * 200, timeout=0.3)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(MapTimeout):
        async with cluster.stream(functions.spin, [0.05] * 200, timeout=0.3) as stream:
            async for _ in stream:
                pass
    assert await cluster.map(functions.is_prime, [7], timeout=30) == [True]


async def test_limits(shared: Cluster, mark: str) -> None:
    settings = shared.settings.model_copy(update={"max_list": 10})
    async with Cluster(inline=True, settings=settings) as cluster:
        with pytest.raises(LimitExceeded, match="max_list") as caught:
            await cluster.map(functions.is_prime, range(11))
        assert (caught.value.limit, caught.value.value) == (10, 11)


async def test_many_maps_at_once(shared: Cluster) -> None:
    maps = [shared.map(functions.empty, range(n)) for n in range(60)]
    assert await asyncio.gather(*maps) == [list(range(n)) for n in range(60)]
    assert shared.stats.maps_open == 0


async def test_what_is_there(shared: Cluster) -> None:
    names = {status.info.name: status for status in shared.functions}
    assert names["is_prime"].alive and names["is_prime"].cores == len(os.sched_getaffinity(0))
    assert names["is_prime"].info.doc == "Whether n is a prime number."
    assert names["is_prime"].info.item["type"] == "integer"
    # (The test before this one may have cost a worker.)
    await wait_until(
        lambda: [a.ready for a in shared.workers] == [a.cores for a in shared.workers], "ready"
    )
    (agent,) = shared.workers
    assert agent.cores == len(agent.workers) and agent.embedded
    assert shared.connected
    by_cpu = {core.cpu: core.pid for core in agent.workers}
    for cpu, pid in by_cpu.items():
        assert pid is not None and psutil.Process(pid).cpu_affinity() == [cpu]


# Other ways to use it


async def test_sync_from_threads(shared: Cluster) -> None:
    found: dict[int, list[bool]] = {}

    def use(number: int) -> None:
        values = shared.sync.map(functions.is_prime, range(number))
        with shared.sync.stream(functions.is_prime, range(number), ordered=True) as stream:
            assert [outcome.value for outcome in stream] == values
        found[number] = values

    threads = [threading.Thread(target=use, args=(n,)) for n in (10, 20, 30)]
    for thread in threads:
        thread.start()
    await wait_until(lambda: not any(t.is_alive() for t in threads), "the threads end")
    assert found == {n: [functions.is_prime(i) for i in range(n)] for n in (10, 20, 30)}
    with pytest.raises(ClusterClosed, match="await"):
        shared.sync.map(functions.is_prime, [7])


def test_sync_in_a_script(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(SCRIPT, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"squares": [0, 1, 4, 9], "primes": [True, False]}


SCRIPT = """
import json
from jetmap import Cluster, task
from functions import is_prime

@task
def square(n: int) -> int:
    return n * n

if __name__ == "__main__":
    with Cluster().sync as cluster:
        squares = cluster.map(square, range(4))
        primes = [outcome.value for outcome in cluster.stream(is_prime, [7, 8], ordered=True)]
    print(json.dumps({"squares": squares, "primes": primes}))
"""

BY_VALUE = """
import json
from jetmap import Cluster, task
factor = 3

@task
def times(n: int) -> int:
    return n * factor

cluster = Cluster().sync.__enter__()
print(json.dumps(cluster.map(times, [1, 2])))

@task
def times(n: int) -> int:
    return n * factor + 1

print(json.dumps(cluster.map(times, [1, 2])))
cluster.close()
"""


def test_functions_without_a_file_travel_by_value(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(BY_VALUE, cwd=tmp_path, file=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[3, 6], [4, 7]]


def test_in_a_repl(tmp_path: Path) -> None:
    with nothing_left():
        done = subprocess.run(
            [sys.executable, "-i", "-q"],
            input=BY_VALUE,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=40,
        )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[3, 6], [4, 7]]
    assert "Traceback" not in done.stderr


async def test_functions_that_no_worker_can_import(shared: Cluster) -> None:
    @task
    def local(n: int) -> int:
        return n

    with pytest.raises(NotImportable, match="move it to module level"):
        await shared.map(local, [1])
    async with Cluster(inline=True) as inline:
        assert await inline.map(local, [1]) == [1]


async def test_another_event_loop(cluster: Cluster) -> None:
    async def use() -> list[bool]:
        return await cluster.map(functions.is_prime, [7])

    with pytest.raises(ClusterClosed, match="another event loop"):
        await asyncio.to_thread(asyncio.run, use())
    assert await use() == [True]


async def test_after_a_fork(shared: Cluster) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        said = "nothing"
        try:
            shared.stream(functions.is_prime, [7])
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = await asyncio.to_thread(pipe.read)
    await asyncio.to_thread(os.waitpid, pid, 0)
    assert said.startswith("ClusterClosed: this cluster was started before")
    assert await shared.map(functions.is_prime, [7]) == [True]


async def test_inside_a_worker(shared: Cluster) -> None:
    (said,) = await shared.map(functions.own_cluster, [1])
    assert said.startswith("ClusterClosed: a Cluster cannot be used inside a worker")


async def test_closed_and_not_started() -> None:
    cluster = Cluster(inline=True)
    with pytest.raises(ClusterClosed, match="async with"):
        await cluster.map(functions.is_prime, [7])
    async with cluster:
        assert await cluster.map(functions.is_prime, [7]) == [True]
        with pytest.raises(ClusterClosed, match="started already"):
            await cluster._start()
    await cluster.aclose()
    with pytest.raises(ClusterClosed):
        cluster.stream(functions.is_prime, [7])


async def test_closing_ends_open_maps() -> None:
    with nothing_left():
        async with Cluster(tasks=FUNCTIONS, share=False) as cluster:
            running = asyncio.ensure_future(cluster.map(functions.spin, [0.05] * 1000))
            await wait_until(lambda: cluster.stats.items_done > 2, "the map runs")
        with pytest.raises(ClusterClosed):
            await running


# The keeper


async def test_processes_share_a_keeper(shared: Cluster, mark: str) -> None:
    def keepers() -> list[psutil.Process]:
        return [p for p in marked(mark) if KEEPER in " ".join(p.cmdline())]

    (agent,) = shared.workers
    children = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(HERE / "second_user.py"), FUNCTIONS),
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for child in children:
        told, _ = await child.communicate()
        found = json.loads(told)
        assert found["agents"] == [agent.agent]
        assert found["values"] == [True, False]
    assert len(keepers()) == 1
    assert await shared.map(functions.is_prime, [7]) == [True]


async def test_a_private_one(shared: Cluster, mark: str) -> None:
    before = len(marked(mark))
    async with Cluster(tasks=FUNCTIONS, share=False, cores=1) as cluster:
        assert {p.agent for p in cluster.workers}.isdisjoint({p.agent for p in shared.workers})
        assert await cluster.map(functions.is_prime, [7]) == [True]
        assert len(marked(mark)) > before
    await wait_until(lambda: len(marked(mark)) <= before, "the private keeper ends", 6)


async def test_nothing_is_left_when_the_user_is_killed(tmp_path: Path) -> None:
    with nothing_left() as mark:
        user = await asyncio.create_subprocess_exec(
            *(sys.executable, str(HERE / "second_user.py"), FUNCTIONS, "stay"),
            stdout=subprocess.PIPE,
        )
        assert user.stdout is not None
        assert json.loads(await user.stdout.readline())["values"] == [True, False]
        assert len(marked(mark)) >= 4
        user.kill()
        await user.wait()
        await wait_until(lambda: not marked(mark), "nothing is left", 6)
        runtime = Path(os.environ["XDG_RUNTIME_DIR"]) / "jetmap"
        assert [p.name for p in runtime.iterdir() if p.suffix != ".lock"] == []


def test_changed_sources_replace_the_workers(tmp_path: Path) -> None:
    with nothing_left():
        done = run_python(CHANGING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2"]


CHANGING = """
import importlib, os, pathlib, sys, time
from jetmap import Cluster

FILE = pathlib.Path("changing.py")

def write(version):
    FILE.write_text(f"from jetmap import task\\n@task\\ndef version(n: int): return {version}\\n")
    os.utime(FILE, (version * 1000, version * 1000))

if __name__ == "__main__":
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    write(1)
    sys.path.insert(0, os.getcwd())
    import changing
    with Cluster(tasks="changing.py").sync as cluster:
        print(*cluster.map(changing.version, [1]))
        write(2)
        importlib.reload(changing)
        print(*cluster.map(changing.version, [1]))
"""


def test_prints_are_marked_with_their_item(tmp_path: Path) -> None:
    code = """
from functions import say
from jetmap import Cluster
if __name__ == "__main__":
    with Cluster().sync as cluster:
        cluster.map(say, ["zero", "one"])
"""
    with nothing_left():
        done = run_python(code, cwd=tmp_path)
    assert done.stdout == ""
    for index, text in enumerate(["zero", "one"]):
        lines = [line for line in done.stderr.splitlines() if f" item {index}] " in line]
        said = [line.partition("] ")[2] for line in lines]
        assert said == [text, f"{text} to stderr"]


async def test_a_killed_keeper_is_replaced() -> None:
    with nothing_left() as mark:
        async with Cluster(tasks=FUNCTIONS, share=False) as cluster:
            numbers = list(range(2000))
            running = asyncio.ensure_future(
                cluster.map(functions.work, [functions.Work(n, 1000) for n in numbers])
            )
            await wait_until(lambda: cluster.stats.items_done > 50, "the map runs")
            (keeper,) = [p for p in marked(mark) if KEEPER in " ".join(p.cmdline())]
            keeper.kill()
            assert await running == numbers


def test_workers_that_cannot_start_say_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    code = """
from jetmap import Cluster
if __name__ == "__main__":
    with Cluster(tasks="broken.py").sync:
        pass
"""
    with nothing_left():
        done = run_python(code, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "WorkerStartFailed" in done.stderr and "nothing_of_this_name" in last


def test_settings_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_MAX_LIST", "3")
    assert Settings.load().max_list == 3
    with nothing_left():
        done = run_python(
            "from functions import empty\n"
            "from jetmap import Cluster\n"
            'if __name__ == "__main__":\n'
            "    with Cluster(inline=True).sync as cluster:\n"
            "        cluster.map(empty, range(4))\n",
            cwd=tmp_path,
        )
    assert "LimitExceeded: the list has 4 items; the limit is 3" in done.stderr


def test_everything_is_gone_when_a_script_ends(tmp_path: Path) -> None:
    with nothing_left(patient=True) as mark:
        run_python(SCRIPT, cwd=tmp_path)
        wait_until_sync(lambda: not marked(mark), "nothing is left", 5)
