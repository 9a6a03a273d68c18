"""Query parameters are known and within their bounds; documents have the fields of the API."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from jetmap import bounds
from jetmap_api.models import Job, NoParameters, Parameters, Text, Within
from jetmap_api.problems import Problem


class Query(Parameters):
    wait: Annotated[float, Within(bounds.POLL)] = 0
    start: Annotated[int, Within(bounds.START)] = Field(0, description="The first item.")
    name: Text = None


def test_values_are_read() -> None:
    query = Query.model_validate({"wait": "1.5", "start": "7", "name": "1"})
    assert (query.wait, query.start, query.name) == (1.5, 7, "1")
    assert Query.model_validate({}) == Query()
    # FastAPI 0.128 passes defaults of parameters that are absent.
    assert Query.model_validate({"wait": 0, "start": 0, "name": None}) == Query()


@pytest.mark.parametrize("text", ["-1", "x", "", "nan", "601", " 1", "1_0"])
def test_a_number_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        Query.model_validate({"wait": text})
    assert caught.value.status == 400
    assert caught.value.members == {"parameter": "wait", "minimum": 0, "maximum": 600}


def test_an_unknown_parameter_is_refused_with_those_known() -> None:
    with pytest.raises(Problem, match="use wait, start or name"):
        Query.model_validate({"x": "1"})
    with pytest.raises(Problem, match="there are none here"):
        NoParameters.model_validate({"x": "1"})


def test_schemas_have_the_bounds() -> None:
    properties = Query.model_json_schema()["properties"]
    assert properties["start"] | bounds.START.schema() == properties["start"]
    assert properties["name"]["type"] == "string"


def test_a_jobs_states_are_public_ones() -> None:
    states = Job.model_json_schema()["properties"]["state"]["enum"]
    assert "waiting" in states and "uploading" not in states and "deleted" not in states
