"""The help of the command line, and its refusals in sentences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from house import House, Up
from jetmap.cli.app import build
from jetmap.cli.exits import Exit
from jetmap.cli.options import TABLE
from jetmap.settings import FIELDS
from waiting import PATIENCE

COMMANDS = (
    *("demo", "up", "worker", "api", "map"),
    *("submit", "jobs", "job", "status", "check"),
)


Invoke = Callable[..., Result]


@pytest.fixture
def here(house: House, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """``jetmap …`` in this process, for what ends before anything starts."""
    for name in [name for name in os.environ if name.startswith("JETMAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JETMAP_CONFIG", "")  # --config sets it; put back afterwards
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "COLUMNS", "JETMAP_PORT"):
        monkeypatch.setenv(name, house.environment[name])
    monkeypatch.chdir(house.directory)

    def invoke(*arguments: str) -> Result:
        done = CliRunner().invoke(build(list(arguments)), arguments)
        assert "Traceback" not in done.output
        return done

    return invoke


# What it says of itself


def test_help_names_every_command_and_exit_code(here: Invoke) -> None:
    said = here("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", said)
    for code in Exit:
        assert re.search(rf"\b{int(code)}\b", said)


def test_the_package_is_the_command(house: House) -> None:
    argv = [sys.executable, "-I", "-W", "error", "-m", "jetmap", "map", "tasks.py:nothing"]
    done = subprocess.run(
        argv,
        cwd=house.directory,
        env=house.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (Exit.WORKERS, "")
    assert done.stderr.startswith("jetmap: ") and "nothing" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_variable_that_is_a_setting(here: Invoke, command: str) -> None:
    done = here(command, "--help")
    assert done.exit_code == 0
    for option in TABLE:
        assert option.setting in FIELDS
        if re.search(rf"{option.name}\s", done.stdout):
            assert f"JETMAP_{option.setting.upper()}" in done.stdout


def test_no_option_takes_a_secret() -> None:
    names = {option.setting for option in TABLE}
    assert not names & {"nats_password", "nats_token", "token"}


@pytest.mark.slow
def test_only_the_command_for_a_gateway_needs_the_gateways_code() -> None:
    code = (
        "import pkgutil, sys, jetmap\n"
        "for found in pkgutil.walk_packages(jetmap.__path__, 'jetmap.'):\n"
        "    if not found.name.endswith('.__main__'):\n"
        "        __import__(found.name)\n"
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'jetmap_api'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, timeout=PATIENCE
    )
    assert done.stdout == b"[]\n"


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["up"], Exit.USAGE, "name the TASKS to run"),
        (["worker"], Exit.USAGE, "name the TASKS to run"),
        (["worker", "tasks.py"], Exit.USAGE, "no broker is named, and no `jetmap up` runs in"),
        (["status"], Exit.USAGE, "start `jetmap up TASKS` here first"),
        (["map", "double"], Exit.USAGE, "no broker is named"),
        (["up", "tasks.py", "--cores", "x"], Exit.USAGE, "--cores must be a number of cores"),
        (["up", "tasks.py", "--port", "x"], Exit.USAGE, "--port must be a whole number"),
        (["up", "tasks.py", "--host", "0.0.0.0"], Exit.USAGE, "--token-file token"),
        (["up", "tasks.py", "--nats-host", "::"], Exit.USAGE, "--nats-password-file nats-password"),
        (["api", "--host", "0.0.0.0"], Exit.USAGE, "--token-file token"),
        (["api", "--nats", "nats://a:b@c"], Exit.USAGE, "a password on the command line"),
        (["api", "--nats", "localhost"], Exit.USAGE, "--nats must be a comma-separated list"),
        (["api", "--token-file", "no"], Exit.USAGE, "names no, which is not a file"),
        (["status", "--config", "no.toml"], Exit.USAGE, "--config names no.toml"),
        (["map", "tasks.py:double", "no.jsonl"], Exit.USAGE, "no.jsonl cannot be read"),
        (
            ["map", "tasks.py:double", "--kwargs", "[]"],
            Exit.USAGE,
            "--kwargs must be a JSON object",
        ),
        (["submit", "double"], Exit.USAGE, "no broker is named"),
        (["submit", "tasks.py:double"], Exit.USAGE, "then submit double to it"),
        (["submit", "double", "--kwargs", "1"], Exit.USAGE, "--kwargs must be a JSON object"),
        (
            ["jobs", "--state", "asleep"],
            Exit.USAGE,
            "--state asleep: unknown state, use one of",
        ),
        (
            ["job", "x", "--follow", "--cancel"],
            Exit.USAGE,
            "--follow and --cancel exclude each other",
        ),
        (["nonsense"], Exit.USAGE, "No such command"),
        (["status", "--nonsense"], Exit.USAGE, "No such option"),
    ],
)
def test_refused_with_a_sentence(
    here: Invoke, arguments: list[str], code: Exit, message: str
) -> None:
    done = here(*arguments)
    assert done.exit_code == code
    assert message in done.stderr


def test_a_wrong_password_is_the_brokers_refusal(shared_up: Up) -> None:
    running = shared_up.house.running()
    done = shared_up.house.call(
        "status", "--nats", running.url, "--nats-user", "jetmap", JETMAP_NATS_PASSWORD="wrong"
    )
    assert done.returncode == Exit.BROKER
    assert "credentials" in done.stderr
    assert "wrong" not in done.stderr


def test_a_taken_port_is_named(shared_up: Up) -> None:
    port = shared_up.url.rpartition(":")[2]
    done = shared_up.house.call("up", "tasks.py", "--port", port, "--pool", "b")
    assert done.returncode == Exit.USAGE
    assert f"127.0.0.1:{port} is taken" in done.stderr
    nats_port = shared_up.house.running().url.rpartition(":")[2]
    done = shared_up.house.call(
        *("up", "tasks.py", "--port", "0", "--nats-port", nats_port, "--pool", "b")
    )
    assert done.returncode == Exit.BROKER
    assert f"port {nats_port} is taken" in done.stderr


def test_tasks_that_cannot_be_imported_end_up(house: House) -> None:
    """The other messages are units of the functions' room."""
    house.tasks.write_text("import nowhere_to_be_found\n", encoding="utf-8")
    process = house.start("up", "tasks.py", "--port", "0", "--nats-port", "0")
    assert process.wait(PATIENCE) == Exit.WORKERS
    assert "the workers cannot start" in house.said
    assert "jetmap/worker" not in house.said
    assert 1 <= house.said.count("nowhere_to_be_found") <= 3
    house.nothing_is_left()
