"""Seals: whoever changes a chunk, or has another key, does not fit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jetmap.wire.messages import Chunk, FunctionRef
from jetmap.wire.seals import KEY_BYTES, Sealer, is_sealed, new_key, offer_of

CHUNK = Chunk(
    *("m", 1, 1, "f", "json", 0, 1, "inbox", None, 0.0),
    items=b"[1]",
    ref=FunctionRef("module", "f"),
)


def sealed(key: bytes) -> Chunk:
    chunk = msgspec.structs.replace(CHUNK)
    Sealer(key).seal(chunk)
    return chunk


def test_only_the_same_key_fits() -> None:
    key, other = new_key(), new_key()
    assert len(key) == KEY_BYTES and key != other
    assert is_sealed(sealed(key), key) and not is_sealed(sealed(key), other)
    assert not is_sealed(CHUNK, key)


@pytest.mark.parametrize(
    "change",
    [
        {"items": b"[2]"},
        {"inbox": "another"},
        {"kwargs": b"{}"},
        {"ref": FunctionRef("module", "g")},
        {"number": 2},
        {"seal": b""},
    ],
)
def test_a_changed_chunk_does_not_fit(change: dict[str, Any]) -> None:
    key = new_key()
    assert not is_sealed(msgspec.structs.replace(sealed(key), **change), key)


def test_an_offer_names_its_key_without_revealing_it() -> None:
    sealer = Sealer(key := new_key())
    assert sealer.offer == offer_of(key) and key.hex()[:8] not in sealer.offer
    sealer.renew(other := new_key())
    assert sealer.offer == offer_of(other) != offer_of(key)
    chunk = msgspec.structs.replace(CHUNK)
    sealer.seal(chunk)
    assert is_sealed(chunk, other)
