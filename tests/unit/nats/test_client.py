"""The client: large payloads are sent unjoined, a ping goes out behind what was published."""

from __future__ import annotations

import pytest
from nats.aio.msg import Msg

from jetmap.nats.client import QuickClient
from jetmap.payload_buffer import LARGE_BYTES


class Kept(QuickClient):
    """A client that is connected to a list."""

    @property
    def is_connected(self) -> bool:
        return True

    async def _flush_pending(self, force_flush: bool = False) -> None: ...


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [None, {"Nats-TTL": "5s", "Other": "x"}])
async def test_a_large_payload_is_sent_as_it_is(headers: dict[str, str] | None) -> None:
    client = Kept()
    small, large = b"x" * 10, b"x" * LARGE_BYTES
    commands = []
    for payload in (small, large):
        await client._send_publish("s", "r", payload, len(payload), headers)
        commands.append(client._pending)
        client._pending = []
    assert any(piece is large for piece in commands[1])
    # nats-py's own command, which the small payload took, shows the form.
    line, rest = commands[0][0].split(b"\r\n", 1)
    words = line.split()
    words[-1] = b"%d" % (int(words[-1]) + LARGE_BYTES - 10)
    expected = b" ".join(words) + b"\r\n" + rest.replace(small, large)
    assert b"".join(commands[1]) == expected
    assert client._pending_data_size == sum(len(piece) for c in commands for piece in c)


@pytest.mark.anyio
async def test_a_ping_goes_out_behind_what_was_published_and_once() -> None:
    client = Kept()
    await client._send_publish("s", "", b"x", 1, None)
    await client._send_ping()
    await client._send_publish("s", "", b"y", 1, None)
    sent = b"".join(client._pending)
    assert sent == b"PUB s  1\r\nx\r\nPING\r\nPUB s  1\r\ny\r\n"
    assert client._pending_data_size == len(sent) and len(client._pongs) == 1


@pytest.mark.anyio
async def test_the_reader_runs_the_callbacks_that_ask_for_it() -> None:
    client = Kept()
    got: list[tuple[str, bytes]] = []

    async def take(message: Msg) -> None:
        got.append((message.subject, message.data))

    client.direct[7] = take
    await client._process_msg(7, b"s", b"", b"late", b"")
    client._subs[7] = None  # type: ignore[assignment]
    await client._process_msg(7, b"s", b"", b"x", b"")
    assert got == [("s", b"x")], "nothing reaches a subscription that has ended"
