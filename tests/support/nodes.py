"""NATS servers as an operator starts them: config/nats/start with variables."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jetmap.nats.server import find_binary

START = Path(__file__).parents[2] / "config" / "nats" / "start"
PASSWORD = "12345"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(held.getsockname()[1]) for held in sockets]
    for held in sockets:
        held.close()
    return ports


class Node:
    """A server as an operator starts it: config/nats/start with variables."""

    def __init__(self, directory: Path, name: str, ports: list[int], peers: list[int]) -> None:
        self.client, self.monitor, self.route = ports
        self.url = f"nats://127.0.0.1:{self.client}"
        self.log = directory / f"{name}.log"
        secret = directory / "password"
        if not secret.exists():  # the nodes before may be reading it
            secret.write_text(PASSWORD + "\n", encoding="utf-8")
        self._environment = {
            "PATH": os.environ["PATH"],
            "NATS_SERVER": find_binary(),
            "NATS_PASSWORD_FILE": str(secret),
            "NATS_NAME": name,
            "NATS_LISTEN": f"127.0.0.1:{self.client}",
            "NATS_MONITOR": f"127.0.0.1:{self.monitor}",
            "NATS_CLUSTER_LISTEN": f"127.0.0.1:{self.route}",
            "NATS_STORE": str(directory / name),
            "NATS_PEERS": " ".join(f"127.0.0.1:{port}" for port in peers),
        }
        self.start_again()

    @property
    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.monitor}/healthz", timeout=5
            ) as answer:
                return bool(json.load(answer)["status"] == "ok")
        except OSError:
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start again with the same ports and store."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", str(START)], env=self._environment, stdout=log, stderr=log
            )


@contextmanager
def running() -> Iterator[list[Node]]:
    """A list for nodes; all of them are stopped at the end."""
    started: list[Node] = []
    try:
        yield started
    finally:
        for node in started:
            node.stop()


def start_nodes(directory: Path, count: int, started: list[Node]) -> None:
    """One server, or a cluster of several; not yet healthy."""
    ports = free_ports(3 * count)
    routes = ports[2::3] if count > 1 else []
    for number in range(count):
        mine = ports[3 * number : 3 * number + 3]
        started.append(Node(directory, f"node-{number}", mine, routes))
