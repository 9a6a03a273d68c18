"""The command line as a user has it: a directory with tasks, and real processes in it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import ExitStack, chdir, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple
from unittest.mock import patch

import psutil
import pytest

from jetmap.cli.app import build
from jetmap.client.local_up import this_python
from jetmap.embedded.running import Registration, find_running, register_up
from jetmap.wire.seals import new_key
from waiting import PATIENCE, wait_until_sync

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
    time.sleep(seconds)  # It computes.
    return os.getpid()
"""

UP = ("up", "tasks.py", "--port", "0", "--nats-port", "0")

# A program that makes its stdin the terminal of its session, as a window does for its shell.
IN_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
IN_TERMINAL += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"

STOPPED_BY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Called(NamedTuple):
    """The end of a command in this process, named as that of another."""

    returncode: int
    stdout: str
    stderr: str


class House:
    """A directory with tasks, and a runtime directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # With a longer path it would not be used, but the user's own.
        self.runtime = Path(tempfile.mkdtemp(prefix="jm-", dir="/tmp"))
        self.tasks = directory / "tasks.py"
        self.tasks.write_text(TASKS, encoding="utf-8")
        kept = {name: text for name, text in os.environ.items() if not name.startswith("JETMAP_")}
        self.environment = kept | {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(directory / "state"),
            "TMPDIR": str(directory),
            "JETMAP_CORES": "2",
            "JETMAP_PORT": "0",
            "JETMAP_GRACE": "5",
            "COLUMNS": "200",
        }
        self._started: list[subprocess.Popen[str]] = []
        self._seen: set[psutil.Process] = set()

    def start(
        self, *arguments: str, stderr_fd: int | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        """``jetmap …`` in the background, in a process group of its own as a shell starts it.

        stderr_fd: another place for its stderr, closed here.
        """
        file = self.directory / "stderr"
        with file.open("a") if stderr_fd is None else os.fdopen(stderr_fd, "w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "jetmap.cli", *arguments],
                cwd=self.directory,
                env=self.environment | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                process_group=0,
            )
        self._started.append(process)
        return process

    def start_in_terminal(self, *arguments: str) -> tuple[subprocess.Popen[str], int]:
        """``jetmap …`` in a terminal of its own, but for its stdout.

        Returns also the descriptor whose close closes the terminal. Nobody reads that, and it takes
        only 4 KiB, so the command logs warnings only.
        """
        terminal, inside = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, "-m", "jetmap.cli", *arguments],
            cwd=self.directory,
            env=self.environment | {"JETMAP_LOG_LEVEL": "warning"},
            stdin=inside,
            stdout=subprocess.PIPE,
            stderr=inside,
            text=True,
            start_new_session=True,
        )
        os.close(inside)
        self._started.append(process)
        return process, terminal

    def run(
        self, *arguments: str, input: str = "", timeout: float = PATIENCE, **variables: str
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

    def call(self, *arguments: str, input: str = "", **variables: str) -> Called:
        """``jetmap …`` to its end in this process, where the process is not the point.

        It takes a fifth of the CPU of one that starts an interpreter. Commands that import tasks
        need a process of their own.
        """
        handlers, signals = logging.root.handlers[:], map(signal.getsignal, STOPPED_BY)
        handled = dict(zip(STOPPED_BY, signals, strict=True))
        environment = self.environment | variables
        code: Any = None
        with ExitStack() as stack:
            stack.enter_context(chdir(self.directory))
            stack.enter_context(patch.dict(os.environ, environment, clear=True))
            files = [stack.enter_context(TemporaryFile("w+", encoding="utf-8")) for _ in range(3)]
            for name, file in zip(("stdin", "stdout", "stderr"), files, strict=True):
                stack.enter_context(patch.object(sys, name, file))
            files[0].write(input)
            files[0].seek(0)
            try:
                build(list(arguments))(list(arguments), prog_name="jetmap")
            except SystemExit as end:
                code = end.code
            finally:
                logging.root.handlers[:] = handlers
                for number, handler in handled.items():
                    signal.signal(number, handler)
            for file in files[1:]:
                file.seek(0)
            stdout, stderr = (file.read() for file in files[1:])
        assert "Traceback" not in stderr + stdout, stderr
        return Called(int(code or 0), stdout, stderr)

    def up(self, *options: str) -> Up:
        return Up(self, self.start(*UP, *options))

    def running(self) -> Any:
        """The ``up`` of this directory, as other commands find it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(self.runtime))
            found = find_running(self.directory)
        assert found is not None
        return found

    @property
    def said(self) -> str:
        """The stderr of background processes."""
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
        wait_until_sync(lambda: not any(runs(process) for process in self._seen), "all are gone")
        wait_until_sync(lambda: not _files(self.runtime), "no file is left")
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
        shutil.rmtree(self.runtime, ignore_errors=True)


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
        wait_until_sync(lambda: self.get("/readyz")[0] == 200, "ready")
        self.children = house.descendants(process)

    def get(self, path: str, body: str | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.url + path,
            body.encode() if body is not None else None,
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)
        except OSError:
            return 0, None

    @property
    def busy(self) -> int:
        """Cores that compute."""
        return sum(agent["busy"] for agent in self.get("/workers")[1])

    @property
    def ready(self) -> int:
        """Cores whose worker is there."""
        return sum(agent["ready"] for agent in self.get("/workers")[1])

    def child(self, part: str) -> psutil.Process:
        """The child whose arguments hold this word."""
        for child in self.house.descendants(self.process):
            try:
                if part in child.cmdline()[-1] or part in child.cmdline()[0]:
                    return child
            except psutil.NoSuchProcess:
                continue
        raise AssertionError(f"no child {part}")

    def interrupt(self) -> None:
        """Send SIGINT to the whole foreground, as Ctrl-C at a terminal does."""
        self.house.descendants(self.process)
        os.killpg(self.process.pid, signal.SIGINT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.house.descendants(self.process)
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def _files(place: Path) -> list[str]:
    """Return the names with a dot below a directory, also while some of them vanish."""
    return [name for _, under, files in os.walk(place) for name in (*under, *files) if "." in name]


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def registered(place: Path, **more: Any) -> Registration:
    from jetmap import __version__

    given = {"key": new_key().hex(), "version": __version__, "python": this_python()} | more
    return register_up(place, "nats://127.0.0.1:1", "jetmap", "secret", **given)
