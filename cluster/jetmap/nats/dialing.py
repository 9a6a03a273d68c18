"""Attempts to connect, with nats-py's own reconnecting held back until one succeeds."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import nats.errors

from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.time_budget import TimeBudget

from .auth import Auth, without_secrets
from .client import QuickClient
from .errors import RefusedError, refusal

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0  # Seconds of one attempt, and for a server to answer by default.
RETRY_SECONDS = 0.2  # Seconds between attempts to connect.
TELL_SECONDS = 2.0  # Seconds without an answer after which the log says so.
# Bytes of publishes that are kept while the connection is lost.
PENDING_BYTES = 4 * 2**20
# The first version of nats-server with message TTLs, which jobs need.
OLDEST_SERVER = (2, 11)


class Listener(Protocol):
    """Handler of a client's events."""

    async def client_lost(self, client: QuickClient) -> None: ...
    async def client_back(self, client: QuickClient) -> None: ...
    async def client_closed(self, client: QuickClient) -> None: ...
    async def client_failed(self, client: QuickClient, error: Exception) -> None: ...


async def dial_within(
    attempt: Callable[[float], Awaitable[QuickClient]], where: str, timeout: float
) -> QuickClient:
    """Try to connect until it works, for ``timeout`` seconds.

    The log says so where it takes longer than usual, as for a worker that waits for its server.

    Args:
        attempt: Tries once, for this number of seconds.
        where: The address, without secrets.

    Raises:
        BrokerUnreachable: Nothing answers in time, or trying again would not help.
    """
    budget, reason = TimeBudget(timeout), "nothing speaks NATS there"

    def tell() -> None:
        text = "no NATS server answers at %s yet (%s): trying for %g s in all"
        logger.warning(text, where, reason, timeout)

    loop = asyncio.get_running_loop()
    telling = loop.call_later(TELL_SECONDS, tell) if timeout > CONNECT_SECONDS else None
    began = time.monotonic()
    try:
        while True:
            try:
                return await attempt(max(0.1, budget.step(CONNECT_SECONDS)))
            except RefusedError as error:
                raise BrokerUnreachable(str(error)) from error.__cause__
            except (OSError, nats.errors.Error) as error:
                reason = str(error) or type(error).__name__
                before, began = began, time.monotonic()
                budget.spend(began - before)
                if budget.left <= RETRY_SECONDS:
                    raise BrokerUnreachable(
                        f"no NATS server answers at {where} ({reason}): "
                        "is it running, and is the address right?"
                    ) from error
            await asyncio.sleep(RETRY_SECONDS)
    finally:
        if telling is not None:
            telling.cancel()


async def dial(
    servers: Sequence[str],
    *,
    name: str,
    auth: Auth,
    inbox_prefix: str,
    timeout: float,
    listener: Listener,
) -> QuickClient:
    """Connect a client, which from then on reconnects by itself for ever.

    Raises RefusedError if trying again would not help, ConfigurationError, or what nats-py
    raises: OSError, nats.errors.Error.
    """
    client = QuickClient()
    reasons: list[Exception] = []

    async def failed(error: Exception) -> None:
        if client.options["allow_reconnect"]:
            await listener.client_failed(client, error)
        else:
            reasons.append(error)

    async def lost() -> None:
        await listener.client_lost(client)

    async def back() -> None:
        await listener.client_back(client)

    async def closed() -> None:
        await listener.client_closed(client)

    callbacks = {
        "error_cb": failed,
        "disconnected_cb": lost,
        "reconnected_cb": back,
        "closed_cb": closed,
    }
    options = _options(auth) | callbacks
    where = ", ".join(without_secrets(server) for server in servers)
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(timeout):
            await client.connect(list(servers), name=name, inbox_prefix=inbox_prefix, **options)
        check_cancelled(task, cancelled)
        if not client.is_connected:
            # The server went away, or sent a PING before its answer, which nats-py takes for that.
            raise ConnectionError("the connection was not accepted")
        _check_tls(client, servers, auth, where)
        _check_version(client, where)
    except BaseException as error:
        await discard(client)
        if not isinstance(error, Exception):
            raise
        check_cancelled(task, cancelled)
        if isinstance(error, ImportError):
            raise ConfigurationError(
                ["a NATS credentials file needs another package: `pip install nkeys`"]
            ) from error
        reason = reasons[-1] if reasons else error
        refused = refusal(reason, where)
        if refused is not None:
            raise refused from reason
        raise reason from None
    client.options |= {"allow_reconnect": True, "max_reconnect_attempts": -1}
    return client


def check_cancelled(task: asyncio.Task[Any] | None, before: int) -> None:
    """Raise CancelledError if the task was cancelled: nats-py swallows that while connecting.

    So does ``asyncio.wait_for``, which it uses for answers, when an answer comes at that moment
    (before Python 3.12).
    """
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


async def discard(client: QuickClient) -> None:
    """Close a client, whatever state it is in, within two seconds."""
    if not client.is_connected:
        # nats-py would write its pending data to a lost transport, and uvloop's raises then.
        client._pending, client._pending_data_size = [], 0
    try:
        async with asyncio.timeout(2):
            await client.stop_reconnecting()
            await client.close()
    except (OSError, RuntimeError, nats.errors.Error, TimeoutError, AssertionError) as error:
        logger.debug("closing the NATS client: %r", error)
    finally:
        # nats-py waits for the server before it closes the socket, for as long as it may.
        client.abort()


def _options(auth: Auth) -> dict[str, Any]:
    options: dict[str, Any] = {
        # With -1 attempts nats-py would never give up the first connection.
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": RETRY_SECONDS,
        "connect_timeout": 4,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "pending_size": PENDING_BYTES,
        # Every subject is made of checked tokens; validation costs 13 % of the CPU.
        "skip_subject_validation": True,
        "user": auth.user,
        "password": auth.password,
        "token": auth.token,
        "user_credentials": auth.creds,
        "nkeys_seed_str": auth.nkey_seed(),
    }
    auth.check_creds()
    if auth.wants_tls:
        options["tls"] = auth.ssl_context()
    return options


def _check_version(client: QuickClient, where: str) -> None:
    """Raise RefusedError for a server that is too old: it silently ignores what it does not
    know."""
    version = str(client._server_info.get("version", ""))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise RefusedError(
            f"the NATS server at {where} is version {version}; jetmap needs {oldest} or later: "
            "upgrade the server"
        )


def _check_tls(client: QuickClient, servers: Sequence[str], auth: Auth, where: str) -> None:
    # nats-py goes on in plain text if the server does not ask for TLS.
    insists = auth.wants_tls or any(server.startswith("tls:") for server in servers)
    if insists and not client._server_info.get("tls_required"):
        raise RefusedError(f"the NATS server at {where} does not offer TLS")
