"""Constants: values that a caller puts once, and that functions get as keyword arguments.

Chunks carry the digest of each; an agent fetches the bytes once for its host. The keyword
parameters of such a map begin with a byte that neither MessagePack nor JSON begins with, so that
workers of earlier releases refuse them, instead of calling the function without.
"""

from __future__ import annotations

import hashlib

import msgspec

from .memory_files import FilePlace
from .messages import CONSTANTS_MARK, WireMessage

WHOLE = ""  # The parameter's name if the constant is all keyword parameters, encoded.
# The number in requests for parts of a constant, which have that of a chunk otherwise.
NUMBER = -1


class Constant(WireMessage):
    """A value: the digest of its bytes, and how many they are."""

    digest: str
    size: int


class Kwargs(WireMessage):
    """Keyword parameters with constants among them.

    rest: the others, encoded. constants: by parameter. pickles: the versions that can load them;
    empty if none is pickled.
    """

    rest: bytes
    constants: dict[str, Constant]
    pickles: str = ""


class ConstantsAsk(WireMessage):
    """A question of an agent to a dispatcher: which of these are still needed, and where are they?

    It also says that the agent has them, or wants them. inbox: for the answer.
    """

    inbox: str
    digests: list[str]


class ConstantsAnswer(WireMessage):
    """An answer to ``ConstantsAsk``, or a notice that some are not needed any more.

    places: of those that are needed, for agents on the host of the dispatcher. unwanted: the
    others.
    """

    dispatcher: str
    places: dict[str, FilePlace]
    unwanted: list[str]


class Given(msgspec.Struct, frozen=True):
    """Notice to a worker: where a constant is, or why it cannot be had."""

    digest: str
    size: int
    place: FilePlace | None
    refusal: str = ""


_kwargs = msgspec.msgpack.Decoder(Kwargs).decode
_bytes = msgspec.msgpack.Decoder(bytes).decode


def pack_kwargs(rest: bytes, constants: dict[str, Constant], pickles: str = "") -> bytes:
    """Encode keyword parameters with constants among them."""
    return CONSTANTS_MARK + msgspec.msgpack.encode(Kwargs(rest, constants, pickles))


def unpack_kwargs(kwargs: bytes) -> Kwargs:
    """Decode keyword parameters, with or without constants."""
    if kwargs[:1] != CONSTANTS_MARK:
        return Kwargs(kwargs, {})
    return _kwargs(memoryview(kwargs)[1:])


def found_in(kwargs: msgspec.Raw) -> list[Constant]:
    """Return the constants in the encoded field of a chunk."""
    head = bytes(memoryview(kwargs)[:6])
    start = {0xC4: 2, 0xC5: 3, 0xC6: 5}.get(head[0], len(head))
    if head[start : start + 1] != CONSTANTS_MARK:
        return []
    return list(unpack_kwargs(_bytes(kwargs)).constants.values())


def digest_of(data: memoryview) -> str:
    """Return the digest by which the same content is found again. It takes a second for 1 GB."""
    return hashlib.sha256(data).hexdigest()
