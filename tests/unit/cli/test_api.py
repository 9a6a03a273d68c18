"""The end of the server of `jetmap api`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
import uvicorn

from jetmap.cli import api
from jetmap.cli.signals import Stop
from waiting import turns

pytestmark = pytest.mark.anyio


async def test_the_first_signal_drains_and_the_second_forces() -> None:
    server = SimpleNamespace(should_exit=False, force_exit=False)
    stop = Stop()
    stopping = asyncio.ensure_future(api._stop_server(stop, cast(uvicorn.Server, server)))
    stop.on_signal()
    await turns(3)
    assert server.should_exit and not server.force_exit
    stop.on_signal()
    await stopping
    assert server.force_exit
