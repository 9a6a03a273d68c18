"""Items that are decoded later, because decoding them may run code of users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jetmap.wire import arrays

if TYPE_CHECKING:
    from jetmap.codecs import Codec
    from jetmap.wire.messages import Format


class Delayed:
    """An item that is still encoded."""

    __slots__ = ("_codec", "_data", "_format")

    def __init__(self, codec: Codec, data: bytes, format: Format) -> None:
        self._codec = codec
        self._data = data
        self._format = format

    def load(self) -> Any:
        """Decode the item. Raises whatever that raises."""
        return self._codec.decode(self._data, self._format)


def delayed(codec: Codec, data: bytes, format: Format) -> list[Any]:
    """Return the items of one encoded array, without decoding any."""
    return [Delayed(codec, bytes(raw), format) for raw in arrays.split(data, format)]
