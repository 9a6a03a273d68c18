"""A nats-server process of our own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest

from jetmap.errors import BrokerUnreachable
from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection
from jetmap.nats.server import NatsServer
from processes import alive
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio


async def test_starts_answers_and_stops(tmp_path: Path) -> None:
    server = NatsServer(directory=tmp_path / "nats", user="u", password="secret")
    await server.start()
    pid = server.pid
    assert pid is not None and alive(pid) and server.running
    config = tmp_path / "nats" / "nats-server.conf"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert not any("secret" in argument for argument in psutil.Process(pid).cmdline())
    await server.stop()
    await server.stop()
    assert not alive(pid) and not server.running
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_a_store_survives_a_restart(tmp_path: Path) -> None:
    for restart in (False, True):
        server = NatsServer(store=tmp_path / "store")
        await server.start()
        connection = await Connection.open([server.url], name="test", timeout=PATIENCE)
        try:
            if restart:
                assert (await connection.api("STREAM.INFO.KEPT"))["state"]["messages"] == 0
            else:
                config = {"name": "KEPT", "subjects": ["kept"], "storage": "file"}
                await connection.api("STREAM.CREATE.KEPT", config)
        finally:
            await connection.close()
            await server.stop()


async def test_names_that_its_configuration_must_escape(tmp_path: Path) -> None:
    place, name, secret = tmp_path / 'ü "✓"\\n\n', 'ü"', 'pä\\$"'
    server = NatsServer(directory=place, store=place / "kept", user=name, password=secret)
    await server.start()
    auth = Auth(user=name, password=secret)
    connection = await Connection.open([server.url], name="test", auth=auth)
    try:
        config = {"name": "KEPT", "subjects": ["kept"], "storage": "file"}
        await connection.api("STREAM.CREATE.KEPT", config)
        assert list((place / "kept").rglob("KEPT"))
    finally:
        await connection.close()
        await server.stop()


async def test_a_taken_port_is_told_with_the_log() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = NatsServer(port=taken.getsockname()[1])
        with pytest.raises(BrokerUnreachable, match=r"is taken, choose another[^§]*\[FTL\]"):
            await server.start()
    assert not server.running


async def test_its_end_is_seen() -> None:
    server = NatsServer()
    await server.start()
    waiting = asyncio.create_task(server.wait())
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        assert await waiting == -signal.SIGKILL
    await server.stop()


STARTER = """
import asyncio
from jetmap import machine
from jetmap.nats import server
machine.TETHER = machine.TETHER.replace({old!r}, {new!r})
async def main():
    s = server.NatsServer(directory=__import__("pathlib").Path({directory!r}))
    await s.start()
    print(s.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("platform", ["linux", "another"])
async def test_dies_with_its_parent(tmp_path: Path, platform: str) -> None:
    code = STARTER.format(
        old='sys.platform == "linux"',
        new=f'"{platform}" == "linux"',
        directory=str(tmp_path / "nats"),
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    await parent.wait()
    await wait_until(lambda: not alive(pid), "the server's end")
