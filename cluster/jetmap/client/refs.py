"""Values that are put once, for all calls that use them."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from jetmap.functions.advice import check_kwarg_names
from jetmap.wire.constants import Constant, pack_kwargs
from jetmap.wire.versions import pickles

if TYPE_CHECKING:
    from jetmap.dispatch.constants import KeptConstants

# Bytes of encoded keyword parameters above which they are put, too.
LARGE_KWARGS = 100_000

T = TypeVar("T")


class Ref(Generic[T]):
    """A value that was put into a cluster; functions get it as a keyword argument.

    Give it in ``kwargs`` of a map, stream or job of the same cluster. The hosts keep the value
    until this reference is closed or gone, and the maps that use it have ended. ``with`` closes it
    at the end of the block.

    Attributes:
        size: Bytes that the value takes on each host.
    """

    travel_hint = (
        "give it in kwargs, by itself, as in map(f, items, kwargs={'table': ref}); the function "
        "gets the value"
    )

    def __init__(self, constants: KeptConstants, constant: Constant, *, is_pickled: bool) -> None:
        self.size = constant.size
        self._constants = constants
        self._constant = constant
        self._is_pickled = is_pickled
        release = asyncio.get_running_loop(), os.getpid(), constants, constant.digest
        self._end = weakref.finalize(self, _release, *release)
        self._end.atexit = False

    @property
    def is_closed(self) -> bool:
        """Return whether no further call can use the value."""
        return not self._end.alive or self._constant.digest not in self._constants

    def close(self) -> None:
        """Let the hosts drop the value once no map uses it. A second call does nothing."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else f"{self.size:,} bytes"
        return f"<Ref {self._constant.digest[:12]}, {state}>"

    @property
    def stored(self) -> tuple[Constant, memoryview]:
        """The value as it is stored for a job. Raises KeyError if this is closed."""
        return self._constant, self._constants.view(self._constant.digest)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a Ref cannot travel; {self.travel_hint}")


def _release(
    loop: asyncio.AbstractEventLoop, pid: int, constants: KeptConstants, digest: str
) -> None:
    """Release a constant in its event loop; any thread may call this."""
    if pid != os.getpid() or loop.is_closed():
        return
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        constants.release([digest])
    else:
        loop.call_soon_threadsafe(constants.release, [digest])


Refs = dict[str, Ref[Any]]


def without_refs(kwargs: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], Refs]:
    """Return the keyword arguments that are values, and those that are references.

    Raises TypeError for anything but a mapping.
    """
    check_kwarg_names(kwargs)
    if not kwargs:
        return {}, {}
    refs = {name: value for name, value in kwargs.items() if isinstance(value, Ref)}
    if not refs:
        return kwargs, refs
    return {name: value for name, value in kwargs.items() if name not in refs}, refs


def pack_refs(rest: bytes, refs: Refs) -> bytes:
    """Encode keyword parameters with references among them."""
    constants = {name: ref._constant for name, ref in refs.items()}
    return pack_kwargs(rest, constants, pickles() if are_pickled(refs) else "")


def digests_of(refs: Refs, constants: KeptConstants) -> tuple[str, ...]:
    """Return the digests of references.

    Raises:
        ValueError: One is closed, or was put into another cluster.
    """
    for name, ref in refs.items():
        if ref._constants is not constants:
            raise ValueError(
                f"the Ref for {name!r} was put into another cluster: put the value into this one"
            )
        if ref.is_closed:
            raise ValueError(f"the Ref for {name!r} is closed: put the value again")
    return tuple({ref._constant.digest for ref in refs.values()})


def are_pickled(refs: Refs) -> bool:
    """Return whether workers must load a pickle to have one of the values."""
    return any(ref._is_pickled for ref in refs.values())
