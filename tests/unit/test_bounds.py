"""Numbers that callers give: each is bounded, in one place, wherever it comes in."""

from __future__ import annotations

import decimal
import fractions
import math
import re
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from httpx import AsyncClient
from typer.testing import CliRunner

import functions
from fake_cluster import gateway
from fake_jobs import FakeJobs, JobCluster
from jetmap import Cluster, bounds, task
from jetmap.cli.app import build
from jetmap.errors import ConfigurationError
from jetmap.jobs.record import Record, read_record
from jetmap.settings import FIELDS, Field, Settings
from jetmap_api.request import read_preference
from jobs_over_http import site

pytestmark = pytest.mark.anyio


def short(value: object) -> str:
    """The name of a test's value, however many digits it has."""
    return bounds.shown(value)[:20]


WRONG = [math.nan, math.inf, -math.inf, -1, 0, -0.0, 1e308, 1e10, 10**400, -(10**5000)]
NO_NUMBERS = [True, "5", int, [], 1j, decimal.Decimal(5)]


@pytest.mark.parametrize("value", WRONG, ids=short)
def test_seconds_out_of_bounds(value: float) -> None:
    for bound in (bounds.TIMEOUT, bounds.TTL):
        with pytest.raises(
            ValueError, match=r"ttl must be a number of seconds from .* to 3,153,600"
        ):
            bound.check("ttl", value)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_not_a_number(value: object) -> None:
    for bound in (bounds.TIMEOUT, bounds.ATTEMPTS):
        with pytest.raises(TypeError, match="must be a"):
            bound.check("attempts", value)


def test_numbers_within_their_bounds() -> None:
    assert bounds.TTL.check("ttl", fractions.Fraction(3, 2)) == 1.5
    assert type(bounds.TTL.check("ttl", 60)) is float
    assert bounds.ATTEMPTS.check("attempts", 1000) == 1000
    for wrong in (0, 1001, 10**5000):
        with pytest.raises(
            ValueError, match="attempts must be a whole number from 1 to 1,000, not"
        ):
            bounds.ATTEMPTS.check("attempts", wrong)
    with pytest.raises(ValueError, match=r"not 2\.0"):
        bounds.ATTEMPTS.check("attempts", 2.0)
    numpy = pytest.importorskip("numpy")
    assert bounds.ATTEMPTS.check("attempts", numpy.int64(3)) == 3
    assert bounds.TTL.check("ttl", numpy.float32(2.5)) == 2.5


@pytest.mark.parametrize(
    "text",
    [
        *(
            "nan",
            "inf",
            "-inf",
            "Infinity",
            "1e999",
            "1e10",
            "-1",
            "-0.0",
            "0",
            "",
            " 5",
            "5 ",
            "٣",
        ),
        *("1_000", "0x10", "1e", ".", "--1", "9" * 500, "1" + "0" * 5000, "1e" + "9" * 20, "true"),
    ],
)
def test_text_that_is_no_number_within_the_bounds(text: str) -> None:
    assert bounds.TTL.parse(text) is None
    assert bounds.SIZE.parse(text) is None


def test_text_that_is() -> None:
    assert bounds.TTL.parse("1e3") == 1000
    assert bounds.TTL.parse("3153600000") == bounds.CENTURY
    assert bounds.TTL.parse("3153600001") is None
    assert bounds.POLL.parse("0") == bounds.POLL.parse("-0.0") == 0
    assert bounds.SIZE.parse("007") == 7
    assert bounds.SIZE.parse("1.0") is None


# Settings


def reads_a_number(field: Field) -> bool:
    """Return whether it reads one of these as a number, whatever its bounds."""
    for text in ("0.5", "3", "7000"):
        with suppress(ValueError):
            return type(field.read(text)) in (int, float)
    return False


NUMERIC = [name for name, field in FIELDS.items() if reads_a_number(field)]


