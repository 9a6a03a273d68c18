"""A cluster in an application of the user's own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from jetmap.errors import ClusterClosed
from jetmap_api import disconnect
from jetmap_api.dependency import cluster_of, find_cluster, until_disconnect


def test_the_cluster_is_found_in_the_application_or_in_its_lifespans_state() -> None:
    here, there = object(), object()
    app = SimpleNamespace(state=SimpleNamespace(cluster=here))
    assert find_cluster({"app": app, "state": {"cluster": there}}) is here
    assert (
        find_cluster({"app": SimpleNamespace(state=SimpleNamespace()), "state": {"cluster": there}})
        is there
    )
    assert find_cluster({}) is None and find_cluster({"state": None}) is None


def test_without_a_cluster_the_error_says_what_to_do() -> None:
    with pytest.raises(ClusterClosed, match="pass lifespan="):
        cluster_of(HTTPConnection({"type": "http"}))


@pytest.mark.anyio
async def test_a_client_that_leaves_cancels_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect, "PATIENCE", 0)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    ended = False
    request = Request({"type": "http"}, receive)
    with pytest.raises(HTTPException) as caught, until_disconnect(request):
        await asyncio.Event().wait()
        ended = True
    assert caught.value.status_code == 499 and not ended
