"""The first state of the agent that `jetmap worker` runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from jetmap.cli.worker import FirstState, agent_options
from jetmap.errors import WorkerStartFailed
from jetmap.nats.broker import Message
from jetmap.settings import Settings
from jetmap.wire.messages import encode
from jetmap.wire.presence import Presence

pytestmark = pytest.mark.anyio

PRESENCE = Presence("a", "h", 7, "p", "o", "", 1, 2, 0, 0, False, False, [], [])


async def state_after(**changes: Any) -> FirstState:
    state = FirstState()
    data = encode(msgspec.structs.replace(PRESENCE, **changes))
    await state.on_message(cast(Message, SimpleNamespace(data=data)))
    return state


async def test_workers_that_still_start() -> None:
    state = await state_after()
    assert not state.decided.is_set()
    with pytest.raises(WorkerStartFailed, match="no worker was ready after 5 s"):
        state.check(5)


async def test_a_worker_that_is_ready() -> None:
    state = await state_after(ready=1, failure="another one cannot start")
    assert state.decided.is_set()
    state.check(5)


async def test_workers_that_cannot_start() -> None:
    state = await state_after(failure="no module")
    assert state.decided.is_set()
    with pytest.raises(WorkerStartFailed, match="cannot start: no module"):
        state.check(5)


def test_workers_import_the_tasks_of_the_settings() -> None:
    assert agent_options(Settings.of({"tasks": ["tasks.py"]})).setup.tasks == ["tasks.py"]
