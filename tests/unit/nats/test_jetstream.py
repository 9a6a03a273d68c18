"""The needs of jetmap's streams, on the broker in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jetmap.errors import TopologyMismatch
from jetmap.nats import jetstream
from jetmap.nats.answers import JetStreamError
from jetmap.nats.errors import DomainSilent
from jetmap.nats.jetstream import PullEnd
from jetmap.nats.memory import MemoryBroker
from jetmap.nats.provision import Wish
from jetmap.wire import pool_streams

pytestmark = pytest.mark.anyio


def wish(name: str = "S", **config: Any) -> Wish:
    settings = {"name": name, "subjects": ["s.>"], "storage": "memory", "retention": "limits"}
    return Wish(settings | config, copies=(1,), places=[("memory", -1)], setting="")


@pytest.mark.parametrize(
    ("headers", "end"),
    [
        ({"Status": "100", "Description": "Idle Heartbeat"}, PullEnd.NOT_YET),
        ({"Status": "404", "Description": "No Messages"}, PullEnd.EMPTY),
        ({"Status": "408", "Description": "Request Timeout"}, PullEnd.EXPIRED),
        ({"Status": "409", "Description": "Consumer Deleted"}, PullEnd.CONSUMER_GONE),
        ({"Status": "409", "Description": "Server Shutdown"}, PullEnd.CONSUMER_GONE),
        ({"Status": "409", "Description": "Leadership Change"}, PullEnd.CONSUMER_GONE),
        ({"Status": "409", "Description": "Exceeded MaxWaiting"}, PullEnd.REFUSED),
        ({"Status": "503"}, PullEnd.CONSUMER_GONE),
        ({}, PullEnd.REFUSED),
    ],
)
def test_a_status_message_ends_a_pull(headers: dict[str, str], end: PullEnd) -> None:
    assert jetstream.pull_end(headers) is end


async def test_a_stream_is_made_once_and_must_stay_as_it_is_needed() -> None:
    c = MemoryBroker().connect()
    made = await jetstream.ensure(c, "S", wish(), {"retention": "limits"})
    assert made["config"]["name"] == "S" and await jetstream.names(c) == {"S"}
    await jetstream.ensure(c, "S", wish(retention="workqueue"), {})
    with pytest.raises(TopologyMismatch, match="retention is 'limits', not 'workqueue'"):
        await jetstream.ensure(c, "S", wish(), {"retention": "workqueue"})
    with pytest.raises(TopologyMismatch, match=r"subjects lack 't\.>'"):
        await jetstream.ensure(c, "S", wish(subjects=["t.>"]), {})


async def test_purging_counts_and_forgives_a_missing_stream() -> None:
    c = MemoryBroker().connect()
    assert await jetstream.purge(c, "S", "s.a") == 0
    await jetstream.ensure(c, "S", wish(), {})
    for subject in ("s.a", "s.a", "s.b"):
        await c.request(subject, b"x")
    assert await jetstream.purge(c, "S", "s.a") == 2
    assert await jetstream.write_error(c, "S") is None


async def test_a_consumer_must_be_the_one_that_is_asked_for() -> None:
    c = MemoryBroker().connect()
    await jetstream.ensure(c, "S", wish(), {})
    request = {
        "stream_name": "S",
        "config": pool_streams.consumer_config("S", "C", "s.a")["config"],
    }
    for _ in range(2):
        await jetstream.ensure_consumer(c, request)
    assert await jetstream.consumers(c, "S") == {"C"}
    other = {"stream_name": "S", "config": request["config"] | {"filter_subject": "s.b"}}
    with pytest.raises(TopologyMismatch, match="consumer C of stream S"):
        await jetstream.ensure_consumer(c, other)
    with pytest.raises(JetStreamError):
        await jetstream.ensure_consumer(c, other | {"stream_name": "T"})


def test_times_are_parsed_to_microseconds() -> None:
    parsed = jetstream.parsed_time("2026-11-28T17:54:35.123456789Z")
    assert parsed.replace(tzinfo=UTC) == datetime(2026, 11, 28, 17, 54, 35, 123456, UTC)
    assert jetstream.parsed_time("2026-11-28T17:54:35Z").microsecond == 0


class BehindALeaf:
    """A connection in a domain whose leaf node connects while it is asked.

    silent: requests that nobody answers yet.
    """

    def __init__(self, silent: int, patch: pytest.MonkeyPatch) -> None:
        self.silent = silent
        self.connection = MemoryBroker().connect()
        self._api = self.connection.api
        patch.setattr(self.connection, "api", self.api)
        patch.setattr(jetstream, "RETRY_SECONDS", 0.0)

    async def api(self, *request: Any) -> dict[str, Any]:
        if self.silent:
            self.silent -= 1
            raise DomainSilent("no JetStream of domain 'hub' answers")
        return await self._api(*request)

    async def ensure(self) -> dict[str, Any]:
        return await jetstream.ensure(self.connection, "S", wish(), {}, patience=jetstream.PATIENCE)


async def test_a_stream_is_found_once_the_leaf_node_has_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = await BehindALeaf(3, monkeypatch).ensure()
    assert info["config"]["name"] == "S"


async def test_a_misspelt_domain_is_reported_before_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jetstream, "DOMAIN_SECONDS", 0.0)
    leaf = BehindALeaf(2, monkeypatch)
    with pytest.raises(DomainSilent):
        await leaf.ensure()
    assert leaf.silent == 1
