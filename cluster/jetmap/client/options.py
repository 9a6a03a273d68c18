"""Options of ``map``, ``stream`` and ``submit``, as type checkers and editors see them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, Required, TypedDict

from jetmap.dispatch.outcomes import X, Y
from jetmap.functions.batching import BatchFunction

if TYPE_CHECKING:
    from .progress import Progress

Items = Iterable[X] | AsyncIterable[X]
# Its keyword parameters come in ``kwargs``; one that takes a list takes its elements as items.
KeywordFunction = Callable[Concatenate[X, ...], Y] | BatchFunction[X, ..., Y]


class CommonOptions(TypedDict, total=False):
    """Options of ``map`` and ``stream``."""

    kwargs: Mapping[str, Any] | None
    timeout: float | None
    labels: Mapping[str, str] | None
    max_parallel: int | None
    progress: bool | Callable[[Progress], object]


class MapOptions(CommonOptions, total=False):
    """A ``map`` that raises the first error and returns all values."""

    return_exceptions: Literal[False]
    max_failed: None
    values: Literal[True]


class ErrorOptions(CommonOptions, total=False):
    """A ``map`` that returns errors in the place of values."""

    return_exceptions: Required[bool]
    max_failed: int | str | None
    values: Literal[True]


class ToleranceOptions(CommonOptions, total=False):
    """A ``map`` that tolerates some errors, and returns them in the place of values."""

    return_exceptions: Literal[False]
    max_failed: Required[int | str]
    values: Literal[True]


class EffectOptions(CommonOptions, total=False):
    """A ``map`` that may leave values out."""

    return_exceptions: bool
    max_failed: int | str | None
    values: Required[bool]


class NamedOptions(CommonOptions, total=False):
    """A ``map`` of a function that is called by its name."""

    return_exceptions: bool
    max_failed: int | str | None
    values: bool


class _Stream(CommonOptions, total=False):
    ordered: bool
    max_failed: int | str | None


class StreamOptions(_Stream, total=False):
    """A ``stream`` that gives values."""

    values: Literal[True]


class StreamEffectOptions(_Stream, total=False):
    """A ``stream`` that may leave values out."""

    values: Required[bool]


class StreamNamedOptions(_Stream, total=False):
    """A ``stream`` of a function that is called by its name."""

    values: bool


class _Submit(TypedDict, total=False):
    kwargs: Mapping[str, Any] | None
    ttl: float | None
    timeout: float | None
    key: str | None
    labels: Mapping[str, str] | None
    max_parallel: int | None
    max_failed: int | str | None


class SubmitOptions(_Submit, total=False):
    """A job that stores values."""

    values: Literal[True]


class SubmitEffectOptions(_Submit, total=False):
    """A job that may leave values out."""

    values: Required[bool]


class SubmitNamedOptions(_Submit, total=False):
    """A job of a function that is called by its name."""

    values: bool
