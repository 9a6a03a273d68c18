"""The benchmark's own tools, and that it runs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any, Literal
from xml.etree import ElementTree

import msgspec
import psutil
import pytest
from bench import echoapp, released, tasks, wire
from bench.measure import Measure, interleaved, median_ratio, quantile
from bench.memory import _check
from bench.peers.__main__ import Process, Result, is_enough
from bench.peers.contender import LONG_SECONDS, Measuring, Sample
from bench.peers.contenders import Contender, Function
from bench.peers.rows import rows
from bench.plot import chart
from bench.servers import Server
from bench.table import Row, Target, markdown, seconds
from bench.watching import PAIRS, Cost, _cpu_seconds, _row
from bench.work import Work, primes

ROOT = Path(__file__).resolve().parents[3]


def test_quantile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile(values, 1.0) == 100
    assert quantile([7.0], 0.5) == 7


def test_ratio_is_taken_within_rounds() -> None:
    assert median_ratio([2, 30, 4], [1, 10, 2]) == 2


@pytest.mark.anyio
async def test_contenders_take_turns_and_the_first_one_changes() -> None:
    order: list[str] = []

    def measuring(name: str) -> Measure:
        async def measure() -> float:
            order.append(name)
            return float(len(order))

        return measure

    samples = await interleaved(2, {name: measuring(name) for name in "abc"})
    assert "".join(order) == "abcbca"
    assert samples == {"a": [1, 6], "b": [2, 4], "c": [3, 5]}


def test_rows_that_fall_below_the_last_release_are_named(tmp_path: Path) -> None:
    def ratio(work: str, figure: float, kind: Literal["at least", "at most"]) -> Row:
        return Row("name", work, "1 s", "1 s", figure, Target(kind, 1.0))

    file = tmp_path / "released.json"
    milliseconds = Row("one", "a time", "1 s", "1 s", 0.5, Target("at most", 1.0, " ms"))
    rows = [ratio("speed", 1.0, "at least"), ratio("delay", 2.0, "at most"), milliseconds]
    released.record(rows, "1.0", 2, file)
    released.record([ratio("other", 0.5, "at least")], "1.1", 2, file)
    before = released.read(file)
    assert before is not None and before.version == "1.1"
    assert before.ratios == {"delay": 2.0, "other": 0.5, "speed": 1.0}

    alike = [ratio("speed", 0.951, "at least"), ratio("delay", 2.09, "at most"), milliseconds]
    assert released.fallen(alike, before) == []
    worse = [
        ratio("speed", 0.94, "at least"),
        ratio("delay", 2.2, "at most"),
        ratio("new", 0.1, "at least"),
    ]
    assert released.fallen(worse, before) == [
        "speed: 0.94, and 1.00 in 1.1",
        "delay: 2.20, and 2.00 in 1.1",
    ]


def test_ratios_of_another_number_of_cores_are_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "released.json"
    released.record([Row("a", "a", "", "", 1.0, Target("at least", 1.0))], "1.0", 2, file)
    released.record([Row("b", "b", "", "", 1.0, Target("at least", 1.0))], "1.1", 4, file)
    assert released.read(file) == released.Released("1.1", 4, {"b": 1.0})


def test_the_cost_of_watching_is_met_by_the_upper_end_of_its_interval() -> None:
    def costs(*watched: Cost) -> dict[str, list[Cost]]:
        return {"alone": [Cost(1.0, 0.8)] * PAIRS, "watched": [*watched] * (PAIRS // 2)}

    # The items themselves, whose noise is left out, took very different times.
    row = _row("dashboards", costs(Cost(1.404, 1.2), Cost(0.606, 0.4)), "watched")
    assert 0.5 < row.figure < 0.6 and row.is_met
    noisy = costs(Cost(0.9, 0.8), Cost(1.1, 0.8))
    assert not _row("dashboards", noisy, "watched").is_met, "it says nothing"


def test_the_cpu_of_a_server_is_that_of_all_its_processes() -> None:
    """Count threads that have ended, and processes that its children have started."""
    script = """
