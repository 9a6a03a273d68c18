"""Put a value into a file that the hosts of a cluster share or fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from jetmap.errors import HostsFull, TooLarge
from jetmap.functions.constants import Constants as Loaded
from jetmap.functions.constants import Content, dump
from jetmap.machine import boot_id
from jetmap.wire.constants import Constant, digest_of
from jetmap.wire.memory_files import MemoryFile, room
from jetmap.wire.messages import CONSTANTS_PROTOCOL

from .refs import Ref

if TYPE_CHECKING:
    from jetmap.dispatch.constants import Constants
    from jetmap.wire.presence import Presence

T = TypeVar("T")


async def put(
    value: T, constants: Constants, *, pickled: bool, limit: int, agents: Iterable[Presence]
) -> Ref[T]:
    """Put a value; ``Cluster.put`` describes it.

    Args:
        pickled: Pickle it: all workers load pickles of this process.
        limit: Bytes that it may take, at most.
        agents: Those of the pool.
    """
    content = dump(value, pickled=pickled)
    check_size(content.size, limit)
    check_room(content.size, agents)
    constant = await kept(content, constants)
    return Ref(constants, constant, is_pickled=content.is_pickled)


async def kept(content: Content, constants: Constants) -> Constant:
    """Write content to a file, and keep that for one user. Raises HostsFull."""
    # In a thread: the kernel writes and hashes without the interpreter's lock.
    digest, file = await asyncio.to_thread(_written, content)
    return await constants.add(digest, file)


def check_size(size: int, limit: int) -> None:
    """Raise TooLarge for a value of more bytes than the limit."""
    if size > limit:
        raise TooLarge(
            f"the value takes {size:,} bytes; the limit is {limit:,} (setting max_put_bytes). "
            "Put its parts, or a path from which the workers read it",
            setting="max_put_bytes",
            limit=limit,
            value=size,
        )


def check_room(size: int, agents: Iterable[Presence]) -> None:
    """Raise HostsFull if no host has room for a value; agents of this host share it."""
    here = boot_id()
    rooms = {p.host: p.room for p in agents if not here or p.machine != here}
    if any(p.machine == here for p in agents if here) or not rooms:
        return
    most = max(rooms.values())
    if 0 <= most < size and min(rooms.values()) >= 0:
        shown = ", ".join(f"{host}: {free:,}" for host, free in sorted(rooms.items())[:5])
        raise HostsFull(
            f"no host has room for the value's {size:,} bytes, neither in memory nor in its "
            f"directory for temporary files ({shown} bytes free): free some, or put less",
            size=size,
            room=most,
        )


def check_protocol(agents: Iterable[Presence]) -> None:
    """Raise TypeError if a host has a release that does not know constants."""
    for presence in agents:
        if presence.offer and presence.protocol < CONSTANTS_PROTOCOL:
            raise TypeError(
                f"host {presence.host} runs an earlier release of jetmap, whose workers cannot get "
                "values that were put: upgrade it, or pass the value itself"
            )


def loader(constants: Constants, digests: Iterable[str]) -> Loaded:
    """Return a loader of values in this process, which keeps their bytes."""
    views = {digest: constants.view(digest) for digest in digests}
    return Loaded(lambda constant: views[constant.digest])


def _written(content: Content) -> tuple[str, MemoryFile]:
    try:
        file = MemoryFile.create(content.size)
        for offset, part in content:
            file.write(offset, part)
    except OSError as error:
        raise HostsFull(
            f"this host has no room for the value's {content.size:,} bytes: about {room():,} are "
            f"free in memory or in the directory for temporary files ({error.strerror})",
            size=content.size,
            room=room(),
        ) from error
    file.seal()
    return digest_of(file.view()), file
