"""A call of a function, made ready to travel: its codecs, its keyword parameters, its source."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jetmap import arrays
from jetmap.codecs import Codec, codec_for
from jetmap.dispatch.outcome import Batch
from jetmap.dispatch.sources import AsyncObjects, Objects
from jetmap.errors import ItemError, Unencodable, item_error
from jetmap.functions import Function
from jetmap.keywords import misfit
from jetmap.messages import Format, FunctionInfo
from jetmap.tasks import find

# Python callers: bytes and NaN survive, integers have 64 bits.
FORMAT: Format = "msgpack"


@dataclass(frozen=True)
class Call:
    """function: None when it is called by a name that this process does not know."""

    name: str
    function: Function | None
    item: Codec
    value: Codec
    kwargs: bytes

    @classmethod
    def of(
        cls, f: Callable[..., Any] | str, kwargs: Mapping[str, Any] | None, *, local: bool = False
    ) -> Call:
        """Raises TypeError: f is no @task, or the keyword parameters do not fit it.

        local: a name must be a function of this process. Called by name, values decode to
        builtins.
        """
        function = find(f)
        if isinstance(f, str):
            if function is None and local:
                from jetmap.errors import UnknownFunction

                raise UnknownFunction(f"no function {f!r} is registered in this process")
            anything = codec_for(Any)
            encoded = anything.encode(dict(kwargs), FORMAT) if kwargs else b""
            return cls(f, function if local else None, anything, anything, encoded)
        assert function is not None
        function.refresh()
        return cls(
            function.name, function, function.item, function.value, _encode(function, kwargs or {})
        )

    @classmethod
    def reading(cls, f: Callable[..., Any] | str | None) -> Call:
        """For values that are there already: of a function, or (None, a name) builtins.

        Raises TypeError: f is no @task.
        """
        anything = codec_for(Any)
        if f is None or isinstance(f, str):
            return cls(f or "", None, anything, anything, b"")
        function = find(f)
        assert function is not None
        function.refresh()
        return cls(function.name, function, function.item, function.value, b"")

    def check(self, info: FunctionInfo | None) -> None:
        """Raises TypeError: keyword parameters of a function that is called by name are not those
        that its workers announce."""
        if info is None:
            return
        kwargs = self.item.decode(self.kwargs, FORMAT) if self.kwargs else {}
        found = misfit(info, kwargs, names_only=True)
        if found is not None:
            raise TypeError(f"keyword parameters of {self.name}: {found.message}")

    def source(
        self, items: Iterable[Any] | AsyncIterable[Any], *, keep: bool, max_item: int
    ) -> Objects:
        """keep: whether outcomes will ask for their items."""
        encode = partial(self.item.encode_list, format=FORMAT)
        if isinstance(items, AsyncIterable):
            return AsyncObjects(items, encode, keep=keep, max_item=max_item)
        return Objects(items, encode, keep=keep, max_item=max_item)

    def values(self, batch: Batch, format: Format = FORMAT) -> list[Any]:
        """The batch's values, with an ItemError in the place of each failed item's."""
        if not batch.errors:
            try:
                return self.value.decode_list(batch.values, format)
            except Exception:
                # Some value is not what the function's annotation says: found below.
                pass
        errors = {record.index: item_error(record) for record in batch.errors}
        return [
            errors.get(index) or self._value(index, bytes(raw), format)
            for index, raw in enumerate(arrays.split(batch.values, format), batch.start)
        ]

    def _value(self, index: int, raw: bytes, format: Format) -> Any:
        try:
            return self.value.decode(raw, format)
        except Exception as error:
            message = f"{self.name} returned a value that does not fit its annotation: {error}"
            return Unencodable(index, type(error).__name__, message)


def first_error(values: Iterable[Any]) -> ItemError | None:
    return next((value for value in values if isinstance(value, ItemError)), None)


def _encode(function: Function, kwargs: Mapping[str, Any]) -> bytes:
    try:
        encoded = function.kwargs.encode(dict(kwargs), FORMAT) if kwargs else b""
        function.kwargs.decode(encoded, FORMAT)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"keyword parameters of {function.name}: {error}") from error
    return encoded
