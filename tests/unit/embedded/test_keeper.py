"""A keeper's server that dies and is slow to come back, without processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jetmap.embedded import keeper as module
from jetmap.embedded.keeper import Keeper
from jetmap.embedded.keeper_messages import KeeperSpec, KeeperStart
from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.nats.connection import Connection

pytestmark = pytest.mark.anyio


class Server:
    """A server whose starts raise these errors."""

    url = "nats://127.0.0.1:4001"
    port = 4001
    running = False

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def start(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.running = True

    async def wait(self) -> int:
        self.running = False
        return -9


def keeper(tmp_path: Path, server: Server) -> Keeper:
    start = KeeperStart(
        KeeperSpec(settings={"start_timeout": 77}),
        str(tmp_path / "k.lock"),
        -1,
        -1,
        [],
        str(tmp_path),
    )
    made = Keeper(start)
    made._server = server  # type: ignore[assignment]
    return made


async def test_a_server_that_does_not_start_again_is_tried_again(tmp_path: Path) -> None:
    kept = keeper(tmp_path, Server(BrokerUnreachable("port 4001 is taken")))
    assert await kept._serve_server() == "does not start: port 4001 is taken"
    assert await kept._serve_server() == "exited with code -9"
    kept = keeper(tmp_path, Server(ConfigurationError(["no nats-server found"])))
    with pytest.raises(ConfigurationError):
        await kept._serve_server()


async def test_its_agent_waits_for_a_server_that_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NatsServer", lambda **options: Server())
    waited: list[float] = []

    async def open(servers: list[str], *, timeout: float = 5, **options: Any) -> Connection:
        waited.append(timeout)
        raise BrokerUnreachable("nobody listens")

    monkeypatch.setattr(Connection, "open", open)
    monkeypatch.setattr(module.gc, "freeze", lambda: None)
    kept = keeper(tmp_path, Server())
    kept._prepared = asyncio.get_running_loop().create_future()
    kept._prepared.set_result(None)
    await kept._start_server()
    with pytest.raises(BrokerUnreachable):
        await kept._start_agent()
    assert waited == [77]
