"""The processes that `jetmap up` keeps running."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from jetmap.cli import children
from jetmap.cli.children import FIRST_PAUSE, LONGEST_PAUSE, SOCKET, Child, restart_backoff
from jetmap.cli.exits import ChildFailed, Exit

pytestmark = pytest.mark.anyio


class Ends(Child):
    """A child that ends with these codes, one after the other, without a process."""

    codes: list[int]

    async def _start(self) -> Any:
        async def wait() -> int:
            return self.codes.pop(0)

        return SimpleNamespace(wait=wait)


def test_backoff_grows_and_is_forgotten() -> None:
    backoff = restart_backoff()
    pauses = [backoff.after(lived=0.0) for _ in range(8)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    assert backoff.after(lived=60.0) == FIRST_PAUSE


async def test_it_is_started_again_until_it_fails_for_good(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.001)
    child = Ends("worker", ["worker"], {})
    child.codes = [1, -9, Exit.USAGE]
    with pytest.raises(ChildFailed, match="the worker ended with exit code 2") as failed:
        await child.run()
    assert failed.value.exit_code == Exit.USAGE
    assert "died (exit code 1)" in caplog.text and "died (SIGKILL)" in caplog.text


async def test_a_child_that_never_started_can_be_stopped() -> None:
    await Child("worker", ["worker"], {}).stop(1.0, asyncio.Event())


def test_the_inherited_socket_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert children.inherited_socket() is None
    monkeypatch.setenv(SOCKET, "7")
    assert children.inherited_socket() == 7
    assert SOCKET not in os.environ
