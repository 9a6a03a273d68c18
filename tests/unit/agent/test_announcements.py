"""The announcements of an agent: its functions, its workers, its counters, and what is wrong."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jetmap.agent.announcements import Announcements
from jetmap.agent.imports import Imports
from jetmap.agent.neighbours import NeighbourDispatchers
from jetmap.agent.options import AgentOptions, worker_setup
from jetmap.agent.reload import Reload
from jetmap.nats.answers import JetStreamError
from jetmap.settings import Settings
from jetmap.wire.messages import ANNOUNCEMENT_BYTES, ChunkHead, Crash, Ping
from jetmap.wire.presence import (
    CoreDetail,
    FunctionInfo,
    Presence,
    differ_in_time,
    offer_digest,
    read_presence,
    time_of,
)
from jetmap.wire.protocol import PROTOCOL
from jetmap.wire.worker_start import Broken, Ready, StartFailed

LARGE = 1 << 20


def state(*, embedded: bool = False, cores: int = 2, **more: Any) -> Announcements:
    options = AgentOptions(
        Settings(pool="p"), worker_setup(Settings()), (), "/", embedded=embedded, host="h"
    )
    slot: Any = SimpleNamespace(
        is_ready=True,
        held=None,
        state=("idle", None),
        detail=lambda: CoreDetail(1, 0, None, 5.0, 3),
        memory=lambda: 1 << 20,
        loader="",
        mark=0,
    )
    function = FunctionInfo("f", doc="long " * 1_000)
    offer: Any = SimpleNamespace(
        **({"name": "o", "version": "1", "rank": 2, "functions": {"f": function}} | more)
    )
    offer.digest = offer_digest(offer.functions)
    imports = Imports(options.setup)
    return Announcements(
        "a", options, [slot] * cores, offer, imports, Reload(None), NeighbourDispatchers("", 0)
    )


def announced(announcements: Announcements, limit: int = LARGE) -> Presence:
    return msgspec.msgpack.decode(announcements.message(4, limit), type=Presence)


def test_chunks_are_offered_once_they_are_pulled() -> None:
    announcements = state()
    before = announced(announcements)
    assert (before.offer, before.ready, before.cores) == ("", 0, 2)
    announcements.served = "o"
    after = announced(announcements)
    assert (after.offer, after.ready, after.pending, after.rank) == ("o", 2, 4, 2)
    announcements.served = "the one before"
    assert announced(announcements).offer == "", "its new offer is not pulled yet"


def test_memory_and_the_workers_that_died_for_want_of_it_are_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = 7
    monkeypatch.setattr("jetmap.agent.announcements.memory_kills", lambda: kills)
    announcements = state()
    head = ChunkHead("m", 1, 1, "f", "json", 0, 2, "i", None, 0.0)
    announcements.on_crash(head, Crash(0, "died", "it died", signal=9))
    assert announced(announcements).memory_kills == 0, "somebody else killed it"
    kills = 8
    announcements.on_crash(head, Crash(0, "died", "it died", signal=9))
    found = announced(announcements)
    assert (found.memory, found.memory_kills) == (2 << 20, 1)
    assert found.memory_limit > 1 << 20


def test_an_announcement_fits_into_a_small_message() -> None:
    announcements = state()
    announcements.counts.outcomes("f", 3, ["raised"])
    announcements.failed = "x" * 5_000
    announcements.on_import_failed(Broken("m", "y" * 5_000, []), fatal=False)
    whole = announced(announcements)
    assert whole.functions[0].doc and len(whole.items) == 2 and len(whole.workers) == 2
    announcements.on_ping(Ping(PROTOCOL, "a"))
    small = announced(announcements, limit=4_000)
    assert not small.functions[0].doc and small.items == [] and len(small.failure or "") == 1_000
    assert small.functions[0].name == "f" and small.workers == [] and small.cells == b"\1\1"
    assert len(small.broken["m"]) == 1_000


def test_an_agent_of_very_many_cores_announces_their_states_only() -> None:
    announcements = state(cores=20_000)
    announced(announcements)
    beat = announcements.message(4, LARGE)
    presence = read_presence(beat)
    assert len(beat) < ANNOUNCEMENT_BYTES and presence.workers == []
    assert (len(presence.cells), presence.cores) == (20_000, 20_000)


def test_functions_are_announced_when_they_change_and_when_somebody_asks() -> None:
    announcements = state()
    offer: Any = announcements._offer

    def told() -> list[str]:
        return [function.name for function in announced(announcements).functions]

    assert (told(), told()) == (["f"], [])
    offer.functions = {"f": FunctionInfo("f"), "g": FunctionInfo("g")}
    offer.digest = offer_digest(offer.functions)
    assert (told(), told()) == (["f", "g"], [])
    assert announcements.on_ping(Ping(PROTOCOL)) and told() == [], "they know the digest"
    assert announcements.on_ping(Ping(PROTOCOL, "a"))
    assert not announcements.on_ping(Ping(PROTOCOL, "b"))
    assert (told(), told()) == (["f", "g"], [])


def test_what_does_not_change_has_the_same_bytes_but_for_the_time() -> None:
    announcements = state()
    announced(announcements)
    first, second = (announcements.message(4, LARGE) for _ in range(2))
    assert differ_in_time(first, second) and time_of(first) <= time_of(second)


def test_dispatchers_of_older_releases_find_everything_in_each_announcement() -> None:
    announcements = state()
    announced(announcements)
    assert announcements.on_ping(msgspec.msgpack.decode(b"\x91\xa4ping", type=Ping))
    for _ in range(2):
        fields = msgspec.msgpack.decode(announcements.message(4, LARGE))
        assert [function["name"] for function in fields["functions"]] == ["f"]
        assert [(core["pid"], core["state"]) for core in fields["workers"]] == [(1, "idle")] * 2
        assert "details" not in fields


def test_failures_are_logged_once_and_end_with_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    announcements = state()
    for _ in range(3):
        announcements.on_worker_failed(StartFailed("ImportError", "no x", ""))
    assert announced(announcements).failure == "no x"
    assert announcements.counts.start_failures == 3
    assert [r.name for r in caplog.records] == ["jetmap.agent.unready"]
    announcements.on_ready(0, Ready([], "s", []))
    assert announced(announcements).failure is None


def test_a_refusal_is_announced_until_chunks_come(caplog: pytest.LogCaptureFixture) -> None:
    announcements = state()
    announcements.served = "o"
    for _ in range(2):
        announcements.on_refused(JetStreamError(400, 10_000, "not for you"))
    assert announced(announcements).offer == "" and announced(announcements).ready == 0
    assert "not for you" in (announced(announcements).failure or "")
    assert caplog.text.count("no chunks") == 1


@pytest.mark.parametrize("embedded", [False, True])
def test_a_broken_import_is_announced(embedded: bool, caplog: pytest.LogCaptureFixture) -> None:
    announcements = state(embedded=embedded)
    announcements.on_import_failed(Broken("m", "SyntaxError", []), fatal=False)
    assert announced(announcements).broken == {"m": "SyntaxError"}
    warned = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert bool(warned) != embedded, "the user of an embedded agent sees an exception"


@pytest.mark.parametrize(
    ("crash", "cause", "text"),
    [
        (Crash(3, "died", "it died", signal=9), "SIGKILL", "perhaps it ran out of memory"),
        (Crash(3, "died", "it died", signal=11), "SIGSEGV", "f, item 3 of map m: it died"),
        (Crash(None, "died", "it died", exit_code=1), "died", "before its first item of map m"),
        (Crash(3, "timeout", "too long"), "timeout", "too long"),
    ],
)
def test_crashes_are_counted_by_cause(
    crash: Crash, cause: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    announcements = state()
    announcements.on_crash(ChunkHead("m", 1, 1, "f", "json", 0, 9, "i", None, 0.0), crash)
    assert announced(announcements).crashes == [("f", cause, 1)]
    assert text in caplog.text
