"""Runs: consecutive elements of an array in one pickle, which nobody here loads.

A run is one MessagePack extension in the place of its elements. Splitting an array gives a slice
for each element; joining slices of the same run gives a shorter run with the same pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

CODE = 75  # Code of the extension type.
_CODE = bytes((CODE,))
_EXTENSIONS = frozenset((*range(0xC7, 0xCA), *range(0xD4, 0xD9)))  # First bytes of extensions.


class Run(msgspec.Struct, array_like=True):
    """A pickled list whose elements from ``start`` to ``stop`` count.

    buffers: those that the pickle leaves out.
    """

    start: int
    stop: int
    pickle: memoryview
    buffers: list[memoryview]


class Slice:
    """One element of a run."""

    __slots__ = ("at", "run")

    def __init__(self, run: Run, at: int) -> None:
        self.run = run
        self.at = at

    def __bytes__(self) -> bytes:
        return _encoded(self.run, self.at, self.at + 1)


RunElement = bytes | msgspec.Raw | Slice

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_run = msgspec.msgpack.Decoder(Run).decode


def read(data: memoryview) -> Run:
    """Read a run from the content of its extension; its parts share the bytes."""
    return _run(data)


def write(
    start: int, stop: int, pickle: bytes | memoryview, buffers: Sequence[memoryview]
) -> bytes:
    """Encode a run as an element of an array."""
    if not buffers:
        return _encode(msgspec.msgpack.Ext(CODE, _encode((start, stop, pickle, ()))))
    before = b"\x94" + _encode(start) + _encode(stop) + _head(0xC4, len(pickle))
    parts: list[bytes | memoryview] = [before, pickle, _head(0xDC, len(buffers))]
    for buffer in buffers:
        parts += (_head(0xC4, buffer.nbytes), buffer)
    size = sum([part.nbytes if type(part) is memoryview else len(part) for part in parts])
    return b"".join((_head(0xC7, size), _CODE, *parts))


def split(elements: Iterable[msgspec.Raw]) -> list[RunElement]:
    """Return each element of an array that may have runs."""
    found: list[RunElement] = []
    for element in elements:
        run = _run_of(element)
        if run is None or run.stop - run.start == 1:
            found.append(element)
        else:
            found += [Slice(run, at) for at in range(run.start, run.stop)]
    return found


def merge(elements: Iterable[RunElement]) -> list[bytes | msgspec.Raw]:
    """Return what an array of these elements holds: slices that follow each other as one run."""
    merged: list[bytes | msgspec.Raw] = []
    run: Run | None = None
    start = stop = 0
    for element in elements:
        if type(element) is Slice and element.run is run and element.at == stop:
            stop += 1
            continue
        if run is not None:
            merged.append(_encoded(run, start, stop))
            run = None
        if type(element) is Slice:
            run, start, stop = element.run, element.at, element.at + 1
        else:
            merged.append(cast("bytes | msgspec.Raw", element))
    if run is not None:
        merged.append(_encoded(run, start, stop))
    return merged


def _encoded(run: Run, start: int, stop: int) -> bytes:
    return write(start, stop, run.pickle, run.buffers)


def _run_of(element: msgspec.Raw) -> Run | None:
    if memoryview(element)[0] not in _EXTENSIONS:
        return None
    extension = _decode(element)
    return read(memoryview(extension.data)) if extension.code == CODE else None


def _head(first: int, size: int) -> bytes:
    """Return the head of bytes, an array or an extension, whose shortest form begins so.

    Arrays have no form with a size of one byte.
    """
    if first == 0xDC:
        if size < 1 << 16:
            return b"\xdc" + size.to_bytes(2, "big")
        return b"\xdd" + size.to_bytes(4, "big")
    if size < 1 << 8:
        return bytes((first, size))
    if size < 1 << 16:
        return bytes((first + 1,)) + size.to_bytes(2, "big")
    return bytes((first + 2,)) + size.to_bytes(4, "big")
