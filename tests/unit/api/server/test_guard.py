"""Connections that wait too long, cost too much, or make room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap.settings import LimitSettings
from jetmap_api.server import guard
from jetmap_api.server.guard import Guard, Overhead, Waiting, WaitingList, connections_allowed


class HttpConnection:
    """Notes what the guard does to it."""

    def __init__(self, sent: bool = False, moved: bool = False) -> None:
        self.done: list[str] = []
        self._sent, self._moved = sent, moved

    def give_up_head(self, refusal: Any) -> None:
        self.done.append(refusal.slug)

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def has_sent(self, least: float) -> bool:
        return self._sent

    def has_moved(self) -> bool:
        return self._moved


def made(most: int = 2) -> Any:
    return Guard(LimitSettings(), most, lambda client, problem: None)


def test_the_first_in_is_the_first_overdue() -> None:
    waiting: WaitingList[str] = WaitingList(5)
    waiting.add("a", 0)
    waiting.add("b", 1)
    waiting.add("a", 2)
    assert waiting.pop_overdue(5) == [] and waiting.oldest() == "b"
    assert waiting.pop_overdue(6) == ["b"] and "a" in waiting and len(waiting) == 1


def test_each_list_has_its_end() -> None:
    guard = made()
    lists = guard.waiting
    late = 10_000.0
    silent, idle, closing = HttpConnection(), HttpConnection(), HttpConnection()
    lists.silent.add(silent, 0)
    lists.idle.add(idle, 0)
    lists.closing.add(closing, 0)
    slow, fast = HttpConnection(), HttpConnection(sent=True)
    lists.dropped.add(slow, 0)
    lists.dropped.add(fast, 0)
    stuck, reading = HttpConnection(), HttpConnection(moved=True)
    lists.unread.add(stuck, 0)
    lists.unread.add(reading, 0)
    guard.look(late)
    assert (silent.done, idle.done, closing.done) == (["slow-head"], ["close"], ["abort"])
    assert (slow.done, stuck.done) == (["abort"], ["abort"])
    assert fast.done == [] and fast in lists.dropped
    assert reading.done == [] and reading in lists.unread


def test_the_connection_silent_for_longest_makes_room() -> None:
    guard = made(most=2)
    old, idle, newcomer = HttpConnection(), HttpConnection(), HttpConnection()
    guard.waiting.silent.add(old, 0)
    guard.waiting.idle.add(idle, 0)
    assert guard.admit(newcomer, 2) and not old.done
    assert guard.admit(newcomer, 3) and old.done == ["abort"] and guard.closed_silent == 1
    busy = made(most=1)
    assert not busy.admit(newcomer, 2)


def test_a_newcomer_does_not_make_room_for_itself() -> None:
    waiting: Waiting[str] = Waiting(
        header_timeout=1, keep_alive=8, body_idle_timeout=8, send_timeout=8, linger=8
    )
    waiting.silent.add("new", 0)
    assert waiting.least_wanted("new") is None
    assert waiting.interval == 0.25
    waiting.discard("new")
    assert len(waiting.silent) == 0


def test_bytes_without_progress_have_a_limit() -> None:
    overhead = Overhead(100)
    assert not overhead.fed(100) and overhead.fed(1)
    overhead.progress()
    assert not overhead.fed(500) and overhead.bytes == 0
    overhead.progress(10)
    assert not overhead.fed(170)
    assert overhead.fed(101)


def test_descriptors_bound_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_descriptor_limit", lambda: 200)
    monkeypatch.setattr(guard, "_open_descriptors", lambda: 100)
    assert connections_allowed(None) == 75 and connections_allowed(10) == 10
    monkeypatch.setattr(guard, "_open_descriptors", lambda: 200)
    assert connections_allowed(None) == 1


@pytest.mark.anyio
async def test_it_looks_again_and_again_until_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Waiting, "interval", 0.001)
    watching, looks, twice = made(), [], asyncio.Event()

    def look(now: float) -> None:
        looks.append(now)
        if len(looks) == 2:
            watching.stop()
            twice.set()

    monkeypatch.setattr(watching, "look", look)
    watching.start()
    await twice.wait()
    watching.stop()
    assert looks == sorted(looks)
