"""The parts of JetStream's API that are the same for every stream of jetmap.

Streams and consumers are made if they are missing and never altered if they exist: two processes
may race to make one, and an operator may have made it with an account that alone is allowed to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Any

from jetmap.errors import BrokerUnreachable, JetmapError, TopologyMismatch

from .answers import JetStreamError, lacks_room
from .broker import Broker
from .errors import DomainSilent, advised, is_passing
from .provision import STREAM_NOT_FOUND, Wish, make

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5  # Seconds between two attempts.
PATIENCE = 20.0  # Seconds that a starting process waits for the broker: an election, and a little.
PEERS_SECONDS = 5.0  # Seconds of these for servers that all copies of a stream need.
DOMAIN_SECONDS = 5.0  # Seconds of these for a leaf node to connect; the domain may be misspelt.
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
WRONG_LAST_SEQUENCE = 10071
CONSUMER_EXISTS = 10148
NO_SUBJECT = "jetmap.no.such.subject"  # Nothing is ever published there.


class PullEnd(Enum):
    """The meaning of a status message for a pull."""

    NOT_YET = auto()  # A heartbeat.
    EMPTY = auto()  # There is no message.
    EXPIRED = auto()  # None came in time.
    CONSUMER_GONE = auto()  # The consumer, or the server that leads it, has gone.
    REFUSED = auto()


def pull_end(headers: Mapping[str, str]) -> PullEnd:
    """Read a status message. The server tells the causes of a 409 apart by their text only."""
    status = headers.get("Status", "")
    if status == "100":
        return PullEnd.NOT_YET
    if status in ("404", "408"):
        return PullEnd.EMPTY if status == "404" else PullEnd.EXPIRED
    text = headers.get("Description", "").lower()
    if status == "503" or any(word in text for word in ("deleted", "shutdown", "leadership")):
        return PullEnd.CONSUMER_GONE
    return PullEnd.REFUSED


async def ensure(
    c: Broker, name: str, wish: Wish, required: dict[str, Any], *, patience: float = 0.0
) -> dict[str, Any]:
    """Make a stream if it is missing; return its info.

    required: the settings that an existing one must have. Raises TopologyMismatch, JetStreamError.
    """
    info = await _ensure_within(patience, c, name, wish)
    there = info["config"]
    wrong = _differences(required, there)
    wanted = wish.config["subjects"]
    wrong += [f"subjects lack {s!r}" for s in wanted if s not in there.get("subjects", [])]
    _refuse(f"stream {name}", wrong)
    return info


async def ensure_consumer(c: Broker, request: dict[str, Any]) -> None:
    """Make a consumer, by the request that creates it, if it is missing.

    Raises TopologyMismatch if it exists with another configuration.
    """
    stream, config = request["stream_name"], dict(request["config"])
    name = config["name"]
    try:
        info = await c.api(f"CONSUMER.INFO.{stream}.{name}")
    except JetStreamError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        try:
            info = await c.api(f"CONSUMER.CREATE.{stream}.{name}", request)
        except JetStreamError as refused:
            if refused.err_code != CONSUMER_EXISTS:
                raise advised(refused, f"{name} of stream {stream}") from refused
            info = await c.api(f"CONSUMER.INFO.{stream}.{name}")
    # An account may limit how many chunks are out at once; a lower limit does no harm.
    del config["max_ack_pending"]
    _refuse(f"consumer {name} of stream {stream}", _differences(config, info["config"]))


async def purge(c: Broker, stream: str, subject: str) -> int:
    """Remove a stream's messages on a subject (wildcards allowed); return how many."""
    try:
        answer = await c.api(f"STREAM.PURGE.{stream}", {"filter": subject})
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return 0
    return int(answer.get("purged", 0))


async def write_error(c: Broker, stream: str) -> JetStreamError | None:
    """Return the lack of room for which a stream takes no writes until a restart, or None.

    Such a stream leaves messages without an answer, and refuses even a purge that matches nothing;
    to other streams that purge does nothing. None, too, where this account may not ask.
    """
    try:
        await c.api(f"STREAM.PURGE.{stream}", {"filter": NO_SUBJECT})
    except JetStreamError as error:
        return error if lacks_room(error) else None
    except BrokerUnreachable:
        return None
    return None


async def names(c: Broker) -> set[str]:
    """Return the names of all streams of this account."""
    found: set[str] = set()
    while True:
        page = await c.api("STREAM.NAMES", {"offset": len(found)})
        streams = page.get("streams") or []
        found |= set(streams)
        if not streams or len(found) >= page.get("total", 0):
            return found


async def consumers(c: Broker, stream: str) -> set[str]:
    """Return the names of a stream's consumers."""
    names: set[str] = set()
    while True:
        page = await c.api(f"CONSUMER.LIST.{stream}", {"offset": len(names)})
        found = page.get("consumers") or []
        names |= {consumer["name"] for consumer in found}
        if not found or len(names) >= page.get("total", 0):
            return names


async def find_stream(c: Broker, name: str, wish: Wish) -> dict[str, Any]:
    """Return a stream's info; make the stream if it is missing."""
    return await _ensure(c, name, wish)


def parsed_time(text: str) -> datetime:
    """Parse an RFC 3339 time; nanoseconds are cut to microseconds."""
    seconds, _, rest = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{rest[:6]:0<6}")


async def _ensure_within(patience: float, c: Broker, name: str, wish: Wish) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        try:
            return await _ensure(
                c, name, wish, wait_for_peers=waited < min(patience, PEERS_SECONDS)
            )
        except JetmapError as error:
            longest = patience
            if isinstance(error, DomainSilent):
                longest = min(patience, DOMAIN_SECONDS)
            if waited >= longest or not is_passing(error, clustered=c.clustered):
                raise
            logger.info("waiting for the broker: %s", error)
        await asyncio.sleep(RETRY_SECONDS)


async def _ensure(
    c: Broker, name: str, wish: Wish, *, wait_for_peers: bool = False
) -> dict[str, Any]:
    """Return the stream's info. Ask before creating: not every account may create."""
    try:
        return await c.api(f"STREAM.INFO.{name}")
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise advised(error, name, wish.config) from error
    return await make(c, name, wish, wait_for_peers=wait_for_peers)


def _differences(required: dict[str, Any], there: dict[str, Any]) -> list[str]:
    return [
        f"{key} is {there.get(key)!r}, not {value!r}"
        for key, value in required.items()
        if there.get(key, type(value)()) != value
    ]


def _refuse(what: str, wrong: list[str]) -> None:
    if wrong:
        raise TopologyMismatch(
            f"{what} on the NATS server is not as jetmap needs it: {'; '.join(wrong)}. "
            "Delete it, or use another pool."
        )
