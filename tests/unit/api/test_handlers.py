"""Answers to the framework's own refusals."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.routing import Route

from fake_cluster import FakeCluster, gateway
from jetmap_api.handlers import allow, methods_of, options_headers
from over_http import check_problem, double


def endpoint(request: Any) -> None:
    raise AssertionError


ROUTES = [
    Route("/jobs/{id}", endpoint, methods=["GET"]),
    Route("/jobs/{function}", endpoint, methods=["POST"]),
    Route("/only", endpoint, methods=["DELETE"]),
]


def scope(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "OPTIONS", "path": path, "headers": []}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/jobs/x", ["GET", "HEAD", "POST", "OPTIONS"]),
        ("/only", ["DELETE", "OPTIONS"]),
        ("/none", []),
        ("*", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"]),
    ],
)
def test_the_methods_of_a_path(path: str, methods: list[str]) -> None:
    assert methods_of(ROUTES, scope(path)) == methods


def test_headers_of_options() -> None:
    assert allow(["GET", "HEAD"]) == (b"allow", b"GET, HEAD")
    assert "accept-post" in options_headers(scope("/jobs/x"), ["POST"])
    assert "accept-post" not in options_headers(scope("/jobs/x/cancel"), ["POST"])


@pytest.mark.anyio
async def test_the_frameworks_refusals_are_problems() -> None:
    async with gateway(FakeCluster(double)) as client:
        unknown = check_problem(await client.get("/nothing/here"), 404, "not-found")
        assert "/docs lists all" in unknown["detail"]
        wrong = await client.put("/jobs/x")
        problem = check_problem(wrong, 405, "method-not-allowed")
        assert problem["detail"] == "PUT does nothing here: use GET or POST or PATCH or DELETE"
        assert wrong.headers["allow"] == "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
