"""The private names of nats-py that jetmap uses: see decision 0100."""

from __future__ import annotations

import inspect
import re
from importlib import metadata
from pathlib import Path

import nats.aio.client
import pytest
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

import jetmap.nats
from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection

ATTRIBUTES = {
    "_pending": list,
    "_max_payload": int,
    "_max_pending_size": int,
    "_pending_data_size": int,
    "_pongs": list,
    "_ps": Parser,
    "_reconnection_task": type(None),
    "_server_info": dict,
    "_status": int,
    "_subs": dict,
    "_transport": type(None),
}
METHODS = {
    "_build_message": ["sid", "subject", "reply", "data", "headers"],
    "_connect_to_server": ["s"],
    "_flush_pending": ["force_flush"],
    "_process_err": ["err_msg"],
    "_process_headers": ["headers"],
    "_process_info": ["info", "initial_connection"],
    "_process_msg": ["sid", "subject", "reply", "data", "headers"],
    "_process_ping": [],
    "_process_pong": [],
    "_send_publish": ["subject", "reply", "payload", "payload_size", "headers"],
}
CALLS = re.compile(r"(?:client|_client|inner|super\(\)|self)\.(_[a-z]\w*)")


@pytest.mark.parametrize(("name", "kind"), ATTRIBUTES.items())
def test_the_client_has_the_attribute(name: str, kind: type) -> None:
    assert type(getattr(nats.aio.client.Client(), name)) is kind


@pytest.mark.parametrize(("name", "parameters"), METHODS.items())
def test_the_client_has_the_method(name: str, parameters: list[str]) -> None:
    method = getattr(nats.aio.client.Client(), name)
    assert list(inspect.signature(method).parameters) == parameters


def test_a_subscription_has_its_number() -> None:
    client = nats.aio.client.Client()
    assert Subscription(client, 7, "s")._id == 7


def test_no_other_private_name_is_used() -> None:
    room = Path(jetmap.nats.__file__).parent
    theirs = {name for name in dir(nats.aio.client.Client()) if not name.startswith("__")}
    used = {
        name
        for file in ("client.py", "connection.py", "dialing.py", "subscription.py")
        for name in CALLS.findall((room / file).read_text(encoding="utf-8"))
    }
    # ``Connection`` has a client and is not one: its own names mean nothing to nats-py.
    ours = {*vars(Connection), *vars(Connection([], name="", auth=Auth(), inbox_prefix=""))}
    assert used & theirs - ours == {*ATTRIBUTES, *METHODS} - ours


def test_the_installed_version_is_the_one_that_was_tested() -> None:
    (requirement,) = [
        line for line in metadata.requires("jetmap") or [] if line.startswith("nats-py")
    ]
    assert metadata.version("nats-py").startswith("2.16.")
    assert ">=2.16" in requirement
