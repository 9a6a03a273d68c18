"""The demo's client: server-sent events and refusals."""

from __future__ import annotations

import http.client
import io
import json
from typing import Any, cast

import pytest

from jetmap.demo.http import DemoError, GatewayClient, ResultPart, events


class Answer(io.BytesIO):
    """An HTTP response."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(body)
        self.status = status


class Connection:
    """A connection with one answer."""

    def __init__(self, status: int, body: str) -> None:
        self.answer = Answer(status, body.encode())
        self.requests: list[tuple[Any, ...]] = []

    def request(self, *arguments: Any, **more: Any) -> None:
        self.requests.append(arguments)

    def getresponse(self) -> Answer:
        return self.answer

    def close(self) -> None:
        self.answer.close()


def gateway(status: int, body: str) -> GatewayClient:
    made = GatewayClient("127.0.0.1", 1, "secret")
    made._connection = cast(http.client.HTTPConnection, Connection(status, body))
    return made


def stream(*named: tuple[str, Any]) -> str:
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in named)


RESULTS = {"start": 0, "values": [1, 2], "errors": [], "done": 2, "total": 2}


def test_results_arrive_in_parts() -> None:
    found = list(
        gateway(200, stream(("start", {}), ("results", RESULTS), ("done", {}))).map("f", [1])
    )
    assert found == [ResultPart(0, [1, 2], [], 2)]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, '{"detail": "no worker is ready"}', "no worker is ready"),
        (500, "no JSON", "no JSON"),
        (200, stream(("failed", {"title": "timeout"})), "timeout"),
        (200, stream(("results", RESULTS)), "the stream ended early"),
    ],
)
def test_maps_that_fail(status: int, body: str, said: str) -> None:
    with pytest.raises(DemoError, match=said):
        list(gateway(status, body).map("f", [1]))


def test_a_map_that_ends_early_leaves_no_half_read_answer_behind() -> None:
    made = gateway(200, stream(("failed", {"title": "map-cancelled"})))
    with pytest.raises(DemoError, match="map-cancelled"):
        list(made.map("f", [1]))
    assert cast(Connection, made._connection).answer.closed
    whole = gateway(200, stream(("done", {})))
    assert list(whole.map("f", [])) == []
    assert not cast(Connection, whole._connection).answer.closed


def test_jobs_are_submitted_looked_at_and_deleted() -> None:
    assert gateway(202, '{"id": "j1", "finished": null}').submit("f", [1], "team=a") == "j1"
    assert not gateway(200, '{"id": "j1", "finished": null}').is_over("j1")
    assert gateway(200, '{"id": "j1", "finished": "2026-11-30T00:00:00Z"}').is_over("j1")
    gateway(204, "").delete("j1")
    with pytest.raises(DemoError, match="no such job"):
        gateway(404, '{"detail": "no such job"}').delete("j1")


def test_data_of_several_lines_and_comments() -> None:
    answer = Answer(200, b": comment\n\nevent: a\ndata: 1\ndata: 2\n\ndata:3\n\n")
    found = list(events(cast(http.client.HTTPResponse, answer)))
    assert found == [("a", b"1\n2"), ("message", b"3")]


def test_the_workers() -> None:
    assert gateway(200, '[{"cores": 2}]').workers() == [{"cores": 2}]
