"""Commands to paste, and the addresses that pages show."""

from __future__ import annotations

from typing import Any

import pytest

from fake_cluster import FakeCluster
from jetmap_api.pages import curl, origin_of, overview, prefers_page, root_of
from over_http import double


def scope(**headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "scheme": "http", "path": "/", "root_path": "/api/", "headers": named}


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (None, False),
        (b"*/*", False),
        (b"text/html,*/*", True),
        (b"application/json", False),
        (b"application/json, text/html", False),
        (b"text/html;q=0.9, application/json;q=0.1", True),
    ],
)
def test_browsers_get_pages(accept: bytes | None, page: bool) -> None:
    assert prefers_page(accept) == page


def test_addresses_are_those_that_the_client_sees() -> None:
    assert origin_of(scope(host="a.example")) == "http://a.example"
    assert origin_of(scope(host="a.example", x_forwarded_proto="https")) == "https://a.example"
    assert root_of(scope()) == "/api"


def test_a_command_can_be_pasted() -> None:
    (status,) = FakeCluster(double).functions
    command = curl(scope(host="localhost:8000"), status, "map", False)
    assert command.startswith("curl") and "http://localhost:8000/api/map/double" in command
    assert "Authorization" in curl(scope(host="localhost"), status, "jobs", True)


def test_programs_get_an_overview() -> None:
    document = overview(scope(host="localhost"), FakeCluster(double).functions)
    assert "double" in str(document)