import subprocess, sys, threading, time
def burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until: pass
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, __file__, *sys.argv[2:]], stdout=1)
thread = threading.Thread(target=burn, args=(0.3,))
thread.start(); thread.join()
print("burnt", flush=True)
time.sleep(600)
"""
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "program.py"
        program.write_text(script)
        # The parts of a `jetmap up`, by the words of their commands.
        command = [sys.executable, str(program), "jetmap.cli worker", "jetmap.cli api nats-server"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
            processes = [psutil.Process(parent.pid)]
            try:
                assert parent.stdout is not None
                for _ in range(3):
                    assert parent.stdout.readline() == b"burnt\n"
                processes += processes[0].children(recursive=True)
                used = _cpu_seconds(Server(0, processes[1].pid))
                total = Server(0, processes[1].pid, parent.pid).cpu_seconds()
            finally:
                for process in reversed(processes):
                    process.kill()
    assert len(used) == 3 and all(seconds >= 0.3 for seconds in used.values())
    assert total >= sum(used.values())


def test_work_is_the_same_in_every_run_and_of_the_mean_asked_for() -> None:
    work = Work(1e7)
    items = work.lognormal(400, 0.006)
    assert items == Work(1e7).lognormal(400, 0.006)
    assert mean(items) == pytest.approx(60_000, rel=1e-4)
    assert max(items) > 5 * min(items)
    assert work.equal(3, 0.0015) == [15_000] * 3


@pytest.mark.parametrize("long_at", [10, 199])
def test_heavy_work_has_one_long_item_where_it_was_asked_for(long_at: int) -> None:
    items = Work(1e7).pareto(200, 0.006, long_at=long_at)
    assert mean(items) == pytest.approx(60_000, rel=1e-3)
    assert items[long_at] == pytest.approx(sum(items) / 4, rel=1e-3)
    assert primes(4, 10) == [11, 13, 17, 19]


def test_table_says_what_was_missed() -> None:
    rows = [
        Row("a", "quick", "2 s", "1 s", figure=2.0, target=Target("at least", 1.4)),
        Row("b", "slow", "1 s", "2 s", figure=2.0, target=Target("at most", 1.35)),
    ]
    lines = markdown(rows).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["yes", "**no**"]
    assert len({len(line) for line in lines}) == 1


def test_durations_are_told_in_the_unit_that_suits_them() -> None:
    assert [seconds(v) for v in (0.000123, 0.0123, 1.234)] == ["123 µs", "12.3 ms", "1.23 s"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[7]",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n2\r\n7]\r\n0\r\n\r\n",
    ],
)
def test_answer_is_whole_or_not_there_yet(answer: bytes) -> None:
    assert wire.body_of(answer) == b"[7]"
    for end in range(len(answer)):
        assert wire.body_of(answer[:end]) is None


def test_answer_that_is_no_success_is_an_error() -> None:
    with pytest.raises(wire.BadAnswerError, match="no such function"):
        wire.body_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\nno such function")


@pytest.fixture
def echoing() -> Iterator[int]:
    """A server that answers every request with ``[7]``; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(connection: socket.socket) -> None:
            # a client that is done with measuring hangs up in the middle of an answer
            with connection, suppress(ConnectionError):
                while connection.recv(65536):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[7]")

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # the test is over
                    return
                threading.Thread(target=answer, args=(connection,)).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


