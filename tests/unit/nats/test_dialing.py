"""One attempt to connect: refusals that last, refusals that pass, and the events afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest

from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.nats import dialing
from jetmap.nats.auth import Auth
from jetmap.nats.client import QuickClient
from jetmap.nats.dialing import dial, dial_within, discard
from jetmap.nats.errors import RefusedError
from virtual_time import pass_time
from virtual_time import run as in_virtual_time

pytestmark = pytest.mark.anyio


class Client:
    """A client that connects as a test says. error: raised, or given to the callback first."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.is_connected = False
        self.closed = self.aborted = 0
        self._server_info: dict[str, Any] = {"version": "2.12.0"}
        self._pending: list[bytes] = []
        self._pending_data_size = 0
        self.error: BaseException | None = None
        self.told: Exception | None = None

    async def connect(self, servers: list[str], **options: Any) -> None:
        self.options = options
        if self.told is not None:
            await options["error_cb"](self.told)
        if self.error is not None:
            raise self.error
        self.is_connected = True

    async def stop_reconnecting(self) -> None: ...

    async def close(self) -> None:
        self.closed += 1

    def abort(self) -> None:
        self.aborted += 1


class Heard:
    """A listener. events: names of what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def client_lost(self, client: Any) -> None:
        self.events.append("lost")

    async def client_back(self, client: Any) -> None:
        self.events.append("back")

    async def client_closed(self, client: Any) -> None:
        self.events.append("closed")

    async def client_failed(self, client: Any, error: Exception) -> None:
        self.events.append(str(error))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(dialing, "QuickClient", lambda: made)
    return made


async def dialled(auth: Auth | None = None, url: str = "nats://u:secret@h:1") -> Heard:
    heard = Heard()
    await dial(
        [url], name="n", auth=auth or Auth(), inbox_prefix="_I", timeout=5, listener=heard
    )  # fmt: skip
    return heard


async def test_a_connected_client_reconnects_for_ever_and_tells_its_events(client: Client) -> None:
    heard = await dialled()
    assert client.options["allow_reconnect"] and client.options["max_reconnect_attempts"] == -1
    for name in ("disconnected_cb", "reconnected_cb", "closed_cb"):
        await client.options[name]()
    await client.options["error_cb"](ValueError("odd"))
    assert heard.events == ["lost", "back", "closed", "odd"]
    assert client.closed == 0


@pytest.mark.parametrize("version", ["2.10.26", "2.9.0", "1.4.1"])
async def test_a_server_that_is_too_old_is_refused(client: Client, version: str) -> None:
    client._server_info["version"] = version
    with pytest.raises(RefusedError, match=rf"at nats://h:1 is version {version}; jetmap needs"):
        await dialled()
    assert client.closed == 1


async def test_a_server_without_tls_is_refused_where_it_was_asked_for(client: Client) -> None:
    with pytest.raises(RefusedError, match="does not offer TLS"):
        await dialled(url="tls://h:1")
    client._server_info["tls_required"] = True
    await dialled(url="tls://h:1")


INFO = b'INFO {"version":"2.12.0","max_payload":1000}\r\n'


@pytest.mark.parametrize("first", [b"PING\r\n", b""], ids=["a ping", "nothing"])
async def test_a_client_is_connected_or_raises(first: bytes) -> None:
    """A slow process gets the server's PING before the answer to its own, or nothing any more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO + first)
        while (line := await reader.readline()) and not line.startswith(b"PING"):
            pass
        if first:
            writer.write(b"PONG\r\n")
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match="was not accepted"):
            await dialled(url=f"nats://127.0.0.1:{port}")


async def test_why_it_could_not_connect(client: Client) -> None:
    client.error = OSError("nobody listens")
    with pytest.raises(OSError, match="nobody listens"):
        await dialled()
    # What the server said is the reason, not what the client made of it.
    client.told = nats.errors.Error("nats: 'Authorization Violation'")
    with pytest.raises(RefusedError, match="refuses the credentials") as caught:
        await dialled()
    assert "secret" not in str(caught.value)
    client.told, client.error = None, ImportError("nkeys")
    with pytest.raises(ConfigurationError, match="pip install nkeys"):
        await dialled()


async def test_a_cancellation_that_the_client_swallows_is_raised(client: Client) -> None:
    swallowing = asyncio.Event()

    async def connect(servers: list[str], **options: Any) -> None:
        client.options = options
        swallowing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            client.is_connected = True

    client.connect = connect  # type: ignore[method-assign]
    task = asyncio.ensure_future(dialled())
    await swallowing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.closed == 1


async def test_a_client_in_any_state_is_discarded(client: Client) -> None:
    client._pending, client._pending_data_size = [b"x"], 1
    errors = (None, OSError(), RuntimeError(), nats.errors.Error(), TimeoutError())
    for number, error in enumerate(errors, 1):

        async def close(error: Exception | None = error) -> None:
            assert client._pending == [], "nothing is written to a lost transport"
            if error is not None:
                raise error

        client.close = close  # type: ignore[method-assign]
        await discard(client)  # type: ignore[arg-type]
        assert client.aborted == number, "its socket may be open still"


async def test_a_client_that_is_reconnecting_connects_no_more_once_it_is_discarded() -> None:
    client = QuickClient()
    began, swallowed = asyncio.Event(), 0

    async def reconnect() -> None:
        """Swallow the first cancellation, as nats-py's attempt does while it connects."""
        nonlocal swallowed
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
        client._status = QuickClient.CONNECTED
        await asyncio.Event().wait()

    client._reconnection_task = asyncio.create_task(reconnect())
    await began.wait()
    client._status = QuickClient.RECONNECTING
    await discard(client)
    assert client._reconnection_task.done() and swallowed == 1
    assert client.is_closed


@pytest.mark.parametrize("hangs", [False, True], ids=["refused", "silent"])
def test_who_waits_for_long_is_told_what_for(hangs: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Once; and not at all where an error comes as soon."""

    async def attempt(timeout: float) -> QuickClient:
        if hangs:
            await asyncio.sleep(timeout)
            raise TimeoutError
        raise ConnectionRefusedError("nobody listens")

    async def scenario(timeout: float) -> None:
        with pytest.raises(BrokerUnreachable, match="no NATS server answers at nats://h:1 "):
            await dial_within(attempt, "nats://h:1", timeout)

    in_virtual_time(scenario(5.0))
    assert caplog.messages == []
    in_virtual_time(scenario(60.0))
    reason = "nothing speaks NATS there" if hangs else "nobody listens"
    expected = f"no NATS server answers at nats://h:1 yet ({reason}): trying for 60 s in all"
    assert caplog.messages == [expected]


def test_time_in_which_this_process_is_frozen_is_not_waited() -> None:
    """It may be stopped for longer than it would have waited, and then tries again."""
    tried: list[float] = []

    async def attempt(timeout: float) -> QuickClient:
        tried.append(timeout)
        if len(tried) == 1:
            pass_time(50)
        await asyncio.sleep(timeout)
        raise TimeoutError

    async def scenario() -> None:
        with pytest.raises(BrokerUnreachable):
            await dial_within(attempt, "nats://h:1", 15.0)

    in_virtual_time(scenario())
    assert tried == [5.0, 5.0]
