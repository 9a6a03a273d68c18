"""The document at /openapi.json: programs that read it find that the gateway does what it says."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import hypothesis
import pytest
from hypothesis import HealthCheck

from fake_cluster import FakeCluster, gateway
from fake_jobs import FakeJobs
from jetmap.client.cluster import Cluster
from jetmap.settings import Settings
from jetmap_api import create_app
from served import served

TOKEN = "s3cret"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def double(n: int) -> int:
    """Twice as much."""
    return n * 2


def power(n: int, *, exponent: int, base: float = 1.0) -> float:
    """The power of a number, times base."""
    return base * n**2 + exponent % 2


def cluster() -> FakeCluster:
    made = FakeCluster(double, power)
    FakeJobs(made)
    return made


KEYWORDS = json.dumps({"exponent": 2})


def promises() -> list[Any]:
    """Return the checks of what the document promises for any request."""
    from schemathesis.checks import not_a_server_error  # Slow to import, for every collection.
    from schemathesis.specs.openapi import checks

    return [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]


def check_operations(token: str | None, mode: str, examples: int, paths: str = "") -> int:
    """Ask each operation with generated requests; returns how many requests were made.

    paths: pattern of the paths to ask.
    """
    import schemathesis
    from schemathesis.specs.openapi import checks

    is_positive = mode == "positive"
    expected = promises() + ([checks.positive_data_acceptance] if is_positive else [])
    settings = Settings(token=cast(Any, token), allowed_hosts=["testserver"])
    app = create_app(cast(Cluster, cluster()), settings)
    headers = BEARER if token else {}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    schema = schema.include(path_regex=paths) if paths else schema
    asked = 0

    def examine(case: Any) -> None:
        nonlocal asked
        asked += 1
        if is_positive:
            # Generators know nothing of contentSchema, nor that a key is used once, nor where
            # the page before ended.
            case.headers.pop("Idempotency-Key", None)
            case.query.pop("after", None)
            if "kwargs" in case.query:
                case.query["kwargs"] = KEYWORDS
        response = case.call(headers=headers)
        # A map may be too short of time, and a gateway without a broker says so.
        chosen = expected[1:] if response.status_code in (503, 504) else expected
        case.validate_response(response, checks=chosen, headers=headers)

    for found in schema.get_all_operations():
        operation = found.ok()
        if not is_positive and not (list(operation.query) or list(operation.body)):
            continue  # Nothing can be wrong with a request that is only a path.
        strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))
        run = hypothesis.given(case=strategy)(examine)
        quiet = hypothesis.settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        quiet(run)()
    return asked


def test_the_gateway_keeps_what_the_document_says() -> None:
    """Ask for a map and for a job; the other paths take longer."""
    assert check_operations(TOKEN, "positive", 2, r"^/(map/double|jobs/\{id\})$") >= 4


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_the_gateway_keeps_it_for_many_requests(token: str | None, mode: str) -> None:
    assert check_operations(token, mode, 60) > 300


def test_without_the_token_everything_but_probes_is_refused_as_documented() -> None:
    import schemathesis

    settings = Settings(token=cast(Any, TOKEN), allowed_hosts=["testserver"])
    app = create_app(cast(Cluster, cluster()), settings)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=BEARER)
    statuses: dict[str, set[int]] = {}

    def examine(case: Any) -> None:
        response = case.call()
        statuses.setdefault(case.path, set()).add(response.status_code)
        case.validate_response(response, checks=promises())

    for found in schema.get_all_operations():
        run = hypothesis.given(case=found.ok().as_strategy())(examine)
        hypothesis.settings(
            max_examples=2,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(run)()
    open_paths = {path for path, found in statuses.items() if found != {401}}
    assert open_paths == {"/healthz", "/readyz"}


# Generated clients


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_generated_python_client_calls_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = cluster()
    async with gateway(fake, token=TOKEN) as client:
        document = (await client.get("/openapi.json", headers=BEARER)).text
    made = await asyncio.to_thread(generate, tmp_path, document)
    # Of bodies it takes JSON; it says of each other kind that it has none.
    assert "will not be generated" not in made and "Incorrect" not in made, made
    monkeypatch.syspath_prepend(str(tmp_path / "client"))

    def api(name: str) -> Any:
        return importlib.import_module(f"jetmap_client.api.{name}")

    async with served(cast(Cluster, fake), Settings(token=cast(Any, TOKEN))) as port:
        known = importlib.import_module("jetmap_client").AuthenticatedClient
        async with known(base_url=f"http://127.0.0.1:{port}", token=TOKEN) as client:
            assert await api("map_.map_double").asyncio(client=client, body=[1, 2]) == [2, 4]
            powers = api("map_.map_power").asyncio
            assert await powers(client=client, body=[3], kwargs=KEYWORDS) == [9]
            wrong = await api("map_.map_double").asyncio(client=client, body=["x"])
            assert (wrong.status, wrong.error.index, wrong.error.kind.value) == (422, 0, "invalid")
            job = await api("jobs.submit_double").asyncio(client=client, body=[1, 2])
            results = await api("jobs.job_results").asyncio(client=client, id=job.id, wait=10)
            assert results.values == [2, 4]
            address = await api("jobs.sign_job_events").asyncio(client=client, id=job.id)
            assert address.url.startswith(f"/jobs/{job.id}/events?signature=")
            assert (await api("jobs.list_jobs").asyncio(client=client)).jobs[0].id == job.id
            one = await api("functions.get_function").asyncio("double", client=client)
            assert one.name == "double" and one.alive
            assert (
                await api("functions.get_function").asyncio("none", client=client)
            ).status == 404
            assert (await api("workers.list_workers").asyncio(client=client))[0].cores == 2
            assert (await api("health.readyz").asyncio(client=client)).status == "ok"


def generate(here: Path, document: str) -> str:
    """Make a client in ``here/client``; returns what the generator said."""
    (here / "document.json").write_text(document)
    (here / "config.yml").write_text("post_hooks: []\n")
    options = ["--path", "document.json", "--output-path", "client", "--config", "config.yml"]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", *options],
        cwd=here,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
