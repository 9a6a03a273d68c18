"""Families of errors, their documentation, and their way through pickle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jetmap
from jetmap import errors
from jetmap.errors import (
    BadInput,
    Fault,
    ItemError,
    JetmapError,
    JobError,
    LimitExceeded,
    Retryable,
)

FAMILIES: tuple[type[JetmapError], ...] = (Retryable, BadInput, Fault)
GROUPS = (JetmapError, ItemError, JobError, LimitExceeded)
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type)]
ERRORS = [cls for cls in CLASSES if cls.__module__ == errors.__name__]
RAISED = [cls for cls in ERRORS if cls not in GROUPS and cls not in FAMILIES]


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


def test_the_documentation_lists_each_error_once() -> None:
    assert sorted(_rows()) == sorted((cls.__name__, _family(cls).__name__) for cls in RAISED)


def _family(cls: type[JetmapError]) -> type[JetmapError]:
    return next(base for base in cls.__mro__ if base in FAMILIES)


def _rows() -> list[tuple[str, str]]:
    """Return class and family of each row of the page's tables."""
    return re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
