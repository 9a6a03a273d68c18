"""The best configuration of a stream that a broker accepts."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetmap.nats.answers import JetStreamError
from jetmap.nats.broker import Broker
from jetmap.nats.provision import (
    COPIES,
    NO_PEERS,
    STREAM_IN_USE,
    STREAM_NOT_FOUND,
    Wish,
    config_text,
    copies,
    halves,
    make,
)

pytestmark = pytest.mark.anyio

WISH = Wish({"name": "S"}, copies=(3, 1), places=[*halves("memory", 4, 2), ("file", 2)])


class Refusing:
    """A broker that refuses some configurations. exists: another process has made the stream."""

    def __init__(self, err_code: int, accepted: Any = None, *, exists: bool = False) -> None:
        self.err_code = err_code
        self.accepted = accepted
        self.exists = exists
        self.tried: list[tuple[int, str, int]] = []

    async def api(self, subject: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        if config is None:
            if not self.exists:
                raise JetStreamError(404, STREAM_NOT_FOUND, "not found")
            return {"is": "theirs"}
        self.tried.append((config["num_replicas"], config["storage"], config["max_bytes"]))
        if self.tried[-1] != self.accepted:
            raise JetStreamError(500, self.err_code, "no")
        return {"is": "ours"}


async def made(broker: Refusing, *, wait_for_peers: bool = False) -> dict[str, Any]:
    return await make(cast(Broker, broker), "S", WISH, wait_for_peers=wait_for_peers)


def test_the_best_configuration_is_tried_first() -> None:
    tried = [(c["num_replicas"], c["storage"], c["max_bytes"]) for c in WISH.configs()]
    assert tried == [
        *[(3, "memory", 4), (3, "memory", 2), (3, "file", 2)],
        *[(1, "memory", 4), (1, "memory", 2), (1, "file", 2)],
    ]
    assert all(c["name"] == "S" for c in WISH.configs())
    assert halves("file", 10, 20) == [("file", 10)]


def test_copies_that_may_fit() -> None:
    def broker(clustered: bool) -> Broker:
        return cast(Broker, SimpleNamespace(clustered=clustered))

    assert copies(broker(True), 0) == (COPIES, 1)
    assert copies(broker(False), 0) == (1,)
    assert copies(broker(False), 5) == (5,)


async def test_the_first_that_fits_is_made_and_the_refusal_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Refusing(10047, (1, "memory", 2))
    with caplog.at_level(logging.WARNING):
        assert await made(broker) == {"is": "ours"}
    assert broker.tried[-1] == (1, "memory", 2) and len(broker.tried) == 5
    assert "made stream S in memory, 1 copy, 2 bytes instead" in caplog.text


@pytest.mark.parametrize("err_code", [STREAM_IN_USE, 10047])
async def test_a_stream_that_another_made_meanwhile_is_used(err_code: int) -> None:
    assert await made(Refusing(err_code, exists=True)) == {"is": "theirs"}


@pytest.mark.parametrize(
    ("err_code", "wait", "tries"), [(10047, False, 6), (10052, False, 1), (NO_PEERS, True, 1)]
)
async def test_what_cannot_be_made_is_refused(err_code: int, wait: bool, tries: int) -> None:
    broker = Refusing(err_code)
    with pytest.raises(JetStreamError) as caught:
        await made(broker, wait_for_peers=wait)
    assert caught.value.err_code == err_code and len(broker.tried) == tries


def test_choices_are_described() -> None:
    config = {"num_replicas": 3, "storage": "file", "max_bytes": -1}
    assert config_text("S", config) == "stream S in file, 3 copies, no limit"
