"""Requests on a subject that the server refuses end at once; later ones begin anew."""

from __future__ import annotations

import asyncio

import pytest

from jetmap.nats.open_requests import OpenRequests

pytestmark = pytest.mark.anyio


async def wait(requests: OpenRequests, subject: str) -> None:
    """Wait for an answer that never comes."""
    async with asyncio.timeout(None) as patience:
        with requests.add(subject, patience):
            await asyncio.Event().wait()


async def test_all_requests_on_a_refused_subject_end_and_no_others() -> None:
    requests = OpenRequests()
    refused = [asyncio.create_task(wait(requests, "$JS.API.Info")) for _ in range(2)]
    other = asyncio.create_task(wait(requests, "$JS.API.Other"))
    await asyncio.sleep(0)
    assert requests.refuse("$js.api.info"), "in the server's lower case"
    for task in refused:
        with pytest.raises(TimeoutError):
            await task
    assert requests.was_refused("$JS.API.Info") and not requests.was_refused("$JS.API.Other")
    assert not other.done()
    other.cancel()


async def test_a_refusal_is_forgotten_when_the_subject_is_asked_again() -> None:
    requests = OpenRequests()
    first = asyncio.create_task(wait(requests, "s"))
    await asyncio.sleep(0)
    requests.refuse("s")
    with pytest.raises(TimeoutError):
        await first
    assert requests.was_refused("s"), "for the error of the first"
    second = asyncio.create_task(wait(requests, "s"))
    await asyncio.sleep(0)
    assert not requests.was_refused("s")
    second.cancel()


async def test_a_subject_on_which_nobody_waits_is_not_a_refused_request() -> None:
    requests = OpenRequests()
    assert not requests.refuse("s") and not requests.was_refused("s")
