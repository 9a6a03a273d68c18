"""The command with which another host joins an ``up``: it works as it is printed."""

from __future__ import annotations

import shlex
import signal

from house import House, Up
from waiting import wait_until_sync


def test_with_the_password_in_a_variable(house: House) -> None:
    password = "correct-horse-battery"
    process = house.start(
        *("up", "tasks.py", "--port", "0", "--nats-port", "0", "--nats-host", "0.0.0.0"),
        JETMAP_NATS_PASSWORD=password,
    )
    up = Up(house, process)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(4)]
    assert password not in up.greeting + "".join(said)
    assert "JETMAP_NATS_PASSWORD set to the same password" in said[2]
    command = shlex.split(said[3])
    assert command[:3] == ["jetmap", "worker", "tasks.py"]
    worker = house.start(*command[1:], JETMAP_NATS_PASSWORD=password)
    wait_until_sync(lambda: up.ready == 4, "the other host's cores joined")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert up.stop() == 0
