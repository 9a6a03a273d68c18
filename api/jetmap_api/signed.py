"""Signed addresses: one job's events for a browser that does not know the token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jetmap import bounds

from .asgi import Receive, Scope, Send, respond
from .disconnect import Departure
from .jobdocuments import JSON, NO_STORE, job_path, timestamp
from .jobstreams import check_kept
from .request import parameters, whole_number
from .sessions import Signer

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster

DEFAULT_TTL = 600  # Seconds in which a connection may be opened.


class EventsAddress:
    """``POST /jobs/{id}/events/address``. signer: None if the gateway asks for no token; then the
    plain address will do."""

    def __init__(
        self,
        cluster: Callable[[Scope], Cluster],
        signer: Signer | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._signer = signer
        self._now = now

    async def __call__(
        self, id: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        given = parameters(scope["query_string"], ("ttl",))
        ttl = whole_number("ttl", given["ttl"], bounds.SIGNED) if "ttl" in given else DEFAULT_TTL
        record = await self._cluster(scope).jobs.get(id)
        check_kept(record)
        url, expires = job_path(scope, record.id, "/events"), None
        if self._signer is not None:
            until = int(self._now()) + ttl
            url += f"?signature={self._signer.events(record.id, until)}"
            expires = timestamp(until)
        document = msgspec.json.encode({"url": url, "expires": expires})
        await respond(send, 200, JSON, document, [NO_STORE])
