"""Make a stream as large and as safe as the broker allows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import JetStreamError
from .broker import Broker
from .errors import advised

logger = logging.getLogger(__name__)

# Copies of a stream where the servers can hold them, so that one server may be lost.
COPIES = 3
NO_PEERS = 10005
STREAM_IN_USE = 10058
STREAM_NOT_FOUND = 10059
# Error numbers that refuse a stream's size, storage or number of copies; another choice may be
# accepted. In order: account resources, resources, memory, storage, a single server, max_bytes
# needed, no tier for this number of copies, max_bytes over the account's.
TOO_MUCH = frozenset((10002, 10023, 10028, 10047, 10074, 10113, 10120, 10122, NO_PEERS))


@dataclass(frozen=True, slots=True)
class Wish:
    """A stream to make.

    copies and places (storage and ``max_bytes``; -1: no limit) list choices, the best one first.
    setting: the prefix of the settings that choose them, for messages.
    """

    config: dict[str, Any]
    copies: Sequence[int] = (1,)
    places: Sequence[tuple[str, int]] = (("file", -1),)
    setting: str = ""

    def configs(self) -> Iterator[dict[str, Any]]:
        """Yield the configurations to try, the best one first."""
        for copies in self.copies:
            for storage, size in self.places:
                choice = {"num_replicas": copies, "storage": storage, "max_bytes": size}
                yield self.config | choice


def halves(storage: str, largest: int, least: int) -> list[tuple[str, int]]:
    """List places of ``largest`` bytes, half of it, and so on, but not less than ``least``."""
    sizes = [largest]
    while sizes[-1] // 2 >= least:
        sizes.append(sizes[-1] // 2)
    return [(storage, size) for size in sizes]


def copies(c: Broker, wanted: int) -> tuple[int, ...]:
    """List numbers of copies to try. wanted 0: as many as help, then fewer if they do not fit.

    A server with a leaf node or a cluster name says that it belongs to a cluster, and the servers
    behind a domain are unknown; so JetStream itself has to be tried.
    """
    if wanted:
        return (wanted,)
    return (COPIES, 1) if c.clustered else (1,)


async def make(c: Broker, name: str, wish: Wish, *, wait_for_peers: bool) -> dict[str, Any]:
    """Make the stream with the first configuration that JetStream accepts; return its info.

    wait_for_peers: raise JetStreamError (10005) where too few servers are there, instead of
    making fewer copies. Raises JetStreamError, with advice, if nothing is accepted.
    """
    refused: JetStreamError | None = None
    for config in wish.configs():
        try:
            info = await c.api(f"STREAM.CREATE.{name}", config)
        except JetStreamError as error:
            if error.err_code == STREAM_IN_USE:  # Another process was faster, with other settings.
                return await c.api(f"STREAM.INFO.{name}")
            if error.err_code not in TOO_MUCH or (error.err_code == NO_PEERS and wait_for_peers):
                raise advised(error, name, config, wish.setting) from error
            refused = refused or advised(error, name, config, wish.setting)
        else:
            if refused is not None:
                logger.warning("made %s instead: %s", config_text(name, config), refused)
            return info
    assert refused is not None
    try:
        # Another process was faster, and too little is left for a second stream.
        return await c.api(f"STREAM.INFO.{name}")
    except JetStreamError as error:
        raise refused from error


def config_text(name: str, config: dict[str, Any]) -> str:
    """Describe a stream's choices, for people."""
    count, size = config["num_replicas"], config["max_bytes"]
    limit = "no limit" if size < 0 else f"{size:,} bytes"
    return (
        f"stream {name} in {config['storage']}, {count} cop{'y' if count == 1 else 'ies'}, {limit}"
    )
