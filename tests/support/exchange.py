"""A request of a gateway on the wire, where a test decides when each part comes and is read."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from fake_cluster import FakeCluster
from jetmap.client.cluster import Cluster
from jetmap.settings import Settings
from jetmap_api import create_app
from jetmap_api.asgi import App


class Exchange:
    """One request on the wire, as an ASGI server sees it.

    unread: bytes that ``send`` takes before it waits for ``reading``.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        path: str,
        body: str = "application/json",
        accept: str = "*/*",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        app: App | None = None,
        **settings: Any,
    ) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.output = b""
        self.ended = False
        self.reading = asyncio.Event()
        self.reading.set()
        self.unread = 1000
        self.gone = False
        self.asked = 0
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (b"host", b"localhost"),
                (b"content-type", body.encode()),
                (b"accept", accept.encode()),
                *((name.encode(), value.encode()) for name, value in (headers or {}).items()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        self._cluster = cluster
        self._app = app or create_app(cast(Cluster, cluster), Settings(**settings))
        self.task = asyncio.create_task(self._app(scope, self._receive, self._send))

    def beside(self, path: str, body: str = "application/json", **more: Any) -> Exchange:
        """Another request of the same gateway."""
        return Exchange(self._cluster, path, body, app=self._app, **more)

    async def write(self, data: bytes, more: bool = True) -> None:
        """Send a part of the body, once the gateway has read the part before."""
        await self._incoming.put({"type": "http.request", "body": data, "more_body": more})

    async def leave(self) -> None:
        await self._incoming.put({"type": "http.disconnect"})

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.output.splitlines()]

    async def _receive(self) -> dict[str, Any]:
        self.asked += 1
        return await self._incoming.get()

    async def _send(self, message: Any) -> None:
        if self.gone:
            raise OSError("the client has left")
        if len(self.output) > self.unread:
            await self.reading.wait()
        if message["type"] == "http.response.start":
            assert self.status is None
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.output += message["body"]
            self.ended = not message.get("more_body", False)
