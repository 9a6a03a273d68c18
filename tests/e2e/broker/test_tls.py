"""Messages over TLS, under both event loops: the client's own transport takes the socket over."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from deployments import Servers
from jetmap.errors import BrokerUnreachable
from jetmap.nats.auth import Auth
from jetmap.nats.broker import Message
from jetmap.nats.connection import Connection
from tools import need_tool
from waiting import PATIENCE

SIZES = [10, 16_383, 16_384, 900_000, 300_000, 1, 65_536, 70_000] * 4


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this host, beside its key."""
    place = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [need_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
    subprocess.run([*make, *files, *names], check=True, capture_output=True)
    return place / "cert.pem"


@pytest.fixture(scope="module")
def url(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    key = certificate.parent / "key.pem"
    try:
        yield servers.start(f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}')
    finally:
        servers.stop()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_messages_of_every_size_arrive(
    url: str, certificate: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def exchange() -> None:
        auth = Auth(tls_ca=str(certificate))
        connection = await Connection.open([url], name="test", auth=auth, timeout=PATIENCE)
        sent, received = [os.urandom(size) for size in SIZES], list[bytes]()
        arrived = asyncio.Event()

        async def receive(message: Message) -> None:
            received.append(message.data)
            if len(received) == len(sent):
                arrived.set()

        await connection.subscribe("large", receive, direct=True)
        for data in sent:
            await connection.publish("large", data)
        async with asyncio.timeout(PATIENCE):
            await arrived.wait()
        assert received == sent
        await connection.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(exchange())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    url: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def dial() -> None:
        with pytest.raises(BrokerUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await Connection.open([url], name="test", timeout=PATIENCE)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(dial())
