"""MessagePack that keeps every type, for values without an annotation between Python programs.

MessagePack knows None, booleans, 64-bit integers, floats, text, bytes, lists and dicts. Other
values travel as an extension that names their kind, so that a tuple does not become a list, nor a
date text; a value without a kind is refused by name. A flat list of scalars is not walked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from .untyped import SCALARS, travel_hint

# The code of the extension type that has a kind and its parts.
CODE = 74
_SMALLEST, _BIGGEST = -(2**63), 2**64


@dataclass(frozen=True, slots=True)
class Kind:
    """A way for values to travel as parts.

    Attributes:
        take: Returns a value's parts, tagged.
        make: Builds the value from its parts.
        plain: Builds the value for callers in other languages, from plain parts; None for ``make``.
    """

    name: str
    take: Callable[[Any], Iterable[Any]]
    make: Callable[..., Any]
    plain: Callable[..., Any] | None = None


# Kinds by their names on the wire, and by the exact types that they carry.
KINDS: dict[str, Kind] = {}
_exact: dict[type, Kind] = {}


def register(kind: Kind, *types: type) -> None:
    KINDS[kind.name] = kind
    _exact.update(dict.fromkeys(types, kind))


def tag(value: Any) -> Any:
    """Replace the parts that MessagePack does not know by extensions.

    Raises TypeError for a value that cannot travel, RecursionError for one that contains itself.
    """
    cls = type(value)
    if cls in SCALARS:
        return value
    if cls is dict:
        if not SCALARS.issuperset(map(type, value)):
            return pack(KINDS["dict"], value)
        if SCALARS.issuperset(map(type, value.values())):
            return value
        return {key: tag(member) for key, member in value.items()}
    if cls is list:
        return tag_list(value)
    kind = _exact.get(cls)
    if kind is None:
        kind = _kind_of(value)
    return pack(kind, value)


def tag_list(values: list[Any]) -> list[Any]:
    """Tag each value; return the list itself if there is nothing to do."""
    if SCALARS.issuperset(map(type, values)):
        return values
    return [tag(value) for value in values]


def tag_outermost(value: Any) -> Any:
    """Tag a value that may nest as deeply as MessagePack allows."""
    try:
        return tag(value)
    except RecursionError:
        if _is_plain(value):
            return value
        raise


def encode_walked(value: Any, encode: Callable[[Any], bytes]) -> bytes:
    """Encode a tagged value as MessagePack; ``encode`` encodes its annotated parts."""
    try:
        return encode(value)
    except (OverflowError, UnicodeEncodeError):
        # An integer over 64 bits, or text that is not Unicode: rare, so handled only now.
        return encode(_fit(value))


def restore(code: int, data: memoryview) -> Any:
    """Build the value of an extension, for decoders of Python programs."""
    if code != CODE:
        raise ValueError(f"unknown extension type {code}")
    name, *parts = _parts(data)
    return _known(name).make(*parts)


def decode_plainly(data: bytes) -> Any:
    """Decode values for callers in other languages, as if they were plain MessagePack."""
    return _plain_parts(data)


def pack(kind: Kind, value: Any) -> Ext:
    return Ext(CODE, encode_walked([kind.name, *kind.take(value)], _encode))


def _restore_plainly(code: int, data: memoryview) -> Any:
    if code != CODE:
        raise ValueError(f"unknown extension type {code}")
    name, *parts = _plain_parts(data)
    kind = _known(name)
    return (kind.plain or kind.make)(*parts)


_encode = msgspec.msgpack.Encoder().encode
_parts = msgspec.msgpack.Decoder(ext_hook=restore).decode
_plain_parts = msgspec.msgpack.Decoder(ext_hook=_restore_plainly).decode


def _known(name: str) -> Kind:
    kind = KINDS.get(name)
    if kind is None:
        raise ValueError(
            f"a value of the kind {name!r}, which this version of jetmap does not know: use the "
            "same version everywhere"
        )
    return kind


def _kind_of(value: Any) -> Kind:
    """Find the kind of a value whose exact type has none."""
    kind = scientific_kind(value) or class_kind(value)
    if kind is None:
        raise TypeError(cannot_travel(value))
    return kind


def cannot_travel(value: Any, why: str = "") -> str:
    """Say that a value cannot travel, and what to do."""
    cls = type(value)
    module = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    name = f"{module}{cls.__qualname__}"
    do = (
        travel_hint(value)
        or why
        or "send builtins, a dataclass, or bytes of your own (pickle.dumps)"
    )
    return f"a value of type {name} cannot travel; {do}"


def _fit(value: Any) -> Any:
    """Tag integers over 64 bits and text that is not Unicode in a tagged value."""
    if isinstance(value, int):
        fits = _SMALLEST <= value < _BIGGEST
        return value if fits else pack(KINDS["int"], value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return pack(KINDS["str"], value)
        return value
    if isinstance(value, list):
        return [_fit(part) for part in value]
    if isinstance(value, dict):
        fitted = [(_fit(key), _fit(member)) for key, member in value.items()]
        if any(isinstance(key, Ext) for key, _ in fitted):
            return Ext(CODE, _encode(["dict", fitted]))
        return dict(fitted)
    return value


def _is_plain(value: Any) -> bool:
    """Return whether MessagePack knows all parts of a value, however deep; without recursion."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if type(part) in SCALARS or id(part) in seen:
            continue
        seen.add(id(part))
        if type(part) is list:
            waiting.extend(part)
        elif type(part) is dict:
            waiting.extend(part.keys())
            waiting.extend(part.values())
        else:
            return False
    return True


def items_of(pairs: Iterable[Any]) -> list[Any]:
    """Return the tagged key and value of each pair."""
    return [[tag(key), tag(member)] for key, member in pairs]


def sequence(value: Iterable[Any]) -> list[Any]:
    """Return the tagged elements, as one part."""
    return [tag_list(list(value))]


register(Kind("dict", lambda value: [items_of(value.items())], dict))

# Each module registers its kinds here.
from . import standard as standard  # noqa: E402
from . import tables as tables  # noqa: E402
from .classes import class_kind  # noqa: E402
from .scientific import scientific_kind  # noqa: E402
