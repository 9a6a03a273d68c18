"""Signals while a command waits for a broker, or has lost it: the first ends it in good order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from deployments import JETSTREAM, Servers, deployed
from house import House
from jetmap.cli.exits import Exit
from waiting import wait_until_sync

# Every command that talks to a broker, and the code with which a signal ends it.
COMMANDS: dict[tuple[str, ...], Exit] = {
    ("worker", "tasks.py", "--start-timeout", "600"): Exit.OK,
    ("api", "--port", "0"): Exit.OK,
    ("map", "double", "numbers"): Exit.INTERRUPTED,
    ("submit", "double", "numbers"): Exit.INTERRUPTED,
    ("status",): Exit.INTERRUPTED,
    ("jobs",): Exit.INTERRUPTED,
    ("job", "abc"): Exit.INTERRUPTED,
    ("check",): Exit.INTERRUPTED,
}
PATIENCE = 20  # Seconds for a command to end; what it waits for never comes.


class Listener:
    """A broker in one of its bad states. busy: slams the door. mute: says nothing. deaf: greets,
    and answers no request."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._socket.getsockname()[1]}"
        self.callers = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for caller in (self._socket, *self._open):
            caller.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._socket.accept()
                self._open.append(caller)
                if self._kind == "busy":
                    caller.close()
                self.callers += self._kind != "deaf"
                if self._kind == "deaf":
                    threading.Thread(target=self._greet, args=[caller], daemon=True).start()

    def _greet(self, caller: socket.socket) -> None:
        info = {"server_id": "S", "version": "2.12.0", "max_payload": 2**20, "proto": 1}
        with suppress(OSError):
            caller.sendall(b"INFO " + json.dumps(info | {"headers": True}).encode() + b"\r\n")
            for line in caller.makefile("rb"):
                if line.startswith(b"PING"):
                    caller.sendall(b"PONG\r\n")
                self.callers += line.startswith((b"PUB $JS.API", b"HPUB"))


@contextmanager
def listening(kind: str) -> Iterator[Listener]:
    listener = Listener(kind)
    try:
        yield listener
    finally:
        listener.close()


def ended(process: subprocess.Popen[str]) -> int:
    return process.wait(PATIENCE)


@pytest.mark.parametrize(
    ("kind", "commands", "number"),
    [
        pytest.param("deaf", list(COMMANDS), signal.SIGTERM, marks=pytest.mark.slow),
        ("mute", list(COMMANDS)[:3], signal.SIGTERM),
        pytest.param("busy", list(COMMANDS)[:3], signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_waiting_for_the_broker(
    house: House, kind: str, commands: list[tuple[str, ...]], number: signal.Signals
) -> None:
    (house.directory / "numbers").write_text("1\n2\n")
    with ExitStack() as stack:
        listeners = [stack.enter_context(listening(kind)) for _ in commands]
        started = [
            house.start(*command, "--nats", listener.url)
            for command, listener in zip(commands, listeners, strict=True)
        ]
        waiting = list(zip(started, listeners, strict=True))
        while waiting:  # Each as soon as it has called: what waits too long ends by itself.
            wait_until_sync(lambda: any(has_called(*each) for each in waiting), "one has called")
            for process, listener in [each for each in waiting if has_called(*each)]:
                process.send_signal(number)
                waiting.remove((process, listener))
        codes = [ended(process) for process in started]
    assert dict(zip(commands, codes, strict=True)) == {c: COMMANDS[c] for c in commands}, house.said
    assert "Traceback" not in house.said and "never" not in house.said, house.said


def has_called(process: subprocess.Popen[str], listener: Listener) -> bool:
    return listener.callers > 0 or process.poll() is not None


def test_a_signal_while_up_starts(house: House) -> None:
    process = house.start("up", "tasks.py", "--port", "0", "--nats-port", "0")
    wait_until_sync(lambda: house.descendants(process), "it has started a server")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == Exit.OK
    assert "Traceback" not in house.said
    house.nothing_is_left()


@pytest.fixture
def servers() -> Iterator[Servers]:
    with deployed() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_the_broker_goes_while_a_gateway_carries_a_job(
    servers: Servers, house: House, fault: signal.Signals
) -> None:
    """Gone, or there and silent: neither the worker nor the gateway waits for it."""
    url = servers.start(JETSTREAM)
    server = servers.last
    worker = house.start("worker", "tasks.py", "--nats", url, "--grace", "1")
    gateway = house.start("api", "--nats", url, "--port", "0", "--grace", "1")
    assert gateway.stdout is not None
    at = gateway.stdout.readline().strip().removesuffix("/docs")
    with httpx.Client(base_url=at, timeout=PATIENCE) as client:
        wait_until_sync(lambda: client.get("/readyz").status_code == 200, "it is ready")
        job = client.post("/jobs/slow", json=[600, 600, 600]).json()["id"]
        wait_until_sync(
            lambda: client.get(f"/jobs/{job}").json()["state"] == "running", "the job runs"
        )
    wait_until_sync(lambda: busy(house, url), "workers compute")
    server.send_signal(fault)
    for process in (gateway, worker):
        process.send_signal(signal.SIGTERM)
    for process in (gateway, worker):
        assert ended(process) == Exit.OK, house.said
    server.send_signal(signal.SIGCONT)
    assert "Traceback" not in house.said, house.said
    house.nothing_is_left()


def busy(house: House, url: str) -> bool:
    hosts = json.loads(house.run("status", "--nats", url, "--json").stdout)
    return "busy" in json.dumps(hosts)


def test_a_second_signal_is_now(servers: Servers, house: House) -> None:
    """While a worker drains, with minutes of grace left, and with a broker that is silent."""
    url = servers.start(JETSTREAM)
    worker = house.start("worker", "tasks.py", "--nats", url, "--grace", "600")
    (house.directory / "seconds").write_text("600\n")
    wait_until_sync(lambda: " run: " in house.said, "it is ready")
    caller = house.start("map", "slow", "seconds", "--nats", url)
    wait_until_sync(lambda: busy(house, url), "it computes")
    servers.last.send_signal(signal.SIGSTOP)
    for process in (worker, caller):
        process.send_signal(signal.SIGTERM)
    wait_until_sync(lambda: "SIGTERM" in house.said, "it drains")
    for process in (worker, caller):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    # The second may come while a process that is about to end changes its handlers.
    assert ended(worker) in (Exit.OK, Exit.INTERRUPTED, -signal.SIGTERM)
    assert ended(caller) in (Exit.INTERRUPTED, -signal.SIGTERM)
    servers.last.send_signal(signal.SIGCONT)
    assert "Traceback" not in house.said, house.said


def test_what_blocks_the_loop_ends_too(tmp_path: Path) -> None:
    """Neither the loop nor a thread that Python waits for at its exit holds a process up."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, threading, time\n"
        "from jetmap.cli import signals\n"
        "async def work():\n"
        "    stop = signals.Stop()\n"
        "    threading.Thread(target=time.sleep, args=[600]).start()\n"
        "    print('ready', flush=True)\n"
        "    await stop.requested.wait()\n"
        "    time.sleep(600)\n"
        "signals.run(work(), patience=0.5)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.INTERRUPTED
    assert said == "jetmap: not ended 0.5 s after the signal; ending now\n"
