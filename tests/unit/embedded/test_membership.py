"""Joining a keeper, losing it, and joining the next one: the keeper's side is a socket here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from jetmap.embedded import membership
from jetmap.embedded.keeper_messages import Address, KeeperSpec, Notice
from jetmap.embedded.locks import take
from jetmap.embedded.membership import Membership, join_keeper
from jetmap.errors import BrokerUnreachable
from waiting import wait_until

pytestmark = pytest.mark.anyio
SPEC = KeeperSpec(pool="test")


@pytest.fixture(autouse=True)
def own_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="jm-", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


class FakeKeeper:
    """A listening socket that holds the lock, and answers users as a keeper does."""

    def __init__(self, notice: Notice) -> None:
        self.notice = notice
        self.users: list[asyncio.StreamWriter] = []
        self.lock = Membership(SPEC)._lock
        held = take(self.lock)
        assert held is not None
        self.held: int | None = held
        self.server: asyncio.Server

    async def start(self) -> FakeKeeper:
        path = self.lock.with_suffix(".sock")
        path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self._on_user, str(path))
        return self

    async def _on_user(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.users.append(writer)
        await self.say(self.notice)
        await reader.read(1)  # A byte comes with the user's stderr; then it holds the socket.

    async def say(self, notice: Notice) -> None:
        for user in self.users:
            user.write(msgspec.json.encode(notice) + b"\n")
            await user.drain()

    async def die(self) -> None:
        self.server.close()
        users, self.users = self.users, []
        for user in users:
            user.close()
            with contextlib.suppress(OSError):
                await user.wait_closed()
        self.lock.with_suffix(".sock").unlink(missing_ok=True)
        if self.held is not None:
            os.close(self.held)
            self.held = None


def notice(port: int, failed: str | None = None) -> Notice:
    return Notice(Address(f"nats://127.0.0.1:{port}", "jetmap", "pw", 77), failed)


@pytest.fixture
async def keeper() -> AsyncIterator[FakeKeeper]:
    made = await FakeKeeper(notice(4001)).start()
    yield made
    await made.die()


async def test_a_user_learns_the_address(keeper: FakeKeeper) -> None:
    joined = await join_keeper(SPEC, 5)
    assert (joined.servers, joined.auth.password) == (["nats://127.0.0.1:4001"], "pw")
    assert (joined.keeper_pid, joined.starter, joined.failed) == (77, False, None)
    news: list[str | None] = []

    async def failed() -> None:
        news.append(joined.failed)

    joined.on_failed(failed)
    await keeper.say(notice(4001, "its agent is gone"))
    await wait_until(lambda: news == ["its agent is gone"], "the news arrives")
    await joined.leave()
    await joined.leave()


async def test_a_keeper_that_cannot_start_says_why() -> None:
    keeper = await FakeKeeper(Notice(None, "no nats-server found")).start()
    with pytest.raises(BrokerUnreachable, match="cannot start: no nats-server found"):
        await join_keeper(SPEC, 5)
    await keeper.die()


async def test_the_next_keeper_is_joined_when_one_is_gone(
    keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = await join_keeper(SPEC, 5)
    events: list[str] = []

    async def lost() -> None:
        events.append("lost")
        raise ValueError("a callback's failure is its own")

    async def renewed() -> None:
        events.append(joined.servers[0])

    joined.on_lost(lost)
    joined.on_renewed(renewed)
    starts: list[BaseException | None] = [BrokerUnreachable("no process"), None]

    def start_keeper(self: Membership, lock_fd: int, user_fd: int) -> object:
        if (error := starts.pop(0)) is not None:
            raise error
        raise BrokerUnreachable("another has the lock")

    monkeypatch.setattr(Membership, "_start_keeper", start_keeper)
    await keeper.die()
    await wait_until(lambda: not starts, "it tries again after a failure")
    successor = await FakeKeeper(notice(4002)).start()
    await wait_until(lambda: len(events) == 2, "it joins the next one")
    assert events == ["lost", "nats://127.0.0.1:4002"]
    await joined.leave()
    await successor.die()


async def test_who_has_left_joins_no_more(keeper: FakeKeeper) -> None:
    joined = await join_keeper(SPEC, 5)
    await joined.leave()
    await keeper.die()
    assert len(joined._background) == 0


async def test_a_forked_child_is_no_user(keeper: FakeKeeper) -> None:
    joined = await join_keeper(SPEC, 5)
    ours = joined._socket
    assert isinstance(ours, socket.socket)
    membership._let_go_in_child()  # As after a fork.
    assert joined._socket is None and ours.fileno() == -1
    await joined.leave()


async def test_lines_are_read_one_at_a_time() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(b"first\nsecond\n")
    assert await membership._read_line(ours) == b"first\n"
    assert await membership._read_line(ours) == b"second\n"
    theirs.sendall(b"half")
    theirs.close()
    assert await membership._read_line(ours) == b""
    ours.close()
