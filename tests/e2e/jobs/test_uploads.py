"""Uploaders that die or sleep, and the idempotency keys that they hold."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateways import Gateway, gateway
from jetmap.nats.answers import JetStreamError
from jetmap.nats.provision import STREAM_NOT_FOUND
from servers import Site
from waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Body:
    """The body of a request; its second half comes later."""

    def __init__(self) -> None:
        self.rest = asyncio.Event()
        self.half = b",4" * 500_000

    @property
    def whole(self) -> bytes:
        return b"[1" + self.half + self.half + b"]"

    async def slowly(self) -> AsyncIterator[bytes]:
        yield b"[1" + self.half
        await self.rest.wait()
        yield self.half + b"]"


async def test_an_uploader_that_slept_leaves_the_key_to_whose_it_is(place: Site) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    first, second = await gateway(place), await gateway(place)
    body = Body()
    headers = {"idempotency-key": "k", "content-type": "application/json"}
    async with httpx.AsyncClient(timeout=PATIENCE) as client:

        async def post(where: Gateway, content: Any) -> httpx.Response:
            return await client.post(f"{where.url}/jobs/empty", content=content, headers=headers)

        async def busy() -> bool:
            return (await post(second, b"[1]")).status_code == 409

        async def taken_over() -> httpx.Response | None:
            answer = await post(second, body.whole)
            return answer if answer.status_code == 202 else None

        stale = asyncio.ensure_future(post(first, body.slowly()))

        async def stored() -> bool:
            try:
                return bool(await cluster.jobs.store.jobs_in("INPUT"))
            except JetStreamError as error:
                assert error.err_code == STREAM_NOT_FOUND
                return False  # The stream comes with the first part.

        await wait_for(stored, "a part of it is stored")
        await wait_for(busy, "the first uploads")
        first.process.send_signal(signal.SIGSTOP)
        accepted = await wait_for(taken_over, "the key is taken over")
        assert accepted is not None
        first.process.send_signal(signal.SIGCONT)
        body.rest.set()
        answer = await stale
        found = answer.status_code, answer.json()["type"]
        # Its connection may be lost, too: the broker drops clients that do not read.
        assert found in ((409, "urn:jetmap:upload-lost"), (503, "urn:jetmap:no-broker"))
        assert int(answer.headers["retry-after"]) > 0
        for where in (second, first):
            again = await post(where, body.whole)
            assert (again.status_code, again.headers["location"]) == (
                202,
                accepted.headers["location"],
            )
    listed, _ = await cluster.jobs.list()
    assert len(listed) == 1
