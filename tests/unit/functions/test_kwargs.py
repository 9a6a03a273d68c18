"""Keyword parameters against the announced schema."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.functions.kwargs import misfit, open_parameters
from jetmap.wire.presence import FunctionInfo

INFO = FunctionInfo(
    "f",
    kwargs={
        "$ref": "#/$defs/K",
        "$defs": {
            "K": {
                "properties": {
                    "n": {"type": "integer"},
                    "mode": {"enum": ["a", "b"]},
                    "x": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                    "any": {"title": "any"},
                },
                "required": ["n"],
            }
        },
    },
)


@pytest.mark.parametrize(
    "kwargs",
    [{"n": 1}, {"n": 1, "mode": "a"}, {"n": 1, "x": None}, {"n": 1, "x": 2.5, "any": object()}],
)
def test_what_may_fit(kwargs: dict[str, Any]) -> None:
    assert misfit(INFO, kwargs) is None


@pytest.mark.parametrize(
    ("kwargs", "parameter", "said"),
    [
        ({}, "n", "f() needs the parameter 'n'; it takes n (integer), mode (one of 'a', 'b', opt"),
        ({"n": "1"}, "n", "must be integer"),
        ({"n": True}, "n", "must be integer"),
        ({"n": 1, "mode": "c"}, "mode", "must be one of 'a', 'b'"),
        ({"n": 1, "x": "y"}, "x", "must be number or null"),
        ({"n": 1, "m": 1}, "m", "f() has no parameter 'm'"),
    ],
)
def test_what_certainly_does_not(kwargs: dict[str, Any], parameter: str, said: str) -> None:
    found = misfit(INFO, kwargs)
    assert found is not None and found.parameter == parameter
    assert said in found.message


def test_names_only() -> None:
    assert misfit(INFO, {"n": "1"}, names_only=True) is None


def test_a_function_without_keyword_parameters() -> None:
    plain = FunctionInfo("f", kwargs={"properties": {}})
    assert misfit(plain, {}) is None
    found = misfit(plain, {"n": 1})
    assert found is not None and found.message.endswith("it takes no keyword parameters")
    assert misfit(FunctionInfo("unknown"), {"n": 1}) is None


def test_parameters_without_an_annotation() -> None:
    assert open_parameters(INFO) == {"any"}
