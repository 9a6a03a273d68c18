"""Hosts, tokens and paths, decided without a request."""

from __future__ import annotations

from typing import Any

import pytest

from fake_cluster import FakeCluster, gateway
from jetmap_api.hosts import is_open
from jetmap_api.security import CALLER, TokenCheck, is_secure, job_of_events, wants_page
from jetmap_api.signer import Signer
from over_http import check_problem, double


def scope(path: str = "/jobs", method: str = "GET", **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": named}


async def app(scope: Any, receive: Any, send: Any) -> None:
    scope["served"] = True


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (b"Bearer t", True),
        (b"bearer  t ", True),
        (b"Bearer x", False),
        (b"Basic t", False),
        (b"", False),
    ],
)
def test_tokens(header: bytes, allowed: bool) -> None:
    problem = TokenCheck(app, "t", Signer("t")).check(header)
    assert (problem is None) == allowed
    if problem is not None:
        assert problem.status == 401 and problem.headers[0][0] == b"www-authenticate"


@pytest.mark.anyio
async def test_the_token_names_the_caller_and_its_lack_is_refused() -> None:
    signer = Signer("t")
    check = TokenCheck(app, "t", signer)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    right, wrong, probe = scope(authorization="Bearer t"), scope(), scope("/healthz")
    for asked in (right, wrong, probe):
        await check(asked, None, send)  # type: ignore[arg-type]
    assert right[CALLER] == signer.caller and right["served"] and probe["served"]
    assert "served" not in wrong and sent[0]["status"] == 401


def test_questions_about_a_request() -> None:
    assert is_open(scope("/healthz")) and is_open(scope(method="OPTIONS")) and not is_open(scope())
    assert is_secure(scope(x_forwarded_proto="https, http")) and not is_secure(scope())
    assert wants_page(scope(accept="text/html")) and not wants_page(scope(accept="*/*"))
    assert job_of_events(scope("/jobs/j/events")) == "j"
    assert job_of_events(scope("/jobs/j/events", "POST")) is None and job_of_events(scope()) is None


FORMS = [
    ({"origin": "https://elsewhere.example", "sec-fetch-site": "cross-site"}, 403),
    ({"origin": "https://elsewhere.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://localhost:3000", "sec-fetch-site": "same-site"}, 403),
    ({"origin": "http://localhost", "sec-fetch-site": "same-origin"}, 200),
    ({"origin": "https://known.example", "sec-fetch-site": "cross-site"}, 200),
    ({}, 200),  # Not a browser.
]


@pytest.mark.anyio
@pytest.mark.parametrize(("headers", "status"), FORMS)
async def test_a_page_of_another_site_steers_nothing(headers: dict[str, str], status: int) -> None:
    """A page may send a POST without a body anywhere, unasked."""
    cluster = FakeCluster(double)
    async with gateway(cluster, cors_origins=["https://known.example"]) as client:
        answer = await client.post("/pool/pause", headers=headers)
        assert answer.status_code == status
        assert cluster.control.paused is (status == 200)
        if status != 200:
            check_problem(answer, 403, "cross-site-request")
        assert (await client.get("/pool", headers=headers)).status_code == 200
