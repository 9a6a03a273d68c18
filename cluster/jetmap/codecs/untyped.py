"""Find the parts of a type without an annotation, and tag just those parts of a value."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from itertools import chain
from types import CoroutineType
from typing import Any

import msgspec
from msgspec import inspect

# The types that MessagePack keeps.
SCALARS = frozenset((type(None), bool, int, float, str, bytes))

_PLAIN = SCALARS | {list, dict}
# Parts of a level that are checked together, so that shared lists in lists stay cheap.
_WIDEST = 1_000_000
# Levels that are checked as a whole; deeper values are walked.
_DEEPEST = 16
# Parts, and levels, of a value that is walked because that is quicker.
_SMALL = 4

Tagger = Callable[[Any], Any]
_LISTS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
_RECORDS = (
    inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType,
)  # fmt: skip


def is_untyped(type: Any) -> bool:
    """Return whether a type allows anything."""
    return type is Any or type is object


def travel_hint(value: Any) -> str:
    """Say what to do about a value that cannot travel; "" for most."""
    if type(value) is CoroutineType:
        return "it came from an async function that nobody awaits: write def, not async def"
    return getattr(type(value), "travel_hint", "")


def tagger_for(type: Any, leaf: Tagger | None = None) -> Tagger | None:
    """Make a function that tags a value's parts without an annotation; None if there are none.

    msgspec must be able to decode the type.

    Args:
        leaf: Tags one such part; None: by a walk.
    """
    leaf = leaf or tag_walked
    if is_untyped(type):
        return leaf
    info = inspect.type_info(type)
    return _Taggers(leaf).find(info) if _is_open(info, set()) else None


@cache
def walk() -> Any:
    """Import the ``walk`` module, and all that it needs, for the first value that needs it."""
    return importlib.import_module(".walk", __package__)


def tag_walked(value: Any) -> Any:
    """Tag a value by a walk over all that it holds."""
    return walk().tag_outermost(value)


def _is_any(info: Any) -> bool:
    return isinstance(info, inspect.AnyType) or (
        isinstance(info, inspect.CustomType) and info.cls is object
    )


def _is_open(info: Any, seen: set[int]) -> bool:
    """Return whether a type has a part without an annotation; types may contain themselves."""
    if isinstance(info, (tuple, list)):
        return any(_is_open(part, seen) for part in info)
    if not isinstance(info, msgspec.Struct) or id(info) in seen:
        return False
    seen.add(id(info))
    return _is_any(info) or any(
        _is_open(getattr(info, field), seen) for field in info.__struct_fields__
    )


def is_plain_value(value: Any, levels: int = _SMALL) -> bool:
    """Return whether MessagePack keeps the types of everything in a value, as ``is_plain`` does.

    Quicker for small values; whatever is wide or deep goes to ``is_plain``.
    """
    kind = type(value)
    if kind is dict:
        if not SCALARS.issuperset(map(type, value)):
            return False
        parts = value.values()
    elif kind is list:
        parts = value
    else:
        return kind in SCALARS
    if SCALARS.issuperset(map(type, parts)):
        return True
    if not levels or len(value) > _SMALL:
        return is_plain([value])
    for part in parts:
        if type(part) not in SCALARS and not is_plain_value(part, levels - 1):
            return False
    return True


def is_plain(values: list[Any]) -> bool:
    """Return whether MessagePack keeps the types of everything in these values.

    Checks the types of a whole level at once, in a fraction of the time of a walk. Also False for
    values that are too deep, or contain themselves.
    """
    level: list[Any] = values
    for _ in range(_DEEPEST):
        kinds = set(map(type, level))
        if kinds <= SCALARS:
            return True
        if not kinds <= _PLAIN or len(level) > _WIDEST:
            return False
        below: list[Any] = []
        if dict in kinds:
            dicts = level if len(kinds) == 1 else [part for part in level if type(part) is dict]
            if not set(map(type, chain.from_iterable(dicts))) <= SCALARS:
                return False
            below.extend(chain.from_iterable(map(dict.values, dicts)))
        if list in kinds:
            lists = level if len(kinds) == 1 else [part for part in level if type(part) is list]
            below.extend(chain.from_iterable(lists))
        level = below
    return False


class _Taggers:
    """Taggers for the parts of a type, each made once, because records may contain themselves."""

    def __init__(self, leaf: Tagger) -> None:
        self._leaf = leaf
        self._known: dict[int, Tagger] = {}

    def find(self, info: Any) -> Tagger | None:
        """Return a part's tagger; None if it is annotated throughout."""
        if _is_any(info):
            return self._leaf
        if not _is_open(info, set()):
            return None
        known = self._known.get(id(info))
        if known is not None:
            return known
        made: Tagger | None = None

        def later(value: Any) -> Any:
            return made(value) if made is not None else value

        self._known[id(info)] = later
        made = self._make(info)
        return made

    def _make(self, info: Any) -> Tagger | None:
        if isinstance(info, inspect.Metadata):
            return self.find(info.type)
        if isinstance(info, _LISTS):
            return self._list(info)
        if isinstance(info, inspect.TupleType):
            return self._tuple(info)
        if isinstance(info, inspect.DictType):
            return self._dict(info)
        if isinstance(info, _RECORDS):
            return self._record(info)
        if isinstance(info, inspect.UnionType):
            return self._union(info)
        return None

    def _list(self, info: Any) -> Tagger | None:
        item = self.find(info.item_type)
        if item is None:
            return None
        if item is tag_walked:
            return lambda value: walk().tag_list(list(value)) if _iterable(value) else value
        return lambda value: [item(part) for part in value] if _iterable(value) else value

    def _tuple(self, info: inspect.TupleType) -> Tagger:
        parts = [self.find(part) or _as_it_is for part in info.item_types]

        def tag(value: Any) -> Any:
            if not _iterable(value) or len(value) != len(parts):
                return value
            return [part(member) for part, member in zip(parts, value, strict=True)]

        return tag

    def _dict(self, info: inspect.DictType) -> Tagger:
        key, member = self.find(info.key_type), self.find(info.value_type) or _as_it_is

        def tag(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            if key is not None:
                _check_keys(value)
            return {name: member(part) for name, part in value.items()}

        return tag

    def _record(self, info: Any) -> Tagger:
        parts = [(field, self.find(field.type) or _as_it_is) for field in info.fields]
        is_dict = isinstance(info, inspect.TypedDictType)
        cls = dict if is_dict else info.cls
        as_array = isinstance(info, inspect.NamedTupleType) or getattr(info, "array_like", False)
        head: dict[str, Any] = {}
        if getattr(info, "tag_field", None) is not None:
            head = {info.tag_field: info.tag}

        def tag(value: Any) -> Any:
            if not isinstance(value, cls):
                return value
            if is_dict:
                known = {field.name: part for field, part in parts}
                return {name: known.get(name, _as_it_is)(part) for name, part in value.items()}
            if as_array:
                return [
                    *head.values(),
                    *(part(getattr(value, field.name)) for field, part in parts),
                ]
            found = dict(head)
            for field, part in parts:
                member = getattr(value, field.name, msgspec.UNSET)
                if member is not msgspec.UNSET:
                    found[field.encode_name] = part(member)
            return found

        return tag

    def _union(self, info: inspect.UnionType) -> Tagger:
        """Make a tagger that chooses the branch by a value's class."""
        if any(_is_any(part) for part in info.types):
            return self._leaf
        branches = [(_classes(part), self.find(part) or _as_it_is) for part in info.types]

        def tag(value: Any) -> Any:
            for classes, branch in branches:
                if isinstance(value, classes):
                    return branch(value)
            return value

        return tag


def _classes(info: Any) -> Any:
    """Return the classes of the values in a branch of a union."""
    if isinstance(info, inspect.Metadata):
        return _classes(info.type)
    if isinstance(info, (inspect.DictType, inspect.TypedDictType)):
        return dict
    if isinstance(info, _RECORDS):
        return info.cls
    if isinstance(info, (inspect.ListType, inspect.TupleType, inspect.VarTupleType)):
        return (list, tuple)
    return (set, frozenset) if isinstance(info, _LISTS) else ()


def _as_it_is(value: Any) -> Any:
    return value


def _iterable(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _check_keys(value: dict[Any, Any]) -> None:
    """Raise TypeError for a key that MessagePack would change.

    A dict whose values are annotated travels as a map, which cannot have tagged keys.
    """
    for key in value:
        if type(key) not in SCALARS:
            raise TypeError(
                f"a key of type {type(key).__qualname__} cannot travel in a dict that is "
                "annotated without its type; annotate it: dict[type of the key, …]"
            )
