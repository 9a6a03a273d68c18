"""Put a value into a file that the hosts of a cluster share or fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jetmap.errors import HostsFull, TooLarge
from jetmap.functions.constants import Content, LoadedConstants, dump
from jetmap.machine import boot_id
from jetmap.wire.constants import WHOLE, Constant, digest_of, pack_kwargs, unpack_kwargs
from jetmap.wire.memory_files import MemoryFile, room
from jetmap.wire.protocol import CONSTANTS_PROTOCOL

from .refs import LARGE_KWARGS, Ref
from .submit import abort

if TYPE_CHECKING:
    from jetmap.dispatch.constants import KeptConstants
    from jetmap.dispatch.dispatcher import Dispatcher
    from jetmap.dispatch.map_spec import MapSpec
    from jetmap.dispatch.open_map import OpenMap
    from jetmap.dispatch.sources import Source
    from jetmap.jobs.service import Jobs
    from jetmap.jobs.upload import Upload
    from jetmap.wire.presence import Presence

    from .call import Call

T = TypeVar("T")


async def put(
    value: T, constants: KeptConstants, *, pickled: bool, limit: int, agents: Iterable[Presence]
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


async def kept(content: Content, constants: KeptConstants) -> Constant:
    """Write content to a file, and keep that for one user. Raises HostsFull."""
    # In a thread: the kernel writes and hashes without the interpreter's lock.
    digest, file = await asyncio.to_thread(_written, content)
    return await constants.add(digest, file)


async def open_large(dispatcher: Dispatcher, spec: MapSpec, source: Source, limit: int) -> OpenMap:
    """Open a map whose keyword parameters are too large for each chunk: they become a constant.

    With hosts of an earlier release they stay in the chunks, if they fit.
    """
    if not all_know_constants(dispatcher.roster.agents):
        return await dispatcher.open(spec, source)
    kwargs, constant = await kept_kwargs(spec.kwargs, dispatcher.constants, limit)
    try:
        constants = (*spec.constants, constant.digest)
        spec = msgspec.structs.replace(spec, kwargs=kwargs, constants=constants)
        return await dispatcher.open(spec, source)
    finally:
        dispatcher.constants.release_later(constant)  # The map keeps it, too.


async def begin_large(
    jobs: Jobs, call: Call, constants: KeptConstants, limit: int, **options: Any
) -> Upload:
    """Begin the upload of a job with values that were put, or large keyword parameters.

    Args:
        options: As for ``Jobs.begin``.
    """
    kwargs, stored = call.kwargs, [ref.stored for ref in call.refs.values()]
    own: list[str] = []
    try:
        if len(kwargs) > LARGE_KWARGS:
            kwargs, constant = await kept_kwargs(kwargs, constants, limit)
            own.append(constant.digest)
            stored.append((constant, constants.view(constant.digest)))
        upload = await jobs.begin(call.name, kwargs=kwargs, **options)
        try:
            for constant, data in stored:
                await upload.put_constant(constant, data)
        except BaseException:
            await abort(upload)
            raise
        return upload
    finally:
        constants.release(own)


async def kept_kwargs(
    kwargs: bytes, constants: KeptConstants, limit: int
) -> tuple[bytes, Constant]:
    """Put encoded keyword parameters; return those that name them, and the constant.

    Raises TooLarge, HostsFull.
    """
    found = unpack_kwargs(kwargs)
    content = Content("kwargs", [found.rest])
    check_size(content.size, limit)
    constant = await kept(content, constants)
    return pack_kwargs(b"", {**found.constants, WHOLE: constant}, found.pickles), constant


def all_know_constants(agents: Iterable[Presence]) -> bool:
    """Return whether all hosts have a release that knows constants."""
    return all(p.protocol >= CONSTANTS_PROTOCOL for p in agents if p.offer)


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


def loader(constants: KeptConstants, digests: Iterable[str]) -> LoadedConstants:
    """Return a loader of values in this process, which keeps their bytes."""
    views = {digest: constants.view(digest) for digest in digests}
    return LoadedConstants(lambda constant: views[constant.digest])


def _written(content: Content) -> tuple[str, MemoryFile]:
    try:
        file = MemoryFile.create(content.size)
        for offset, part in content:
            file.write(offset, part)
        file.seal()
        return digest_of(file.view()), file
    except OSError as error:
        raise HostsFull(
            f"this host has no room for the value's {content.size:,} bytes: about {room():,} are "
            f"free in memory or in the directory for temporary files ({error.strerror})",
            size=content.size,
            room=room(),
        ) from error
