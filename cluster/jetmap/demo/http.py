"""Call a map over HTTP and read its results as server-sent events, with the stdlib alone."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jetmap.errors import JetmapError

from .live import Reading


@dataclass(frozen=True)
class ResultPart:
    """Consecutive results from index ``start`` on; ``done`` counts all results until now."""

    start: int
    values: list[Any]
    errors: list[dict[str, Any]]
    done: int


class DemoError(JetmapError):
    """The gateway refused the map, or ended it early."""


class GatewayClient:
    """A connection to a gateway, with the bearer token that it requires."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address = host, port, token
        self._connection = http.client.HTTPConnection(host, port)
        self._headers = {"Authorization": f"Bearer {token}"}

    def close(self) -> None:
        self._connection.close()

    def workers(self) -> Any:
        """Return the answer of ``GET /workers``."""
        self._connection.request("GET", "/workers", headers=self._headers)
        return json.load(self._connection.getresponse())

    def another(self) -> GatewayClient:
        """Return a connection of its own to the same gateway."""
        return GatewayClient(*self._address)

    def reading(self) -> Reading:
        """Read what the gateway and its workers do now."""
        workers = self.workers()
        self._connection.request("GET", "/metrics", headers=self._headers)
        metrics = self._connection.getresponse().read().decode()
        return Reading.of(time.monotonic(), workers, metrics)

    def submit(self, function: str, items: Sequence[Any], labels: str) -> str:
        """Submit a job, and return its id. Raises DemoError."""
        found = self._ask("POST", f"/jobs/{function}?labels={labels}", json.dumps(items))
        return str(found["id"])

    def is_over(self, job: str) -> bool:
        """Return whether a job has ended. Raises DemoError."""
        return self._ask("GET", f"/jobs/{job}")["finished"] is not None

    def delete(self, job: str) -> None:
        """Remove a job. Raises DemoError."""
        self._ask("DELETE", f"/jobs/{job}")

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status >= 400:
            raise DemoError(_detail(data))
        return json.loads(data) if data else None

    def map(self, function: str, items: Sequence[Any]) -> Iterator[ResultPart]:
        """Yield results as they arrive. Raises DemoError."""
        self._connection.request(
            "POST",
            f"/map/{function}?errors=collect",
            json.dumps(items),
            self._headers | {"Content-Type": "application/json", "Accept": "text/event-stream"},
        )
        response = self._connection.getresponse()
        is_read = False
        try:
            if response.status != 200:
                raise DemoError(_detail(response.read()))
            for event, data in events(response):
                if event == "results":
                    found = json.loads(data)
                    yield ResultPart(
                        found["start"], found["values"], found["errors"], found["done"]
                    )
                elif event == "failed":
                    raise DemoError(_detail(data))
                elif event == "done":
                    response.read()
                    is_read = True
                    return
            raise DemoError("the stream ended early")
        finally:
            if not is_read:  # The next request needs a connection without the rest of this answer.
                self._connection.close()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, bytes]]:
    """Yield the name and data of a stream's events."""
    event = "message"
    data: list[bytes] = []
    for raw in response:
        line = raw.rstrip(b"\r\n")
        if not line:
            if data:
                yield event, b"\n".join(data)
            event, data = "message", []
        elif line.startswith(b"event:"):
            event = line[6:].strip().decode()
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))


def _detail(problem: bytes) -> str:
    try:
        found = json.loads(problem)
        return str(found.get("detail") or found.get("title") or found)
    except (ValueError, AttributeError):
        return problem.decode(errors="replace")
