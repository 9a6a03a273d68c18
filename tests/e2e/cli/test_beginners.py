"""Beginners' mistakes on the command line: each message says what to do next."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from house import House, Up
from jetmap.cli.app import build
from jetmap.cli.exits import Exit
from jetmap.errors import ConfigurationError
from jetmap.functions.importing import import_tasks
from jetmap.settings import Settings
from waiting import PATIENCE

PARAMETERS = """
from jetmap import task

@task
def power(n: int, *, exponent: int) -> int:
    return n ** exponent

@task
def fails(n: int) -> int:
    raise OSError("the disk is on fire")
"""


@pytest.fixture
def here(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    for name in [name for name in os.environ if name.startswith("JETMAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JETMAP_CONFIG", "")
    monkeypatch.setenv("JETMAP_DEBUG", "")
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "COLUMNS", "JETMAP_PORT"):
        monkeypatch.setenv(name, house.environment[name])
    monkeypatch.chdir(house.directory)
    (house.directory / "lines").write_text("1\n2\n")
    return house


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(build(list(arguments)), arguments)
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["map", "tasks.py", "lines"], "name the function too: jetmap map tasks.py:FUNCTION"),
        (["map", "./tasks", "lines"], "name the function too"),
        (["map", "tasks.py:", "lines"], "name the function after the colon: tasks.py:FUNCTION"),
        (["map", ":double", "lines"], "as in tasks.py:double, or leave the colon out"),
        (["map", "tasks.py:double", "nowhere"], "nowhere cannot be read"),
        (["map", "tasks.py:double", "."], ". cannot be read: Is a directory"),
        (["map", "tasks.py:double", "lines", "--kwargs", "{x: 1}"], "such as '{\"n\": 3}'"),
        (["map", "double", "--nats", "http://x"], "not 'http://x'"),
        (["map", "double", "--nats", "me:secret@x"], "not '…@x'"),
        (["up", "tasks.py", "--store", "tasks.py"], "is a file: name a directory"),
    ],
)
def test_mistakes_that_end_before_anything_starts(
    here: House, arguments: list[str], said: str
) -> None:
    done = run(*arguments)
    assert (done.exit_code, said in done.output) == (Exit.USAGE, True), done.output


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("taks.py", "did you mean tasks.py?"),
        ("sub/taks.py", "did you mean sub/tasks.py?"),
        ("sub/", "name its files"),
        (".", "is a directory: name its files"),
        ("nothing/like/it.py", "no such file in"),
    ],
)
def test_tasks_that_are_not_there(here: House, argument: str, said: str) -> None:
    (here.directory / "sub").mkdir()
    (here.directory / "sub" / "tasks.py").touch()
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        import_tasks(argument)


def test_a_name_that_is_nearly_right(shared_up: Up) -> None:
    done = shared_up.house.call("map", "duoble", input="1\n")
    assert done.returncode == Exit.WORKERS
    assert "did you mean 'double'?" in done.stderr


@pytest.mark.parametrize(
    ("files", "function"),
    [
        (12, "double"),
        pytest.param(8, "double", marks=pytest.mark.slow),
        pytest.param(16, "tasks.py:double", marks=pytest.mark.slow),
        pytest.param(24, "tasks.py:double", marks=pytest.mark.slow),  # Enough to start a keeper.
    ],
)
def test_a_limit_of_open_files_that_is_too_low(shared_up: Up, files: int, function: str) -> None:
    house = shared_up.house
    command = f"ulimit -n {files}; exec {sys.executable} -m jetmap.cli map {function}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=house.directory,
        env=house.environment,
        input="1\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0 and "raise the limit of open files (ulimit -n)" in done.stderr
    for noise in ("Traceback", "was never awaited", "a fault in jetmap", "asyncio"):
        assert noise not in done.stderr


def test_parameters_are_looked_at_before_anything_runs(house: House) -> None:
    (house.directory / "more.py").write_text(PARAMETERS)
    done = house.run("map", "more.py:power", input="1\n2\n")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr.count("power() needs the parameter 'exponent'") == 1
    assert '--kwargs \'{"exponent": "…"}\'' in done.stderr
    done = house.run("map", "more.py:power", "--kwargs", '{"exponent": 2}', input="3\n")
    assert (done.returncode, done.stdout) == (0, "9\n")


@pytest.mark.slow
def test_debug_shows_where_an_item_failed(house: House) -> None:
    (house.directory / "more.py").write_text(PARAMETERS)
    plain = house.run("map", "more.py:fails", input="1\n")
    assert "OSError: the disk is on fire" in plain.stderr
    debug = subprocess.run(
        [sys.executable, "-m", "jetmap.cli", "map", "more.py:fails", "--debug"],
        cwd=house.directory,
        env=house.environment,
        input="1\n",
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert f'File "{house.directory / "more.py"}", line 10' in debug.stderr
    assert "--debug" in house.call("submit", "--help").stdout


# Help


def test_help_has_groups_and_defaults(here: House) -> None:
    said = run("up", "--help").stdout
    for group in ("Workers", "Gateway", "NATS server", "More"):
        assert f"─ {group} ─" in said
    assert "JETMAP_START_TIMEOUT; default 60" in re.sub(r"[\s│]+", " ", said)
    assert f"default {Settings().gateway.port}" in said


# A terminal


def mapping_three(house: House, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    (house.directory / "lines").write_text("1\n2\n3\n")
    return subprocess.Popen(
        [sys.executable, "-m", "jetmap.cli", "map", "tasks.py:double", "lines"],
        cwd=house.directory,
        env=house.environment | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )


def test_values_and_progress_do_not_mix_on_one_terminal(house: House) -> None:
    ours, theirs = pty.openpty()
    mapping = mapping_three(house, theirs, theirs)
    os.close(theirs)
    said = b"".join(_until_closed(ours))
    assert mapping.wait(PATIENCE) == 0
    assert said.replace(b"\r\n", b"\n") == b"2\n4\n6\n"


def test_progress_is_shown_where_only_stderr_is_a_terminal(house: House) -> None:
    ours, theirs = pty.openpty()
    mapping = mapping_three(house, subprocess.PIPE, theirs)
    os.close(theirs)
    said = b"".join(_until_closed(ours))
    assert mapping.communicate(timeout=PATIENCE)[0] == b"2\n4\n6\n"
    assert b"3/3" in said


def _until_closed(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(descriptor, 4096)
        except OSError:  # All ends of a terminal's other side are closed.
            data = b""
        if not data:
            os.close(descriptor)
            return
        yield data


# Two on one host


def test_a_second_up_is_refused(shared_up: Up) -> None:
    house = shared_up.house
    done = house.call("up", "tasks.py", "--port", "0", "--nats-port", "0")
    assert done.returncode == Exit.USAGE
    assert f"pid {shared_up.process.pid}, {shared_up.url}" in done.stderr
    for way in ("use that", "kill ", "jetmap worker", "--pool"):
        assert way in done.stderr
    assert house.running().pid == shared_up.process.pid
    assert json.loads(house.call("status", "--json").stdout)["hosts"]
