"""README.md and docs/celery.md are executed, each from the top to the bottom.

A snippet is a file or a terminal. A Python snippet is the file that its first line names. In a
console snippet, lines that start
with ``$ `` are commands and the others are what they print, where ``…`` stands for anything, on
a line of its own for any lines. A command that does not end by itself is left running when it
has printed what is expected of it, until the next ``jetmap up`` or ``uvicorn``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from nodes import free_ports
from waiting import PATIENCE, wait_until_sync

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")
SERVERS = ("jetmap up ", "jetmap worker ", "uvicorn ")
FIRST_HOST = "10.0.0.5"


@dataclass(frozen=True)
class Snippet:
    line: int
    language: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command, with the output that is expected of it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def snippets(page: Path = README) -> list[Snippet]:
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in FENCE.finditer(text)
    ]


def pattern(expected: str) -> re.Pattern[str]:
    """Return the pattern of the whole output, without white space at its end."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n"
        for line in expected.rstrip().split("\n")
    ]
    return re.compile("".join(lines) + r"\s*")


class Server:
    """A command that goes on. Its whole output is in a file."""

    def __init__(self, command: str, log: Path, cwd: Path, environment: dict[str, str]) -> None:
        self.command = command
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command.split(), cwd=cwd, env=environment, stdout=output, stderr=output
            )

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def has_printed(self, expected: re.Pattern[str]) -> bool:
        assert self._process.poll() is None, f"{self.command} ended: {self.output}"
        if "Traceback" in self.output:
            pytest.fail(f"{self.command}: {self.output}")
        return expected.search(self.output) is not None

    def stop(self) -> None:
        """Ctrl-C, which ends it well."""
        self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
        assert code == 0, f"{self.command} ended with {code}: {self.output}"


class Reader:
    """Somebody who does what the README says, in a directory of their own."""

    def __init__(self, home: Path, runtime: Path) -> None:
        self._home = home
        self._runtime = runtime
        self._port, self._broker_port = free_ports(2)
        self._servers: list[Server] = []
        self._started = 0
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JETMAP_", "MAKE", "MFLAGS"))  # as from a shell, not a make
        } | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_STATE_HOME": str(runtime / "state"),
            "JETMAP_PORT": str(self._port),
            "JETMAP_NATS_PORT": str(self._broker_port),
            "UVICORN_PORT": str(self._port),
            "PYTHONUNBUFFERED": "1",
        }

    def does(self, snippet: Snippet) -> None:
        if snippet.language == "python":
            name = snippet.text.partition("\n")[0].removeprefix("# ")
            assert re.fullmatch(r"\w+\.py", name), f"README.md:{snippet.line} names no file"
            (self._home / name).write_text(snippet.text, encoding="utf-8")
            return
        for command, expected in snippet.commands():
            if command.startswith(SERVERS):
                self._start(command, expected)
            elif command.startswith("make "):
                self._make(command)
            else:
                self._run(command, expected)

    def leaves(self) -> None:
        """End all processes; every embedded cluster ends after its users."""
        while self._servers:
            self._servers.pop().stop()
        wait_until_sync(
            lambda: not list((self._runtime / "jetmap").glob("*.lock")),
            "no cluster of this reader is left",
            40,
        )

    def _start(self, command: str, expected: str) -> None:
        if not command.startswith("jetmap worker "):
            while self._servers:
                self._servers.pop().stop()
        self._started += 1
        log = self._runtime / f"{self._started}.log"
        server = Server(self._here(command), log, self._home, self._environment)
        self._servers.append(server)
        wanted = pattern(self._here(expected))
        try:
            wait_until_sync(lambda: server.has_printed(wanted), f"{command} prints {expected}")
        except pytest.fail.Exception as error:
            pytest.fail(f"{error}, but {server.output!r}")
        if command.startswith("jetmap up "):
            wait_until_sync(self._is_ready, "the gateway has workers")

    def _run(self, command: str, expected: str) -> None:
        # Into a pipe curl also shows its progress, which is not what a reader sees.
        result = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self._here(command).replace("curl ", "curl -sS ")],
            cwd=self._home,
            env=self._environment,
            capture_output=True,
            timeout=60,
        )
        output = result.stdout.decode() + "\n"
        assert result.returncode == 0, f"{command}: {output}{result.stderr.decode()}"
        assert pattern(self._here(expected)).fullmatch(output), f"{command} printed {output!r}"

    def _make(self, command: str) -> None:
        # The environment that it sets up is the one that we are in, and what it runs has tests
        # of its own (and takes a minute): here only that it runs just that.
        ready = self._runtime / "venv" / ".ready"
        ready.parent.mkdir()
        ready.touch()
        printed = subprocess.check_output(
            ["make", "--dry-run", *command.split()[1:], f"VENV={ready.parent}"],
            cwd=ROOT,
            text=True,
            env=self._environment,
        )
        assert printed == f"{ready.parent}/bin/jetmap demo\n"
        subprocess.check_output(["jetmap", "demo", "--help"], env=self._environment)

    def _here(self, text: str) -> str:
        """Replace ports by those of this test, and another host's address by this machine's."""
        text = text.replace(":8000", f":{self._port}").replace(":4222", f":{self._broker_port}")
        return text.replace(f"--nats nats://{FIRST_HOST}", f"--nats nats://{self._first_host()}")

    def _first_host(self) -> str:
        """Return the first host's command for others, as the running ``up`` prints it."""
        for server in self._servers:
            if found := re.search(r"--nats nats://([^:]+):", server.output):
                return found[1]
        return "…"

    def _is_ready(self) -> bool:
        return httpx.get(f"http://127.0.0.1:{self._port}/readyz").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, ROOT / "docs" / "celery.md"], ids=lambda page: page.name)
def test_every_snippet_does_what_it_says(page: Path, reader: Reader) -> None:
    for snippet in snippets(page):
        reader.does(snippet)


def test_the_first_steps_do_what_they_say(reader: Reader) -> None:
    """Those of the first section; all of them take a minute."""
    section = README.read_text(encoding="utf-8").partition("\n## Ways to use it\n")[0]
    first = [snippet for snippet in snippets() if snippet.line <= section.count("\n")]
    assert len(first) >= 3
    for snippet in first:
        reader.does(snippet)


@pytest.fixture
def reader(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    for tool in ("bash", "curl", "make", "openssl", "seq"):
        assert shutil.which(tool), f"README.md uses {tool}, which is not installed"
    made = Reader(tmp_path, tmp_path_factory.mktemp("run"))
    try:
        yield made
    finally:
        made.leaves()


def test_every_snippet_is_of_a_kind_that_is_executed() -> None:
    assert {snippet.language for snippet in snippets()} == {"python", "console"}
    for snippet in snippets():
        assert snippet.language == "python" or snippet.text.startswith("$ ")


@pytest.mark.parametrize("document", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"
