"""A gateway process with few descriptors, and more half-sent requests than it has."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys

import psutil

from waiting import PATIENCE, wait_until_sync

DESCRIPTORS = 256
ATTACKERS = 400

SERVER = """
import asyncio, socket, sys, uvloop
from jetmap_api.asgi import respond
from jetmap_api.server import GatewayServer
from jetmap.settings import LimitSettings

async def app(scope, receive, send):
    await receive()
    await respond(send, 200, b"text/plain", b"here")

async def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    await GatewayServer(app, LimitSettings(), most=None, grace=1).serve([listener])

uvloop.run(main())
"""


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def ask(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := connection.recv(4096):
                answer += data
            return answer
    except OSError:
        return b""


def test_half_sent_heads_shut_nobody_out() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, preexec_fn=few_descriptors
    )
    silent: list[socket.socket] = []
    with process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            assert ask(port).endswith(b"here")
            for _ in range(ATTACKERS):
                silent.append(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
                try:
                    silent[-1].sendall(b"GET / HTTP/1.1\r\nX: ")
                except OSError:
                    pass  # closed already, for others
            # All of them hold on, and those who ask are answered.
            wait_until_sync(lambda: ask(port).endswith(b"here"), "an answer")
            assert [ask(port)[-4:] for _ in range(20)] == [b"here"] * 20
            assert psutil.Process(process.pid).num_fds() < DESCRIPTORS
            # Waiting for descriptors, it does not spin.
            busy = psutil.Process(process.pid).cpu_times().user
            assert process.poll() is None and busy < 20
        finally:
            for each in silent:
                each.close()
            process.terminate()
