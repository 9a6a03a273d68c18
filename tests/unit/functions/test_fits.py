"""A loader's return annotation, compared with the parameter that it is for."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

import pytest

from jetmap.functions.fits import fits


class Dog: ...


class Puppy(Dog): ...


class Barks(Protocol):
    def bark(self) -> None: ...


@pytest.mark.parametrize(
    ("made", "wanted", "expected"),
    [
        (Puppy, Dog, True),
        (Dog, Puppy, False),
        (int, float, True),
        (Dog | None, Dog, False),
        (Dog, Puppy | Dog, True),
        (list[Puppy], list[Dog], True),
        (list[int], list[str], False),
        (dict, dict[str, int], True),
        (type(None), Dog, False),
        (Any, Dog, True),
        (Dog, Any, True),
        (Dog, Barks, True),
        ("unknown", Dog, True),
        (Annotated[Puppy, "x"], Dog, True),
    ],
)
def test_only_what_certainly_does_not_fit_is_refused(
    made: Any, wanted: Any, expected: bool
) -> None:
    assert fits(made, wanted) is expected
