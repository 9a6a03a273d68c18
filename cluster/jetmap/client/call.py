"""A call of a function: codecs for its items and values, and its encoded keyword parameters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from jetmap.codecs import Codec, codec_for
from jetmap.codecs.native import encode_tagged
from jetmap.dispatch.objects import AsyncObjects, Objects
from jetmap.dispatch.outcomes import Batch, Decoded, item_error
from jetmap.errors import ItemError, TooLarge, Unencodable
from jetmap.functions.by_name import OpenParts
from jetmap.functions.function import Function
from jetmap.functions.kwargs import misfit, open_parameters
from jetmap.functions.task import find, find_named
from jetmap.wire import arrays
from jetmap.wire.constants import unpack_kwargs
from jetmap.wire.messages import Format

from .refs import Refs, pack_refs, without_refs

if TYPE_CHECKING:
    from jetmap.wire.presence import FunctionInfo

# Where pickled values go: to workers that have this process's script, or to other hosts.
Pickles = Literal["near", "far"]
# Items of a list to prepare before other tasks get a turn.
_PREPARED_AT_ONCE = 2048


class Call(msgspec.Struct, frozen=True):
    """A function with keyword parameters, ready to be called on items.

    Attributes:
        name: The function's registered name.
        function: The function; None if it is called by a name that this process does not know.
        item: Codec of items.
        value: Codec of values.
        kwargs: Encoded keyword parameters; empty if there are none.
        format: Encoding of items, keyword parameters and values: "msgpack" if all of them are
            annotated, else "pickle" between those who trust each other, else "python".
        item_format: Encoding in which items are written. It may be simpler than ``format`` if the
            function is called by name.
        open_parts: Parts of an item without annotation, which are checked before the item
            travels; None if the format keeps all types.
        trusted: Whether pickles that come back may be loaded.
        has_values: Whether the function's values come back; else each is None.
        refs: The keyword parameters whose values have been put.
    """

    name: str
    function: Function | None
    item: Codec
    value: Codec
    kwargs: bytes
    format: Format
    item_format: Format
    open_parts: OpenParts | None = None
    trusted: bool = False
    has_values: bool = True
    refs: Refs = {}

    @classmethod
    def of(
        cls,
        f: Callable[..., Any] | str,
        kwargs: Mapping[str, Any] | None,
        *,
        local: bool = False,
        info: Callable[[str], FunctionInfo | None] = lambda name: None,
        trusted: bool = False,
        pickles: Callable[[str], Pickles | None] = lambda name: None,
    ) -> Call:
        """Make the call of a function. If it is called by name, values decode to built-in types.

        Args:
            local: A name must be a function of this process.
            info: Returns how workers describe the function of a name.
            trusted: Whether pickles that come back may be loaded.
            pickles: Returns where pickled values of a function go; None: nowhere.

        Raises:
            TypeError: ``f`` is not a @task, or the keyword parameters do not fit it.
            UnknownFunction: This process has no function of this name (with ``local``).
        """
        values, refs = without_refs(kwargs)
        function = find(f)
        if isinstance(f, str):
            if function is None and local:
                function = find_named(f)
            call = cls._by_name(f, function if local else None, values, info(f), trusted)
            if call.format == "python" and pickles(f) is not None:
                call = call._pickling_by_name()
            return call if not refs else call._with_refs(refs)
        assert function is not None
        function.refresh()
        format: Format = "msgpack"
        typed = function
        if function.untyped:
            format = "python"
            if (where := pickles(function.name)) is not None:
                format, typed = "pickle", function.pickling(far=where == "far")
        return cls(
            function.name,
            function,
            typed.item,
            typed.value,
            _encode(typed, values, format, refs),
            format,
            format,
            trusted=trusted,
            refs=refs,
        )

    @classmethod
    def _by_name(
        cls,
        name: str,
        function: Function | None,
        kwargs: Mapping[str, Any],
        info: FunctionInfo | None,
        trusted: bool,
    ) -> Call:
        anything = codec_for(Any)
        untyped = info.untyped if info is not None else []
        format: Format = "python" if untyped else "msgpack"
        encoded = b""
        if kwargs:
            open = open_parameters(info) if info is not None and "kwargs" in untyped else set()
            if info is None or "kwargs" in untyped:
                _check_parts(name, kwargs, info, open)
            # What has an annotation there decodes from plain MessagePack.
            prepared = {
                key: anything.prepare([value], "python")[0] if key in open else value
                for key, value in kwargs.items()
            }
            encoded = encode_tagged(prepared) if open else anything.encode(prepared, "msgpack")
        is_open = info is not None and "item" in untyped and not info.item
        item_format: Format = "python" if is_open else "msgpack"
        parts = None
        if not is_open and (info is None or "item" in untyped):
            schema = {} if info is None else info.item
            parts = OpenParts(f"an item of {name}", schema, schema.get("$defs", {}))
        return cls(name, function, anything, anything, encoded, format, item_format, parts, trusted)

    @classmethod
    def reading(cls, f: Callable[..., Any] | str | None, *, trusted: bool = False) -> Call:
        """Make the call whose values a job already has.

        Args:
            f: The function, whose annotated type the values get. None, or a name: built-in types.
            trusted: Whether pickles among the outcomes may be loaded.

        Raises:
            TypeError: ``f`` is not a @task.
        """
        if f is None or isinstance(f, str):
            anything = anything_pickled() if trusted else codec_for(Any)
            return cls(f or "", None, anything, anything, b"", "python", "python", trusted=trusted)
        function = find(f)
        assert function is not None
        function.refresh()
        format: Format = "python" if function.untyped else "msgpack"
        typed = function.pickling(far=True) if trusted and function.untyped else function
        return cls(
            function.name,
            function,
            typed.item,
            typed.value,
            b"",
            format,
            format,
            trusted=trusted,
        )

    def _pickling_by_name(self) -> Call:
        """Return the same call with the format "pickle", where the item allows it."""
        anything = anything_pickled()
        changes: dict[str, Any] = {"value": anything, "format": "pickle"}
        if self.item_format == "python":
            changes |= {"item": anything, "item_format": "pickle"}
        return msgspec.structs.replace(self, **changes)

    def _with_refs(self, refs: Refs) -> Call:
        return msgspec.structs.replace(self, kwargs=pack_refs(self.kwargs, refs), refs=refs)

    def without_values(self) -> Call:
        """Return the same call for its side effects only."""
        return msgspec.structs.replace(self, has_values=False)

    def check(self, info: FunctionInfo | None) -> None:
        """Raise TypeError if keyword parameters of a function called by name do not fit it.

        Args:
            info: How its workers describe the function; None if nobody does.
        """
        if info is None:
            return
        encoded = self.kwargs if not self.refs else unpack_kwargs(self.kwargs).rest
        kwargs = self.value.decode(encoded, self.format) if encoded else {}
        kwargs |= self.refs
        found = misfit(info, kwargs, names_only=True)
        if found is not None:
            raise TypeError(f"keyword parameters of {self.name}: {found.message}")

    async def prepared(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return a whole list, ready to be encoded, so that a bad item is found before any runs.

        Raises Unencodable, with the index of the item that cannot travel.
        """
        keeps = self.item_format == "msgpack" or not self.item.is_open
        # Items of an unknown function pass: opening the map raises UnknownFunction.
        if keeps and (self.open_parts is None or self.open_parts.is_unknown):
            return items
        ready: list[Any] = []
        for start in range(0, len(items), _PREPARED_AT_ONCE):
            ready += self._prepare(list(items[start : start + _PREPARED_AT_ONCE]), start)
            if len(items) > len(ready):
                await asyncio.sleep(0)
        return ready

    def _prepare(self, items: list[Any], start: int) -> list[Any]:
        try:
            return self._checked(items)
        except Exception:
            for index, item in enumerate(items, start):
                try:
                    self._checked([item])
                except Exception as error:
                    message = f"the item cannot be encoded: {error}"
                    raise Unencodable(index, type(error).__name__, message) from error
            raise

    def _checked(self, items: list[Any]) -> list[Any]:
        if self.open_parts is not None:
            self.open_parts.check(items)
        return self.item.prepare(items, self.item_format)

    def _encode_list(self, items: list[Any], format: Format) -> bytes:
        return self.item.encode_prepared(self._checked(items), format)

    def _encode_apart(self, items: list[Any], format: Format) -> bytes:
        return arrays.join([self.item.encode(item, format) for item in items], format)

    def source(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        keep: bool,
        max_item: int,
        prepared: bool = False,
        apart: bool = False,
    ) -> Objects:
        """Make the source of a map's items.

        Args:
            keep: Keep the items for their outcomes.
            max_item: Bytes of one encoded item, at most.
            prepared: The items come from ``prepared``.
            apart: Encode each item for itself, so that it can be stored alone.
        """
        whole = self.item.encode_list if self.open_parts is None else self._encode_list
        is_checked = self.open_parts is None or not self.open_parts.is_unknown
        if apart and self.item_format == "pickle":
            whole = self._encode_apart
        encode = self.item.encode_prepared if prepared and is_checked else whole
        encode = partial(encode, format=self.item_format)
        scatters = self.open_parts is None and not apart and self.item.keeps_bytes
        options: dict[str, Any] = {"keep": keep, "max_item": max_item, "scatters": scatters}
        if isinstance(items, AsyncIterable):
            return AsyncObjects(items, encode, **options)
        return Objects(items, encode, **options)

    def decode_owned(self, values: memoryview) -> list[Any] | None:
        """Decode values from memory that changes later; None if they have to be copied first."""
        if not self.has_values or (self.format == "pickle" and not self.trusted):
            return None
        return self.value.decode_owned(values, self.format)

    def values(self, batch: Batch, format: Format | None = None) -> list[Any]:
        """Decode a batch's values, with an ItemError in the place of each failed item."""
        if isinstance(batch.values, Decoded):
            return batch.values.values
        format = format or self.format
        if not self.has_values:
            return self._nothing(batch)
        if format == "pickle" and not self.trusted:
            return self._nothing(batch, self._unreadable)
        if not batch.errors:
            try:
                return self.value.decode_list(batch.values, format)
            except (Exception, SystemExit):
                # A value does not fit the function's annotation, or cannot be unpickled: find it.
                pass
        errors = {record.index: item_error(record, trusted=self.trusted) for record in batch.errors}
        return [
            errors.get(index) or self._value(index, bytes(raw), format)
            for index, raw in enumerate(arrays.split(batch.values, format), batch.start)
        ]

    def failed(self, batch: Batch, values: list[Any]) -> ItemError | None:
        """Return the first error among the values of a batch.

        Those of an annotated type that were decoded in place have none, and are not looked at.
        """
        if isinstance(batch.values, Decoded) and not self.value.is_open:
            return None
        return first_error(values)

    def _nothing(self, batch: Batch, make: Callable[[int], Any] = lambda index: None) -> list[Any]:
        """Return what ``make`` makes for each item of a batch, or its error."""
        values = list(map(make, range(batch.start, batch.start + batch.count)))
        for record in batch.errors:
            values[record.index - batch.start] = item_error(record, trusted=self.trusted)
        return values

    def _unreadable(self, index: int) -> Unencodable:
        message = (
            f"{self.name or 'the function'} returned a pickled value, and this process does not "
            "load pickles; use Cluster(trust_pickle=True) if you trust all who may write them, or "
            "annotate what the function returns"
        )
        return Unencodable(index, "PermissionError", message)

    def _value(self, index: int, raw: bytes, format: Format) -> Any:
        try:
            return self.value.decode(raw, format)
        except (Exception, SystemExit) as error:  # Unpickling runs code of the value's class.
            what = "cannot be read here" if self.value.is_open else "does not fit its annotation"
            message = f"{self.name} returned a value that {what}: {error}"
            return Unencodable(index, type(error).__name__, message)


