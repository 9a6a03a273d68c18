"""Signed addresses: one job's events for a browser that does not know the token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import Query, Request, Response
from pydantic import Field

from jetmap import bounds

from .asgi import Scope
from .documents import answer
from .job_documents import job_path, timestamp
from .job_follower import check_shown
from .jobs import job_route
from .models import EventsAddress, Parameters, Within
from .openapi_parts import refusals
from .signer import Signer
from .watched import WatchedRoute

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


class AddressParameters(Parameters):
    ttl: Annotated[int, Within(bounds.SIGNED)] = Field(
        600, description="Seconds in which it may be opened."
    )


class SignedAddresses:
    """``POST /jobs/{id}/events/address``.

    signer: None if the gateway asks for no token; the plain address is then enough.
    """

    def __init__(
        self,
        cluster: Callable[[Scope], Cluster],
        signer: Signer | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._signer = signer
        self._now = now

    def route(self) -> WatchedRoute:
        return job_route(
            "POST",
            "/jobs/{id}/events/address",
            self._sign,
            "sign_job_events",
            "Make a short-lived address of the job's events, which needs no token",
            response_model=EventsAddress,
            response_description="The address.",
            responses=refusals(404, 406, 410, 501),
        )

    async def _sign(
        self, id: str, request: Request, query: Annotated[AddressParameters, Query()]
    ) -> Response:
        record = await self._cluster(request.scope).jobs.get(id)
        check_shown(record)
        url, expires = job_path(request.scope, record.id, "/events"), None
        if self._signer is not None:
            until = int(self._now()) + query.ttl
            url += f"?signature={self._signer.events(record.id, until)}"
            expires = timestamp(until)
        return answer(EventsAddress(url=url, expires=expires))
