"""Convert between Python values and bytes, by a function's annotated types.

msgspec handles all types that it knows, pydantic handles models and constraints (it is imported
only when a type needs it). Both are strict: neither ``7.0`` nor ``"7"`` is an ``int``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .native import NativeCodec, NativeKwargs, Tags
from .types import needs_pydantic, unknown_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetmap.wire.messages import Format

__all__ = ["Codec", "Parameter", "Tags", "codec_for", "kwargs_codec"]


class Codec(Protocol):
    """A decoder and encoder for values of one type.

    Attributes:
        is_open: Whether the type has a part without an annotation, or one that may lose something.
            If so, the format "python" keeps that part or refuses it; otherwise it is the same as
            "msgpack".
        keeps_bytes: Whether bytes are encoded as bytes in every format but JSON.
        runs_code: Whether decoding or encoding may run code of users, which may take any time.

    Decoding raises ValueError for bytes that are malformed or do not fit, RecursionError for
    nesting too deep. Encoding raises TypeError for a value that cannot travel, ValueError for
    NaN or infinity in JSON, OverflowError for integers over 64 bits in MessagePack.
    """

    is_open: bool

    @property
    def keeps_bytes(self) -> bool: ...

    @property
    def runs_code(self) -> bool: ...

    def decode_list(self, data: bytes, format: Format) -> list[Any]:
        """Decode one encoded array of items."""
        ...

    def decode_late(self, data: bytes, format: Format) -> list[Any]:
        """Decode one encoded array; items that may run code of users stay ``Delayed``."""
        ...

    def decode_owned(self, data: memoryview, format: Format) -> list[Any] | None:
        """Decode one array from memory that others write to; None if it has to be copied first.

        That is so if decoding may run code of users, or if values would share the bytes.
        """
        ...

    def decode(self, data: bytes, format: Format) -> Any: ...

    def prepare(self, values: list[Any], format: Format) -> list[Any]:
        """Do the part of encoding that may raise TypeError; ``encode_prepared`` does the rest."""
        ...

    def encode_prepared(self, values: list[Any], format: Format) -> bytes: ...

    def encode_list(self, values: list[Any], format: Format) -> bytes: ...

    def encode(self, value: Any, format: Format) -> bytes: ...

    def is_quick(self, value: Any) -> bool:
        """Return whether encoding a value runs no code of users."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the type's JSON Schema document; an empty one allows anything."""
        ...


class Parameter(msgspec.Struct, frozen=True):
    """A keyword-only parameter; its default appears in the schema only."""

    name: str
    type: Any
    optional: bool = False
    default: Any = None


def codec_for(type: Any, *, output: bool = False, tags: Tags | None = None) -> Codec:
    """Make the codec of a type.

    Args:
        output: Whether its schema describes encoded values; otherwise values to be decoded.
        tags: A way to travel for parts without an annotation; None: by a walk.

    Raises:
        TypeError: Neither msgspec nor pydantic can decode the type.
    """
    if needs_pydantic(type):
        from .models import ModelCodec

        return ModelCodec(type, output=output)
    codec = NativeCodec(type, tags)
    unknown = unknown_class(type)
    if unknown is None:
        return codec
    # Paths, addresses, patterns, complex numbers …: pydantic knows more than msgspec.
    from .models import ModelCodec

    try:
        return ModelCodec(type, output=output)
    except TypeError:
        raise TypeError(
            f"{unknown.__qualname__} cannot travel; use builtins, dataclasses, msgspec structs "
            "or pydantic models"
        ) from None


def kwargs_codec(name: str, parameters: Sequence[Parameter], tags: Tags | None = None) -> Codec:
    """Make the codec of an object with exactly these members; its values are dicts.

    Empty bytes decode as an empty object. Raises TypeError as ``codec_for`` does.
    """
    types = [parameter.type for parameter in parameters]
    if any(needs_pydantic(type) or unknown_class(type) is not None for type in types):
        from .models import ModelKwargs

        return ModelKwargs(name, parameters)
    return NativeKwargs(name, parameters, tags)
