"""Errors: their families and documentation, their way through pickle, their texts."""

from __future__ import annotations

import copy
import pickle
import re
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import jetmap
from jetmap import errors
from jetmap.dispatch.outcomes import item_error
from jetmap.errors import (
    ITEM_ERRORS,
    BadInput,
    ConfigurationError,
    Fault,
    ItemError,
    JetmapError,
    JobError,
    KeyBusy,
    LimitExceeded,
    Malformed,
    MapTimeout,
    NoRoom,
    NoWorkers,
    Retryable,
    StoreFull,
    TooLarge,
    TooManyMaps,
    WorkerLost,
)
from jetmap.wire.messages import ErrorRecord

FAMILIES: tuple[type[JetmapError], ...] = (Retryable, BadInput, Fault)
GROUPS = (JetmapError, ItemError, JobError, LimitExceeded)
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type)]
ERRORS = [cls for cls in CLASSES if cls.__module__ == errors.__name__]
RAISED = [cls for cls in ERRORS if cls not in GROUPS and cls not in FAMILIES]

DETAIL = {"signal": 9, "exit_code": None, "peak_memory": 1 << 20, "attempts": 2, "host": "h"}


def again(error: BaseException) -> list[BaseException]:
    pickled = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)]
    return [*pickled, copy.copy(error), copy.deepcopy(error)]


@pytest.mark.parametrize("kind", ITEM_ERRORS)
def test_an_items_error_survives_pickling(kind: str) -> None:
    record = ErrorRecord(3, kind, "ValueError", "no 3", "Traceback …", DETAIL)
    error = item_error(record)
    assert type(error) is ITEM_ERRORS[kind]
    for other in again(error):
        assert type(other) is type(error)
        assert isinstance(other, ItemError)
        assert (other.index, other.kind, other.type) == (3, kind, "ValueError")
        assert (other.message, other.traceback) == ("no 3", "Traceback …")
        assert (other.detail, other.args) == (DETAIL, error.args)
        assert str(other) == "item 3: ValueError: no 3\n\nTraceback …"


@pytest.mark.parametrize("kind", ITEM_ERRORS)
def test_an_items_error_prints_what_went_wrong(kind: str) -> None:
    error = item_error(ErrorRecord(0, kind, "KeyError", "'x'"))
    assert str(error) == "item 0: KeyError: 'x'"
    assert repr(error) == f"{type(error).__name__}(\"item 0: KeyError: 'x'\")"
    assert (error.traceback, error.detail) == (None, {})


def test_what_is_known_of_an_unknown_kind() -> None:
    error = item_error(ErrorRecord(1, "new", "X", "text"))
    assert type(error) is ItemError
    assert error.index == 1


def test_item_errors_are_built_in_ones_too() -> None:
    slow = item_error(ErrorRecord(7, "timeout", "TimeoutError", "too slow"))
    assert isinstance(slow, TimeoutError)
    assert (slow.errno, slow.strerror, slow.filename) == (None, None, None)
    lost = item_error(ErrorRecord(7, "lost", "WorkerLost", "killed", None, DETAIL))
    assert isinstance(lost, BrokenProcessPool)
    assert isinstance(lost, WorkerLost)
    assert (lost.signal, lost.exit_code, lost.peak_memory) == (9, None, 1 << 20)
    assert (lost.attempts, lost.host) == (2, "h")


@pytest.mark.parametrize(
    "error",
    [
        TooLarge("too long", setting="max_list", limit=3, value=4),
        TooManyMaps("enough", setting="max_open_maps", limit=2),
        Malformed("no JSON in line 2, at byte 5", 5, 2),
        ConfigurationError(["one is wrong", "so is another"]),
        MapTimeout("the map did not end within its timeout of 5 s"),
    ],
)
def test_other_errors_survive_pickling(error: JetmapError) -> None:
    for other in again(error):
        assert type(other) is type(error)
        assert (str(other), repr(other)) == (str(error), repr(error))
        assert vars(other) == vars(error)


@pytest.mark.parametrize("cls", RAISED)
def test_a_raised_error_has_one_family(cls: type[JetmapError]) -> None:
    assert [family for family in FAMILIES if issubclass(cls, family)] == [_family(cls)]


@pytest.mark.parametrize("cls", GROUPS)
def test_a_group_has_no_family(cls: type[JetmapError]) -> None:
    assert not issubclass(cls, FAMILIES)


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_is_exported(cls: type[JetmapError]) -> None:
    assert getattr(jetmap, cls.__name__) is cls
    assert cls.__name__ in jetmap.__all__


def test_a_retryable_error_says_when() -> None:
    assert NoWorkers("none").retry_after == 1.0
    assert KeyBusy("busy", retry_after=7).retry_after == 7
    assert [cls for cls in RAISED if getattr(cls, "retry_after", 0) is None] == [
        MapTimeout,
        StoreFull,
        NoRoom,
    ]


def test_the_documentation_lists_each_error_once() -> None:
    assert sorted(_rows()) == sorted((cls.__name__, _family(cls).__name__) for cls in RAISED)


def _family(cls: type[JetmapError]) -> type[JetmapError]:
    return next(base for base in cls.__mro__ if base in FAMILIES)


def _rows() -> list[tuple[str, str]]:
    """Return class and family of each row of the page's tables."""
    return re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