@pytest.mark.parametrize(
    ("name", "source"),
    [*((name, "option") for name in NUMERIC), ("port", "variable"), ("port", "file")],
)
def test_each_setting_is_bounded(
    name: str, source: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in Python, in a variable or in the file."""
    monkeypatch.chdir(tmp_path)
    assert len(NUMERIC) > 30
    for value in ("nan", "inf", "-inf", "-1", "1e308", "9" * 30, "1e10000"):
        given: dict[str, Any] = {}
        if source == "option":
            given[name] = float(value)
        elif source == "variable":
            monkeypatch.setenv(f"JETMAP_{name.upper()}", value)
        else:
            text = "1e308" if value == "1e10000" else value.replace("9" * 30, "9" * 18)
            (tmp_path / "jetmap.toml").write_text(f"{name} = {text}\n")
        with pytest.raises(ConfigurationError) as caught:
            Settings.load(**given)
        (problem,) = caught.value.problems
        assert name in problem.lower().replace("-", "_"), problem
        assert "Traceback" not in problem and len(problem) < 200


@pytest.mark.parametrize("name", NUMERIC)
def test_a_bool_is_no_number_in_a_setting(name: str) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        Settings.load(**{name: True})


def test_a_setting_says_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_JOB_TTL", "1e10")
    wanted = r"JETMAP_JOB_TTL must be a number of seconds from 1 to 3,153,600,000, not '1e10'"
    with pytest.raises(ConfigurationError, match=wanted):
        Settings.load()
    monkeypatch.setenv("JETMAP_JOB_TTL", "3153600000")
    assert Settings.load().jobs.job_ttl == bounds.CENTURY


@pytest.mark.parametrize(
    "cores", ["4097", "9" * 5000, "00000", True, 2.5, -1, 10**5000, "٣"], ids=short
)
def test_cores_are_bounded(cores: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"cores.* must be a number of cores up to 4,096"):
        Settings.load(cores=cores)


# Python


@pytest.mark.parametrize("value", [*WRONG, True, "5"], ids=short)
async def test_arguments_in_python(value: Any) -> None:
    async with JobCluster() as cluster:
        for ask in (
            lambda: cluster.map(functions.empty, [1], timeout=value),
            lambda: cluster.open("empty", None, format="json", timeout=value),  # type: ignore[arg-type]
        ):
            with pytest.raises((ValueError, TypeError), match="timeout must be a number of sec"):
                await ask()
        with pytest.raises((ValueError, TypeError), match="timeout must be a number of seconds"):
            cluster.stream(functions.empty, [1], timeout=value)
    for settings in (None, Settings.load()):
        with pytest.raises((ValueError, TypeError), match="start_timeout must be a number of sec"):
            Cluster(start_timeout=value, settings=settings)
    with pytest.raises((ValueError, TypeError), match="timeout must be a number of seconds"):
        task(timeout=value, name="bounded")(lambda x: x)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 1e10, 10**400, True, "5"])
async def test_waiting_for_a_job(value: Any) -> None:
    jobs = FakeJobs(hold=True)
    async with JobCluster(jobs) as cluster:
        jobs.add("a", 1)
        with pytest.raises((ValueError, TypeError), match="timeout must be a number of seconds"):
            await cluster.job("a").wait(value)
        with pytest.raises(TimeoutError):
            await cluster.job("a").wait(0)


@pytest.mark.parametrize("value", [0, -1, 1001, 10**5000, 1.0, math.nan, True, "2"], ids=short)
def test_attempts_of_a_task(value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="attempts must be a whole number from 1 to"):
        task(attempts=value, name="bounded")(lambda x: x)


async def test_keyword_parameters_of_functions_are_not_bounded() -> None:
    async with Cluster(inline=True) as cluster:
        found = await cluster.map(functions.scale, [1], kwargs={"by": 10**15})
    assert found == [10**15]


# The command line


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "1e10", "1e999", "x", "9" * 5000])
@pytest.mark.parametrize(
    "command", [("map", "f", "--timeout"), ("submit", "f", "--timeout"), ("submit", "f", "--ttl")]
)
def test_options_of_commands(command: tuple[str, ...], value: str) -> None:
    result = CliRunner().invoke(build(list(command)), [*command, value])
    assert result.exit_code == 2, result.output
    shown = " ".join(result.output.replace("│", " ").split())
    assert "must be a number of seconds from" in shown


@pytest.mark.parametrize("value", ["0", "1000001", "nan", "9" * 5000])
def test_the_limit_of_a_list_of_jobs(value: str) -> None:
    assert CliRunner().invoke(build(["jobs"]), ["jobs", "--limit", value]).exit_code == 2


# HTTP


@pytest.fixture
async def client() -> Any:
    cluster, jobs = site(hold=True)
    jobs.add("a", 1)
    async with gateway(cluster) as client:
        yield client


BAD = ["nan", "inf", "-inf", "-1", "1e10", "1e308", "1e999", "9" * 4000, "1_0", "true", "", "٣"]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/map/double", "timeout"),
        *(("POST", "/jobs/double", name) for name in ("timeout", "ttl", "reserve")),
        *(("GET", "/jobs/a/results", name) for name in ("wait", "limit", "start")),
        ("GET", "/jobs", "limit"),
    ],
)
async def test_parameters_over_http(client: AsyncClient, method: str, path: str, name: str) -> None:
    schema = await _schema(client, method, path, name)
    assert schema["maximum"] > schema["minimum"] >= 0
    for text in (*BAD, str(schema["maximum"] + 1), "" if schema["minimum"] == 0 else "0"):
        answer = await client.request(method, path, params={name: text}, json=[1])
        assert answer.status_code == 400, (text, answer.text)
        problem = answer.json()
        assert problem["parameter"] == name
        assert (problem["minimum"], problem["maximum"]) == (schema["minimum"], schema["maximum"])
    for text in (str(schema["minimum"]), str(schema["maximum"])):
        if name == "wait":
            continue
        answer = await client.request(method, path, params={name: text}, json=[1])
        assert answer.status_code in (200, 202, 404), (text, answer.text)


async def _schema(client: AsyncClient, method: str, path: str, name: str) -> dict[str, Any]:
    document = (await client.get("/openapi.json")).json()
    path = path.replace("/jobs/a", "/jobs/{id}")
    parameters = document["paths"][path][method.lower()]["parameters"]
    found: dict[str, Any] = next(p["schema"] for p in parameters if p["name"] == name)
    return found


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        *(
            (b"wait=%b" % n, 600)
            for n in (b"601", b"1" + b"0" * 10, b"9" * 5000, b"0" * 99 + b"700")
        ),
        (b"wait=600", 600),
        (b"wait=00000000000007", 7),
        *(
            (b"respond-async, wait=%b" % n, None)
            for n in (b"-1", b"nan", b"1e3", b"1.5", "٣".encode())
        ),
    ],
)
def test_a_patience_beyond_the_longest_is_the_longest(header: bytes, wait: int | None) -> None:
    preference = read_preference(header)
    assert preference is not None and preference.wait == wait


# Records


def stored(**facts: Any) -> bytes:
    known = {"id": "a", "function": "f", "format": "json", "state": "running", "reserved": 5}
    return msgspec.json.encode(known | facts)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x00",
        b"[1]",
        b"[" * 100_000,
        stored(state="paused"),
        stored(version=99),
        stored(ttl=None),
        stored(done=-1),
        stored(created=1e300),
        stored(id="b"),
        stored(format="cbor"),
        stored(function=5),
    ],
)
def test_a_record_that_is_not_understood(data: bytes) -> None:
    record = read_record(data, "a")
    assert (record.id, record.state, record.is_over) == ("a", "unreadable", True)
    assert record.reason


def test_what_is_kept_of_it() -> None:
    record = read_record(stored(version=99, created=5.0, key="k", more={"x": 1}), "a")
    assert (record.function, record.reserved, record.created, record.key) == ("f", 5, 5.0, "k")
    assert "version 99" in (record.reason or "")


@pytest.mark.parametrize(("ttl", "kept"), [(1e10, bounds.CENTURY), (-5, 1), (60.5, 60.5)])
def test_a_time_that_an_earlier_version_let_in_is_bounded(ttl: float, kept: float) -> None:
    record = read_record(stored(ttl=ttl), "a")
    assert isinstance(record, Record) and (record.state, record.ttl) == ("running", kept)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (7, TypeError, "labels must be a mapping such as"),
        ({"a": 7}, TypeError, "labels must be text"),
        ({"a b": "c"}, ValueError, "the label 'a b' is malformed: at most 8 labels"),
        ({"a": "b,c"}, ValueError, "the value 'b,c' of label a is malformed"),
        ({"a": "x" * 101}, ValueError, "of label a is malformed"),
        ({"a": "\x1b[2J"}, ValueError, "of label a is malformed"),
        ({"a": "\x9b2J"}, ValueError, "of label a is malformed"),
        ({"a": "\ud800"}, ValueError, "of label a is malformed"),
        (dict.fromkeys("abcdefghi", ""), ValueError, "9 labels are too many"),
    ],
)
def test_labels_are_bounded(labels: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bounds.check_labels(labels)


def test_the_pattern_of_labels_excludes_control_characters() -> None:
    assert re.search(bounds.LABELS_PATTERN, "customer=7,team=\xa0ü")
    for wrong in ("team=\x1b", "team=\x7f", "team=\x9b", "team=\x80", "team=\x9f"):
        assert not re.search(bounds.LABELS_PATTERN, wrong)


def test_labels_as_text() -> None:
    assert bounds.parse_labels("customer=7,team=a=b") == {"customer": "7", "team": "a=b"}
    assert bounds.parse_labels("") == bounds.check_labels(None) == {}
    assert bounds.parse_labels("a=1,a=2") == {"a": "2"}
    with pytest.raises(ValueError, match="'x' is not a label: write NAME=VALUE"):
        bounds.parse_labels("x")


@pytest.mark.parametrize("key", ["", "x" * 256, "\ud800"])
def test_keys_are_bounded(key: str) -> None:
    with pytest.raises(ValueError, match="key must be a text of 1 to 255 characters"):
        bounds.check_key(key)
    assert [bounds.check_key(good) for good in (None, "k", "é")] == [None, "k", "é"]
