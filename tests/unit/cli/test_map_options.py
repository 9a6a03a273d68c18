"""Options of maps and jobs."""

from __future__ import annotations

import pytest
import typer

from jetmap import bounds
from jetmap.cli.map_options import kwargs_of, shown_labels, within
from jetmap.errors import ConfigurationError


@pytest.mark.parametrize("text", ["nan", "-1", "1e400", "soon", ""])
def test_numbers_out_of_bounds_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be a number of seconds from"):
        within(bounds.TIMEOUT)(text)
    assert within(bounds.TIMEOUT)(" 2.5 ") == 2.5
    assert [within(bounds.PARALLEL_OR_NONE)(good) for good in ("0", "7")] == [0, 7]


@pytest.mark.parametrize(
    "text",
    ["[1]", "1", "{", '{"a": }', '{"a": 1e999}', '{"a": "\udcff"}', '{"a":' + "[" * 100_000],
    ids=range(7),
)
def test_parameters_are_a_json_object(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--kwargs must be a JSON object"):
        kwargs_of(text)
    assert kwargs_of('{"a": 1}') == b'{"a": 1}'


def test_control_characters_of_labels_do_not_act() -> None:
    assert shown_labels({"a": "\x9b2J", "b": "ü"}) == "a=\\x9b2J b=ü"
