"""Hosts that a request may name."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap_api.hosts import HostCheck, is_open


async def app(scope: Any, receive: Any, send: Any) -> None:
    scope["served"] = True


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:80", True),
        ("a.localhost", True),
        ("Me.Example:1", True),
        ("me.example.", True),
        ("x.sub.example", True),
        ("sub.example", False),
        ("evil.example", False),
        ("", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_hosts(host: str, allowed: bool) -> None:
    assert HostCheck(app, ["me.example", "*.sub.example"]).allows(host.encode()) == allowed
    assert HostCheck(app, ["*"]).allows(host.encode())


@pytest.mark.parametrize(
    ("method", "path", "open"),
    [("GET", "/healthz", True), ("OPTIONS", "/jobs", True), ("GET", "/jobs", False)],
)
def test_probes_and_options_need_no_host(method: str, path: str, open: bool) -> None:
    assert is_open({"method": method, "path": path}) == open