@pytest.mark.anyio
@pytest.mark.parametrize("media", [wire.JSON, wire.MSGPACK])
async def test_the_echo_splits_and_joins(media: str) -> None:
    encode = {wire.JSON: msgspec.json.encode, wire.MSGPACK: msgspec.msgpack.encode}[media]
    body = encode([b"x" * 500, b"y" * 500])
    parts = [body[:1], body[1:700], body[700:]]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", media.encode())]
    await echoapp.app({"type": "http", "method": "POST", "headers": headers}, receive, send)
    assert sent[1]["body"] == body and (b"content-length", b"%d" % len(body)) in sent[0]["headers"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_answers_are_read_into_their_buffer(framing: str) -> None:
    body = bytes(range(256)) * 4000
    got: list[bytes] = []
    answers = {
        "length": b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n2\r\n%b\r\n0\r\n\r\n"
        % (len(body) - 2, body[:-2], body[-2:]),
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as stream, suppress(ConnectionError):
                    while stream.readline() != b"\r\n":
                        pass
                    got.append(stream.read(len(body)))
                    connection.sendall(b"HTTP/1.1 200 OK\r\n" + answers[framing])

        serving = threading.Thread(target=serve)
        serving.start()
        answer = bytearray(len(body))
        with wire.connect(listener.getsockname()[1]) as connection:
            assert wire.exchange_large(connection, "/", body, wire.JSON, answer) == len(body)
        with (
            wire.connect(listener.getsockname()[1]) as connection,
            pytest.raises(wire.BadAnswerError, match="over 9 bytes"),
        ):
            wire.exchange_large(connection, "/", body, wire.JSON, bytearray(9))
        serving.join()
    assert answer == body and got == [body, body]


def test_load_is_counted_and_answers_are_checked(
    echoing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = wire.request(echoing, "/map/nothing", b"[7]")
    load = wire.hammer(echoing, message, b"[7]", connections=4, seconds=0.0)
    assert load.rate * load.seconds == pytest.approx(4)
    # A clock that only moves when it is read, which each answer does once.
    ticks = count()
    with monkeypatch.context() as patched:
        patched.setattr(wire, "perf_counter", lambda: next(ticks) / 100)
        load = wire.hammer(echoing, message, b"[7]", connections=4, seconds=0.5)
    assert 45 <= len(load.latencies) <= 50
    with pytest.raises(wire.BadAnswerError, match="instead of"):
        wire.hammer(echoing, message, b"[8]", connections=4, seconds=0.1)


def test_lost_and_doubled_lines_are_noticed() -> None:
    good = [b'{"index":1,"value":1}\n{"index":0,', b'"value":0}\n{"done":2,"failed":0}\n']
    _check(2, iter(good))
    for bad in (good[1:], [b'{"index":0,"value":1}\n'], [b'{"index":0,"value":0}\n' * 2]):
        with pytest.raises((wire.BadAnswerError, ValueError)):
            _check(2, iter(bad))


@pytest.mark.slow
def test_bench_prints_its_table(tmp_path: Path) -> None:
    rows = ["http-one"]
    file = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", *rows, "--quick", "--runs", "1", "--json", str(file)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=390)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n| ") == 2 + len(rows)
    assert [row["name"] for row in json.loads(file.read_bytes())] == rows


def test_a_chart_is_well_formed_and_has_every_point() -> None:
    lines = {"a & b": [(1.0, 3.0), (10.0, 7.0)], "c": [(1.0, 1.0), (1000.0, 2.0)]}
    drawn = ElementTree.fromstring(chart("title", "agents", "µs", lines, logarithmic=True))
    names = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert names.count("circle") == 4
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert "a & b" in texts and "10" in texts, "the largest value is on the axis"


def test_peers_are_given_the_same_work_and_are_shown_alike() -> None:
    known = rows(Work(1e6), shrink=50)
    assert known["steady"].seconds == pytest.approx(0.0015 * len(known["steady"].items))
    assert known["tiny-other"].prior and not known["tiny"].prior
    samples = [Sample(0.2, 0.3), Sample(0.1, 0.3), Sample(0.3, 0.3)]
    cell = Result("steady", "pool", samples).cell(known["steady"], 2)
    assert cell == "0.15, 200 ms (100 ms to 300 ms), CPU 300 ms"
    refusing = Result("steady", "pool", [*samples, Sample(refused="too large")])
    assert refusing.cell(known["steady"], 2) == "none"
    cold = Result("steady", "pool", [Sample(77.0, is_cold=True)])
    assert cold.cell(known["steady"], 2) == "77 s (cold, once)"
    assert [len(item) for item in known["bytes-1kB"].inputs()] == [1000] * 200


def test_a_peer_that_takes_long_is_not_measured_again() -> None:
    assert not is_enough([Sample(0.5, spent=5.0), Sample(0.5, spent=0.6)])
    assert is_enough([Sample(4.0, spent=9.0), Sample(4.0, spent=6.0)])
    assert is_enough([Sample(12.0, spent=12.0, is_cold=True)])
    assert is_enough([Sample(refused="too large")])


class SlowPeer(Contender):
    """Takes ten seconds for the first map of a function, as far as its clock says."""

    now = 0.0

    def map(self, f: Function, items: Sequence[Any]) -> list[Any]:
        self.now += LONG_SECONDS if f is tasks.increment else 1.0
        return [f(item) for item in items]


def test_a_first_map_that_takes_long_is_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = SlowPeer(2)
    monkeypatch.setattr("bench.peers.contender.perf_counter", lambda: peer.now)
    measuring = Measuring("slow", peer, rows(Work(1e6), shrink=1000))
    long = measuring.measure("million")
    assert long.is_cold and long.seconds == LONG_SECONDS == long.spent
    first, second = measuring.measure("bytes-1kB"), measuring.measure("bytes-1kB")
    assert not first.is_cold and (first.spent, second.spent) == (2.0, 1.0)


@pytest.mark.parametrize("name", ["dies", "hangs", "answers"])
def test_a_peer_that_dies_or_hangs_begins_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import os, sys, time
print("printed", file=sys.stderr)
for line in sys.stdin:
    if line == "\\n":
        continue
    if sys.argv[1] == "dies" and line == "first\\n":
        os._exit(1)
    if sys.argv[1] == "hangs" and line == "first\\n":
        time.sleep(600)
    print('{"seconds": 7.0}', flush=True)
"""
    process = Process(name, 2, 1, 1e6)
    process._command = [sys.executable, "-c", script, name]
    monkeypatch.setattr("bench.peers.__main__.MOST_SECONDS", 0.5 if name == "hangs" else 100.0)
    first = process.measure("first")
    process.end_row()
    monkeypatch.setattr("bench.peers.__main__.MOST_SECONDS", 100.0)
    assert first.refused == {"dies": "it died", "hangs": "over 0.5 s", "answers": ""}[name]
    assert process.measure("second").seconds == 7.0
    process.end_row()
    assert len(process._processes()) == 1 and process.memory() > 0
    process.close()
    assert not process._processes()


@pytest.mark.slow
def test_peers_are_compared() -> None:
    command = [sys.executable, "-m", "bench.peers", "steady", "one", "--quick", "--runs", "1"]
    chosen = ["--no-http", "--contenders", "executor", "jetmap"]
    result = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "| work | executor | jetmap |" in result.stdout and "none" not in result.stdout


@pytest.mark.slow
def test_pools_are_measured_and_drawn(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.scale", "pools", "far", "--quick", "--agents", "1", "3"]
    result = subprocess.run(
        [*command, "--plots", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "scale-idle.svg",
        "scale-chunk.svg",
        "scale-far.svg",
    }
