"""The arguments of `jetmap map`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetmap import Cluster
from jetmap.cli.map import check_kwargs, parts_of
from jetmap.errors import ConfigurationError
from jetmap.wire.presence import FunctionInfo

INFO = FunctionInfo(
    "power",
    kwargs={"properties": {"exponent": {"type": "integer"}}, "required": ["exponent"]},
)


def cluster_of(info: FunctionInfo | None) -> Cluster:
    return cast(Cluster, SimpleNamespace(info=lambda name: info))


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("is_prime", ("", "is_prime")),
        ("tasks.py:is_prime", ("tasks.py", "is_prime")),
        ("app.tasks:f", ("app.tasks", "f")),
    ],
)
def test_a_name_with_or_without_its_tasks(argument: str, parts: tuple[str, str]) -> None:
    assert parts_of(argument) == parts


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("tasks.py", "name the function too: jetmap map tasks.py:FUNCTION FILE"),
        ("tasks.py:", "name the function after the colon: tasks.py:FUNCTION"),
        (":f", "name the file before the colon, as in tasks.py:f"),
    ],
)
def test_half_a_name(argument: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parts_of(argument)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        (b"", "needs the parameter 'exponent'.*--kwargs '{\"exponent\": "),
        (b'{"exponent": "x"}', "'exponent' of power\\(\\) must be integer"),
        (b'{"exponent": 1, "base": 2}', "no parameter 'base'"),
    ],
)
def test_wrong_parameters(kwargs: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_kwargs(cluster_of(INFO), "power", kwargs)


@pytest.mark.parametrize("info", [None, INFO])
def test_right_parameters(info: Any) -> None:
    check_kwargs(cluster_of(info), "power", b'{"exponent": 2}')
