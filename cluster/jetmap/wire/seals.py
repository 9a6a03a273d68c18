"""Seals, by which the agent of a `jetmap up` recognises its own user's chunks from its machine.

`up` makes a key at each start and keeps it in the user's runtime directory (mode 0700), beside its
address. A chunk that names a function by its location, or carries it, is run only if its seal fits
that key. The seal covers the whole chunk, including the items and the caller's inbox, so that
whoever reads it on the broker can neither change it nor apply the function to other items.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from .messages import Chunk

KEY_BYTES = 32


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def offer_of(key: bytes) -> str:
    """Name the offer that takes chunks sealed with this key, without revealing the key."""
    return f"u{hashlib.sha256(b'offer' + key).hexdigest()[:11]}"


def seal_of(chunk: Chunk, key: bytes) -> bytes:
    """The seal that this chunk must carry."""
    content = msgspec.msgpack.encode(msgspec.structs.replace(chunk, seal=b""))
    return hmac.digest(key, content, "sha256")


def is_sealed(chunk: Chunk, key: bytes) -> bool:
    """Check the chunk's seal, in constant time."""
    return hmac.compare_digest(chunk.seal, seal_of(chunk, key))


class Sealer:
    """Seal the chunks of one caller for the `jetmap up` that it has joined.

    offer: the name of the offer that takes them. Both change with each start of that `up`.
    """

    def __init__(self, key: bytes) -> None:
        self.renew(key)

    def renew(self, key: bytes) -> None:
        """Use the key of the `up` that replaced the last one."""
        self._key = key
        self.offer = offer_of(key)

    def seal(self, chunk: Chunk) -> None:
        chunk.seal = seal_of(chunk, self._key)