def anything_pickled() -> Codec:
    """Return the codec of the format "pickle" for values of an unknown type."""
    from jetmap.functions.pickled import PickledCodec
    from jetmap.functions.picklers import Home

    return PickledCodec(Home())


def _check_parts(
    name: str, kwargs: Mapping[str, Any], info: FunctionInfo | None, open: set[str]
) -> None:
    """Raise TypeError for a keyword argument that would change on its way.

    Args:
        open: Names of the parameters whose types are kept.
    """
    document = {} if info is None else info.kwargs
    definitions = document.get("$defs", {})
    top = definitions.get(document.get("$ref", "").split("/")[-1], document)
    for key, value in kwargs.items():
        if key not in open:
            schema = top.get("properties", {}).get(key, {})
            OpenParts(f"keyword parameter {key!r} of {name}", schema, definitions).check([value])


async def listed(items: Iterable[Any] | AsyncIterable[Any], limit: int) -> Sequence[Any]:
    """Return all items. Raises TooLarge, having taken no more than one item over the limit."""
    found: Sequence[Any]
    if isinstance(items, Sequence):
        found = items
    elif isinstance(items, AsyncIterable):
        found = taken = []
        async for item in items:
            taken.append(item)
            if len(taken) > limit:
                break
    else:
        found = list(islice(items, limit + 1))
    if len(found) > limit:
        at_least = "" if found is items else " or more"
        raise TooLarge(
            f"the list has {len(found):,} items{at_least}; the limit is {limit:,} "
            "(setting max_list). stream() takes any number",
            setting="max_list",
            limit=limit,
            value=len(found),
        )
    return found


def first_error(values: Sequence[Any]) -> ItemError | None:
    """Return the first error among decoded values."""
    # There may be a million values, but they are of few types.
    failed = {cls for cls in set(map(type, values)) if issubclass(cls, ItemError)}
    return next((value for value in values if type(value) in failed), None) if failed else None


def _encode(function: Function, kwargs: Mapping[str, Any], format: Format, refs: Refs) -> bytes:
    for name, mark in function.per_worker.items():
        if name in kwargs or name in refs:
            raise TypeError(
                f"{name!r} of {function.name}() is made by each worker, by {mark!r}: leave it out "
                "of kwargs"
            )
    try:
        codec = function.kwargs_without(refs) if refs else function.kwargs
        encoded = codec.encode(dict(kwargs), format) if kwargs else b""
        codec.decode(encoded, format)
    except Exception as error:  # Of any kind, if a pickle is loaded.
        raise TypeError(f"keyword parameters of {function.name}: {error}") from error
    return pack_refs(encoded, refs) if refs else encoded
