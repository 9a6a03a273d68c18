"""The command line, with real processes: what users type, see, and find left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from jetmap.broker.running import find_running
from jetmap.cli import demo
from jetmap.cli.app import build
from jetmap.cli.children import FIRST_PAUSE, LONGEST_PAUSE, Backoff
from jetmap.cli.exits import Exit
from jetmap.cli.options import TABLE
from jetmap.demo.work import Work, prime_search, sample, source_metrics
from jetmap.settings import Settings

COMMANDS = (
    *("demo", "up", "worker", "api", "map"),
    *("submit", "jobs", "job", "status", "check"),
)
TASKS = """
import os, time
from jetmap import task

@task
def double(n: int, *, plus: int = 0) -> int:
    \"\"\"Twice as much.\"\"\"
    if n == 13:
        raise ValueError("unlucky")
    return 2 * n + plus

@task
def slow(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()
"""


def wait_until(done: Callable[[], Any], what: str, timeout: float = 30) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := done()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


class House:
    """A directory with tasks, and a runtime directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime = directory / "run"
        self.runtime.mkdir(mode=0o700)
        self.tasks = directory / "tasks.py"
        self.tasks.write_text(TASKS, encoding="utf-8")
        kept = {name: text for name, text in os.environ.items() if not name.startswith("JETMAP_")}
        self.environment = kept | {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(directory / "state"),
            "TMPDIR": str(directory),
            "JETMAP_CORES": "2",
            "JETMAP_GRACE": "5",
            "COLUMNS": "200",
        }
        self._started: list[subprocess.Popen[str]] = []
        self._seen: set[psutil.Process] = set()

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """``jetmap …`` in the background."""
        with (self.directory / "stderr").open("a") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "jetmap.cli", *arguments],
                cwd=self.directory,
                env=self.environment | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._started.append(process)
        return process

    def run(
        self, *arguments: str, input: str = "", timeout: float = 40, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """``jetmap …`` to its end; no traceback may be shown, whatever happens."""
        done = subprocess.run(
            [sys.executable, "-m", "jetmap.cli", *arguments],
            cwd=self.directory,
            env=self.environment | variables,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        return done

    def up(self, *options: str) -> Up:
        return Up(self, self.start("up", "tasks.py", "--port", "0", "--nats-port", "0", *options))

    @property
    def said(self) -> str:
        """What background processes wrote to stderr."""
        return (self.directory / "stderr").read_text(encoding="utf-8")

    def descendants(self, process: subprocess.Popen[str]) -> list[psutil.Process]:
        try:
            found = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._seen |= set(found)
        return found

    def nothing_is_left(self) -> None:
        """No process that was seen, and no file in the runtime or temporary directory."""
        wait_until(lambda: not any(_runs(process) for process in self._seen), "all are gone")
        wait_until(lambda: not list(self.runtime.rglob("*.*")), "no file is left")
        assert not list(self.directory.glob("jetmap-*"))

    def close(self) -> None:
        for process in self._started:
            self.descendants(process)
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        for seen in self._seen:
            with suppress(psutil.NoSuchProcess):
                seen.kill()


class Up:
    """A running ``jetmap up``."""

    def __init__(self, house: House, process: subprocess.Popen[str]) -> None:
        self.house = house
        self.process = process
        assert process.stdout is not None
        self.greeting = ""
        # The lines come when the gateway answers.
        while "broker" not in self.greeting:
            line = process.stdout.readline()
            assert line, house.said
            self.greeting += line
        self.url = re.findall(r"gateway +(http://\S+)/map/FUNCTION", self.greeting)[0]
        wait_until(lambda: self.get("/readyz")[0] == 200, "ready")
        self.children = house.descendants(process)

    def get(self, path: str, body: str | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.url + path,
            body.encode() if body is not None else None,
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)
        except OSError:
            return 0, None

    def child(self, part: str) -> psutil.Process:
        """The child whose arguments hold this word."""
        for child in self.house.descendants(self.process):
            try:
                if part in child.cmdline()[-1] or part in child.cmdline()[0]:
                    return child
            except psutil.NoSuchProcess:
                continue
        raise AssertionError(f"no child {part}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.house.descendants(self.process)
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


Invoke = Callable[..., Result]


@pytest.fixture
def here(house: House, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """``jetmap …`` in this process, for what ends before anything starts."""
    for name in [name for name in os.environ if name.startswith("JETMAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JETMAP_CONFIG", "")  # --config sets it; put back afterwards
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "COLUMNS"):
        monkeypatch.setenv(name, house.environment[name])
    monkeypatch.chdir(house.directory)

    def invoke(*arguments: str) -> Result:
        done = CliRunner().invoke(build(list(arguments)), arguments)
        assert "Traceback" not in done.output
        return done

    return invoke


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An ``up`` that tests use and do not harm."""
    made = House(tmp_path_factory.mktemp("shared"))
    try:
        yield made.up()
    finally:
        made.close()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# What it says of itself


def test_help_names_every_command_and_exit_code(here: Invoke) -> None:
    said = here("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", said)
    for code in Exit:
        assert re.search(rf"\b{int(code)}\b", said)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_variable_that_is_a_setting(here: Invoke, command: str) -> None:
    done = here(command, "--help")
    assert done.exit_code == 0
    for option in TABLE:
        assert option.setting in Settings.model_fields
        if re.search(rf"{option.name}\s", done.stdout):
            assert f"JETMAP_{option.setting.upper()}" in done.stdout


def test_no_option_takes_a_secret() -> None:
    names = {option.setting for option in TABLE}
    assert not names & {"nats_password", "nats_token", "token"}


def test_only_the_command_for_a_gateway_needs_the_gateways_code() -> None:
    code = (
        "import pkgutil, sys, jetmap\n"
        "for found in pkgutil.walk_packages(jetmap.__path__, 'jetmap.'):\n"
        "    if not found.name.endswith(('.__main__', 'cli.api')):\n"
        "        __import__(found.name)\n"
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'jetmap_api'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)
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
        (["up", "tasks.py", "--cores", "x"], Exit.USAGE, "--cores is a number of cores"),
        (["up", "tasks.py", "--port", "x"], Exit.USAGE, "--port: input should be a valid integer"),
        (["up", "tasks.py", "--host", "0.0.0.0"], Exit.USAGE, "--token-file token"),
        (["up", "tasks.py", "--nats-host", "::"], Exit.USAGE, "--nats-password-file nats-password"),
        (["api", "--host", "0.0.0.0"], Exit.USAGE, "--token-file token"),
        (["api", "--nats", "nats://a:b@c"], Exit.USAGE, "a password on the command line"),
        (["api", "--nats", "localhost"], Exit.USAGE, "--nats is a comma-separated list"),
        (["api", "--token-file", "no"], Exit.USAGE, "names no, which is not a file"),
        (["status", "--config", "no.toml"], Exit.USAGE, "JETMAP_CONFIG names no.toml"),
        (["map", "tasks.py:double", "no.jsonl"], Exit.USAGE, "no.jsonl cannot be read"),
        (["map", "tasks.py:double", "--kwargs", "[]"], Exit.USAGE, "--kwargs is a JSON object"),
        (["status", "--nats", "nats://127.0.0.1:1"], Exit.BROKER, "127.0.0.1:1"),
        (["api", "--nats", "nats://127.0.0.1:1", "--port", "0"], Exit.BROKER, "127.0.0.1:1"),
        (["submit", "double"], Exit.USAGE, "no broker is named"),
        (["submit", "tasks.py:double"], Exit.USAGE, "then submit double to it"),
        (["submit", "double", "--kwargs", "1"], Exit.USAGE, "--kwargs is a JSON object"),
        (["jobs", "--state", "asleep"], Exit.USAGE, "--state asleep: it is one of queued, "),
        (["job", "x", "--follow", "--cancel"], Exit.USAGE, "--follow and --cancel do not go"),
        (["job", "x", "--nats", "nats://127.0.0.1:1"], Exit.BROKER, "127.0.0.1:1"),
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


def test_a_wrong_password_is_the_brokers_refusal(shared: Up) -> None:
    running = find_up(shared.house)
    done = shared.house.run(
        "status", "--nats", running.url, "--nats-user", "jetmap", JETMAP_NATS_PASSWORD="wrong"
    )
    assert done.returncode == Exit.BROKER
    assert "credentials" in done.stderr
    assert "wrong" not in done.stderr


def test_a_taken_port_is_named(shared: Up) -> None:
    port = shared.url.rpartition(":")[2]
    done = shared.house.run("up", "tasks.py", "--port", port)
    assert done.returncode == Exit.USAGE
    assert f"127.0.0.1:{port} is taken" in done.stderr
    nats_port = find_up(shared.house).url.rpartition(":")[2]
    done = shared.house.run("up", "tasks.py", "--port", "0", "--nats-port", nats_port)
    assert done.returncode == Exit.BROKER
    assert f"port {nats_port} is taken" in done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:\n", "tasks.py"),
        ("x = 1\n", "@task"),
        ("import nowhere_to_be_found\n", "nowhere_to_be_found"),
    ],
)
def test_tasks_that_cannot_be_imported_end_up(house: House, source: str, message: str) -> None:
    house.tasks.write_text(source, encoding="utf-8")
    process = house.start("up", "tasks.py", "--port", "0", "--nats-port", "0")
    assert process.wait(30) == Exit.WORKERS
    assert "the workers cannot start" in house.said
    assert message in house.said
    assert "jetmap/worker" not in house.said
    assert house.said.count("nowhere_to_be_found") <= 3
    house.nothing_is_left()


# jetmap map


def test_map_keeps_the_order(shared: Up) -> None:
    numbers = "".join(f"{number}\n" for number in range(100, 5000))
    done = shared.house.run("map", "double", input=numbers)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(f"{2 * number}\n" for number in range(100, 5000))


def test_map_takes_a_file_without_a_last_newline_and_kwargs(shared: Up) -> None:
    (shared.house.directory / "numbers").write_text("1\n\n 2 \r\n3", encoding="utf-8")
    done = shared.house.run("map", "double", "numbers", "--kwargs", '{"plus": 1}')
    assert (done.returncode, done.stdout) == (0, "3\n5\n7\n")


def test_failing_items_are_null_and_told(shared: Up) -> None:
    done = shared.house.run("map", "double", input='12\n13\n"x"\n14\n')
    assert done.returncode == Exit.ITEMS_FAILED
    assert done.stdout == "24\nnull\nnull\n28\n"
    assert "item 1: ValueError: unlucky" in done.stderr
    assert "item 2: " in done.stderr
    assert "2 items failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "input", "code", "message"),
    [
        (["map", "double"], "1 2\n", Exit.USAGE, "line 1"),
        (["map", "double"], "[" * 100_000, Exit.USAGE, "line 1"),
        (["map", "nope"], "1\n", Exit.WORKERS, "'nope'"),
        (["map", "slow", "--timeout", "0.2"], "9\n", Exit.TIMEOUT, ""),
    ],
)
def test_map_refuses(
    shared: Up, arguments: list[str], input: str, code: Exit, message: str
) -> None:
    done = shared.house.run(*arguments, input=input)
    assert done.returncode == code
    assert message in done.stderr


def test_map_of_nothing_is_nothing(shared: Up) -> None:
    done = shared.house.run("map", "double", input="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_map_streams_while_the_input_goes_on(shared: Up) -> None:
    process = shared.house.start("map", "double")
    assert process.stdin is not None and process.stdout is not None
    for number in (1, 2, 3):
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{2 * number}\n"
    process.stdin.close()
    assert process.wait(10) == 0


def test_map_ends_quietly_when_nobody_reads(shared: Up) -> None:
    (shared.house.directory / "many").write_text("1\n" * 100_000, encoding="utf-8")
    process = shared.house.start("map", "double", "many")
    assert process.stdout is not None
    assert process.stdout.readline() == "2\n"
    process.stdout.close()
    assert process.wait(20) == 0
    assert "rror" not in shared.house.said


def test_interrupting_map_withdraws_it(shared: Up) -> None:
    process = shared.house.start("map", "slow")
    assert process.stdin is not None
    process.stdin.write("60\n")
    process.stdin.flush()
    wait_until(lambda: _busy(shared) == 1, "the item runs")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == Exit.INTERRUPTED
    wait_until(lambda: _busy(shared) == 0, "its worker is free again")


def test_map_of_a_file_of_tasks_starts_its_own_cluster(house: House) -> None:
    done = house.run("map", "tasks.py:double", input="1\n2\n13\n")
    assert done.stdout == "2\n4\nnull\n"
    assert done.returncode == Exit.ITEMS_FAILED
    house.nothing_is_left()


# jetmap status, check, api


def test_status(shared: Up) -> None:
    found = json.loads(shared.house.run("status", "--json").stdout)
    assert (found["pool"], found["cores"], found["ready"]) == ("default", 2, 2)
    assert [function["name"] for function in found["functions"]] == ["double", "slow"]
    assert found["offers"][0]["functions"] == ["double", "slow"]
    assert found["hosts"][0]["host"] == socket.gethostname()
    said = shared.house.run("status", "--here").stdout
    assert "2 of 2 cores ready" in said
    assert "Twice as much." in said


def test_check_says_what_is_and_what_is_not(shared: Up, house: House) -> None:
    done = shared.house.run("check", "tasks.py")
    assert done.returncode == 0, done.stdout
    assert "tasks: double, slow" in done.stdout
    assert "stream JETMAP_WORK_default" in done.stdout

    house.tasks.write_text("x = 1\n", encoding="utf-8")
    secret = house.directory / "secret"
    secret.write_text("s", encoding="utf-8")
    secret.chmod(0o644)
    done = house.run(
        *("check", "tasks.py", "--nats", "nats://127.0.0.1:1", "--token-file", "secret"),
        JETMAP_NATSURL="x",
    )
    assert done.returncode == Exit.USAGE
    assert "chmod 600" in done.stdout
    assert "tasks: " in done.stdout and "@task" in done.stdout
    assert "broker: " in done.stdout
    assert "JETMAP_NATSURL is no setting: did you mean JETMAP_NATS_URL?" in done.stdout


def test_another_gateway_finds_the_running_up(shared: Up) -> None:
    process = shared.house.start("api", "--port", "0")
    assert process.stdout is not None
    url = process.stdout.readline().strip().removesuffix("/docs")
    other = object.__new__(Up)
    other.url = url
    wait_until(lambda: other.get("/readyz")[0] == 200, "ready")
    assert other.get("/map/double", "[1, 2]") == (200, [2, 4])
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


# jetmap up and jetmap worker


def test_up_serves_and_leaves_nothing(house: House) -> None:
    up = house.up()
    assert up.get("/map/double", "[1, 2, 3]") == (200, [2, 4, 6])
    assert up.stop() == 0
    house.nothing_is_left()


def test_secrets_are_on_no_command_line(shared: Up) -> None:
    password = find_up(shared.house).password
    family = [psutil.Process(shared.process.pid), *shared.house.descendants(shared.process)]
    assert len(family) >= 6  # itself, server, agent, gateway, a worker a core
    for process in family:
        assert password not in " ".join(process.cmdline())


def test_everything_dies_with_up_however_it_dies(house: House) -> None:
    up = house.up()
    assert up.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not any(_runs(child) for child in up.children), "all children are gone")
    # The next one clears what could not be cleared.
    again = house.up()
    assert again.get("/map/double", "[4]") == (200, [8])
    assert again.stop(signal.SIGINT) == 0
    house.nothing_is_left()


def test_up_starts_again_what_crashes(house: House) -> None:
    up = house.up()
    for part in ("worker", "api", "nats-server"):
        before = up.child(part)
        before.kill()
        wait_until(lambda before=before: not _runs(before), f"{part} is gone")
        wait_until(lambda: up.get("/readyz")[0] == 200, f"ready without the first {part}")
        wait_until(
            lambda: up.get("/map/double", "[5]") == (200, [10]), f"maps without the first {part}"
        )
        assert up.child(part).pid != before.pid
    assert up.stop() == 0
    house.nothing_is_left()


def test_up_reloads(house: House) -> None:
    up = house.up("--reload")
    assert up.get("/map/double", "[5]") == (200, [10])
    house.tasks.write_text(TASKS.replace("2 * n + plus", "3 * n + plus"), encoding="utf-8")
    wait_until(lambda: up.get("/map/double", "[5]") == (200, [15]), "the new function")
    assert up.stop() == 0


def test_up_tells_other_hosts_how_to_join(house: House) -> None:
    secret = house.directory / "nats-password"
    secret.write_text("correct-horse", encoding="utf-8")
    up = house.up("--nats-host", "0.0.0.0", "--nats-password-file", "nats-password")
    # The command stands on a line of its own, after those of the broker and its store.
    assert up.process.stdout is not None
    lines = [up.process.stdout.readline() for _ in range(4)]
    command = lines[-1].split()
    assert command[:3] == ["jetmap", "worker", "tasks.py"]
    worker = house.start(*command[1:])
    wait_until(lambda: _ready(up) == 4, "the other host's cores joined")
    house.descendants(worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    wait_until(lambda: _ready(up) == 2, "and left")
    assert up.stop() == 0
    house.nothing_is_left()


def test_a_worker_finishes_on_the_first_signal_and_ends_on_the_second(house: House) -> None:
    up = house.up("--cores", "1")
    worker = house.start("worker", "tasks.py", "--cores", "1")
    wait_until(lambda: _ready(up) == 2, "both are ready")
    mapping = house.start("map", "slow")
    assert mapping.stdin is not None
    mapping.stdin.write("3\n3\n")
    mapping.stdin.close()
    wait_until(lambda: _busy(up) == 2, "both are busy")
    house.descendants(worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert mapping.wait(20) == 0

    worker = house.start("worker", "tasks.py", "--cores", "1", "--grace", "60")
    wait_until(lambda: _ready(up) == 2, "both are ready again")
    mapping = house.start("map", "slow")
    assert mapping.stdin is not None
    mapping.stdin.write("40\n40\n")
    mapping.stdin.close()
    wait_until(lambda: _busy(up) == 2, "both are busy again")
    house.descendants(worker)
    worker.send_signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM: finishing within 60 s" in house.said, "it drains")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0


# jetmap demo


def test_demo_runs_whole_and_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real demonstration, over less input."""
    few = source_metrics()
    few = Work(few.title, few.function, few.items[:80], few.weights[:80], few.summarize, "80 files")
    monkeypatch.setattr(demo, "source_metrics", lambda: few)
    monkeypatch.setattr("jetmap.demo.work.PRIMES_PER_CORE", 20)
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, house.environment[name])
    monkeypatch.chdir(house.directory)
    settings = demo.own(Settings.load(cores="2"))
    asyncio.run(demo._work(settings, Console(width=120, highlight=False)))
    assert not (house.directory / "state").exists()
    said = capsys.readouterr().out
    assert re.search(r"workers on 2 cores: ready in \d+\.\d s", said)
    assert "the largest found is 100,039,000," in said
    for title in ("source metrics", "prime search"):
        assert re.search(rf"{title} +\d+\.\d\d s +\d+\.\d\d s +\d+\.\d\d +\d+%", said), said
    house.nothing_is_left()


def test_the_demo_ignores_what_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_NATS_URL", "nats://elsewhere:4222")
    monkeypatch.setenv("JETMAP_HOST", "0.0.0.0")
    monkeypatch.setenv("JETMAP_RECYCLE_CHUNKS", "1")
    settings = demo.own(Settings.load(cores="1"))
    assert (settings.nats_url, settings.host, settings.port) == (None, "127.0.0.1", 0)
    assert (settings.cores, settings.recycle_chunks) == ("1", None)
    assert settings.read_token()


def test_a_sample_stands_for_the_whole() -> None:
    work = prime_search(2)
    whole = sample(work, parallel_seconds=2.0, cores=2)
    assert (whole.step, whole.factor, whole.items) == (1, 1.0, work.items)
    part = sample(work, parallel_seconds=40.0, cores=2)
    assert part.step == 4
    assert len(part.items) == len(work.items) / 4
    assert part.factor == 4.0
    assert "one in 4" in str(part)


# The supervisor's parts


def test_backoff_grows_and_is_forgotten() -> None:
    backoff = Backoff()
    pauses = [backoff.after(lived=0.0) for _ in range(8)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    assert backoff.after(lived=60.0) == FIRST_PAUSE


def find_up(house: House) -> Any:
    previous = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(house.runtime)
    try:
        found = find_running(house.directory)
    finally:
        if previous is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = previous
    assert found is not None
    return found


def _busy(up: Up) -> int:
    return sum(agent["busy"] for agent in up.get("/workers")[1])


def _ready(up: Up) -> int:
    return sum(agent["ready"] for agent in up.get("/workers")[1])
