"""Limits and labels of jobs are changed over HTTP."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fake_cluster import gateway
from jobs_over_http import site, submit
from over_http import check_problem

pytestmark = pytest.mark.anyio


async def test_limits_and_labels_of_a_job_are_changed_by_a_merge_patch() -> None:
    cluster, jobs = site()
    jobs.hold = True
    async with gateway(cluster) as client:
        job = await submit(client, "double", [1, 2])
        path = f"/jobs/{job['id']}"
        for body, expected in (
            ({"max_parallel": 4, "labels": {"team": "a", "x": "1"}}, (4, None, ["team", "x"])),
            ({}, (4, None, ["team", "x"])),
            ({"max_failed": "5%", "labels": {"x": None}}, (4, "5%", ["team"])),
            ({"max_failed": 3, "max_parallel": 0}, (None, "3", ["team"])),
            ({"max_failed": None, "labels": None}, (None, None, [])),
        ):
            for media in ("application/json", "application/merge-patch+json; charset=utf-8"):
                answer = await client.patch(path, json=body, headers={"content-type": media})
                assert answer.status_code == 200
                found = answer.json()
                assert found == (await client.get(path)).json()
                assert found["max_parallel"] == expected[0]
                assert (found["max_failed"], list(found["labels"])) == expected[1:]
        for wrong in (
            "",
            "[]",
            "null",
            "{",
            '{"max_parallel": -1}',
            '{"max_parallel": 1.5}',
            '{"max_failed": "x"}',
            '{"max_failed": -1}',
            '{"labels": {"a b": "1"}}',
            '{"labels": {"a": 1}}',
            '{"paused": true}',
            '{"max_parallel": 1, "what": 2}',
            '{"labels": ' + "[" * 5_000 + "]" * 5_000 + "}",
            b'{"labels": {"a": "\xff"}}',
        ):
            kind = {"content-type": "application/json"}
            refused = await client.patch(path, content=wrong, headers=kind)
            check_problem(refused, 400, "malformed-body")
        before = (await client.get(path)).json()
        assert before["labels"] == {} and before["max_parallel"] is None
        form = await client.patch(path, data={"max_parallel": "1"})
        check_problem(form, 415, "unsupported-media-type")
        assert (
            "--json" in form.json()["detail"] and "application/json" in form.headers["accept-patch"]
        )
        packed = {"content-type": "application/json", "content-encoding": "gzip"}
        check_problem(
            await client.patch(path, content=b"{}", headers=packed), 415, "unsupported-encoding"
        )
        check_problem(await client.patch("/jobs/nobody", json={}), 404, "unknown-job")
        check_problem(await client.patch(f"{path}?max_parallel=1", json={}), 400, "bad-parameter")
        options = await client.options(path)
        assert (
            "PATCH" in options.headers["allow"] and "merge-patch" in options.headers["accept-patch"]
        )
        jobs.end(job["id"])
        check_problem(await client.patch(path, json={"max_parallel": 1}), 409, "job-over")


async def test_malformed_changes_are_refused_as_a_map_refuses_them() -> None:
    cluster, jobs = site()
    jobs.hold = True
    async with gateway(cluster) as client:
        path = f"/jobs/{(await submit(client, 'double', [1, 2]))['id']}"
        kind = {"content-type": "application/json"}
        mark = b"\xef\xbb\xbf"
        marked = await client.patch(path, content=mark + b'{"max_parallel": 4}', headers=kind)
        assert (marked.status_code, marked.json()["max_parallel"]) == (200, 4)
        for body, detail in (
            (b"", "the body is empty"),
            (mark + b" \n", "the body is empty"),
            (mark * 2 + b"{}", "at byte 3"),
            (b'{"max_parallel": ', "it ends too early at byte 17"),
            (rb'{"labels": {"a": "\ud83d"}}', "a string holds half of a surrogate pair"),
            (b'{"labels": {"a": "\xff"}}', "not UTF-8 at byte 18"),
            (b'{"max_parallel": "x"}', "$.max_parallel"),
        ):
            refused = await client.patch(path, content=body, headers=kind)
            problem = check_problem(refused, 400, "malformed-body")
            assert detail in problem["detail"] and "send an object such as" in problem["detail"]


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Apply the keywords that bound a number, a text and the names and values of an object."""
    if isinstance(value, str):
        return re.search(schema["pattern"], value) is not None
    if isinstance(value, dict):
        names, values = schema["propertyNames"], schema["additionalProperties"]
        return len(value) <= schema["maxProperties"] and all(
            accepts(names, name) and accepts(values, text) for name, text in value.items()
        )
    return value is None or schema["minimum"] <= value <= schema["maximum"]


async def test_the_document_bounds_what_may_change_and_names_the_refusals() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/jobs/{id}"]["patch"]
    assert {"400", "404", "408", "409", "413", "415", "501"} <= set(operation["responses"])
    content = operation["requestBody"]["content"]
    known = content["application/merge-patch+json"]["schema"]["properties"]
    for name, good, wrong in (
        ("max_parallel", [0, 4, None], [-1]),
        ("max_failed", [0, 7, "7", "5%", "0.5%", None], [-1, 1 << 60, "x", "101%", "-1", ""]),
        (
            "labels",
            [{}, None, {"a": None, "b": "", "team": "x y"}],
            [
                *({"a b": "1"}, {"": "1"}, {"a": "1,2"}, {"a": "\x9b"}, {"a": "x" * 101}),
                {str(number): "1" for number in range(17)},
            ],
        ),
    ):
        assert all(accepts(known[name], value) for value in good)
        assert not any(accepts(known[name], value) for value in wrong)
