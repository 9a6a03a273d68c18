"""Addresses of the gateway and the NATS server."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from jetmap.cli import listening
from jetmap.cli.listening import gateway_problems, listen, local_url, server_problems, url_of
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings


def test_a_listener_and_its_url() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigurationError, match=rf"{port} is taken: .* --port 0"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigurationError, match=r"--host 192\.0\.2\.1 --port 0: "):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "nats://127.0.0.1:4222"),
        ("::", "nats://[::1]:4222"),
        ("10.0.0.1", "nats://10.0.0.1:4222"),
    ],
)
def test_urls_that_this_machine_reaches(host: str, url: str) -> None:
    assert local_url("nats", host, 4222) == url


def test_the_address_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listening.address_for_others("10.0.0.1") == "10.0.0.1"
    # A machine that only has its loopback is known by its name.
    monkeypatch.setattr(listening, "is_loopback", lambda host: True)
    assert listening.address_for_others("0.0.0.0") == socket.gethostname()


@pytest.mark.parametrize(
    ("given", "is_safe"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "token": "secret"}, True),
    ],
)
def test_beyond_loopback_the_gateway_requires_a_token(given: dict[str, Any], is_safe: bool) -> None:
    assert (gateway_problems(Settings.of(given)) == []) is is_safe


@pytest.mark.parametrize(
    ("given", "is_safe"),
    [
        ({}, True),
        ({"nats_host": "0.0.0.0"}, False),
        ({"nats_host": "0.0.0.0", "nats_password": "secret"}, True),
    ],
)
def test_beyond_loopback_the_server_requires_a_password(
    given: dict[str, Any], is_safe: bool
) -> None:
    assert (server_problems(Settings.of(given)) == []) is is_safe
