"""Run the tests of several files at once, in processes that are forked after the collection.

``--at-once 8``: eight of them. Each takes the next file when it is done with one. They cost next
to nothing: to import every test, as each process of xdist does, takes ten seconds of CPU. See
decision 0600.
"""

from __future__ import annotations

import os
import signal
import struct
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TextIO, cast

import pytest

_NUMBER = struct.Struct("!I")

File = list[pytest.Item]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--at-once",
        type=int,
        default=0,
        metavar="COUNT",
        help="run the tests of this number of files at once",
    )


def pytest_configure(config: pytest.Config) -> None:
    if (count := config.getoption("--at-once")) and not config.option.usepdb:
        config.pluginmanager.register(Parent(count), "at-once")


@dataclass(frozen=True)
class Started:
    """A process began with a test."""

    name: str
    location: tuple[str, int | None, str]


@dataclass(frozen=True)
class Reported:
    """A phase of a test has a report."""

    report: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A process is done with its test."""


@dataclass
class Child:
    """A forked process, as its parent knows it."""

    pid: int
    pipe: Connection
    test: Started | None = None


class Parent:
    """Fork the processes, and pass on what they report."""

    def __init__(self, count: int) -> None:
        self._count = count

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        files = [list(items) for _, items in groupby(session.items, lambda item: item.path)]
        if session.testsfailed or session.config.option.collectonly or len(files) < 2:
            return None
        with _queue(len(files)) as queue:
            children = _fork(session, files, queue, min(self._count, len(files)))
            try:
                while children:
                    for pipe in wait([child.pipe for child in children]):
                        child = next(child for child in children if child.pipe is pipe)
                        if not _receive(session, child):
                            children.remove(child)
                            pipe.close()
                            os.waitpid(child.pid, 0)
                    if session.shouldfail:
                        raise session.Failed(session.shouldfail)
                    if session.shouldstop:
                        raise session.Interrupted(session.shouldstop)
                if os.read(queue, _NUMBER.size):
                    raise session.Failed("all processes died before the last file")
            finally:
                for child in children:
                    os.kill(child.pid, signal.SIGINT)
                for child in children:
                    with suppress(EOFError, OSError):
                        while True:
                            child.pipe.recv()
                    os.waitpid(child.pid, 0)
        return True


@contextmanager
def _queue(count: int) -> Iterator[int]:
    """A pipe with the files' numbers: a read of one is undivided, whoever reads."""
    reader, writer = os.pipe()
    os.write(writer, b"".join(_NUMBER.pack(number) for number in range(count)))
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)


def _fork(session: pytest.Session, files: Sequence[File], queue: int, count: int) -> list[Child]:
    children: list[Child] = []
    temporary = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    for number in range(count):
        here, there = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _become_child(session.config, there, temporary / f"at-once-{number}")
                _run(session, files, queue)
                code = 0
            except KeyboardInterrupt:
                pass
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        there.close()
        children.append(Child(pid, here))
    return children


def _receive(session: pytest.Session, child: Child) -> bool:
    """Pass on one message of a process; return whether there may be more."""
    hook = session.config.hook
    try:
        message = child.pipe.recv()
    except (EOFError, OSError):
        if child.test is not None:
            hook.pytest_runtest_logreport(report=_crash(child.test))
        return False
    if isinstance(message, Started):
        child.test = message
    elif isinstance(message, Reported):
        report = hook.pytest_report_from_serializable(config=session.config, data=message.report)
        hook.pytest_runtest_logreport(report=report)
    else:
        assert child.test is not None
        hook.pytest_runtest_logfinish(nodeid=child.test.name, location=child.test.location)
        child.test = None
    return True


def _crash(test: Started) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=test.name,
        location=test.location,
        keywords={},
        outcome="failed",
        longrepr=f"the process died in {test.name}; the later tests of the file did not run",
        when="call",
    )


# In the forked processes


class Reports:
    """Send a test's reports to the parent."""

    def __init__(self, config: pytest.Config, pipe: Connection) -> None:
        self._config = config
        self._pipe = pipe

    @pytest.hookimpl
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._pipe.send(Started(nodeid, location))

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._pipe.send(Reported(data))

    @pytest.hookimpl
    def pytest_runtest_logfinish(self) -> None:
        self._pipe.send(Finished())


def _become_child(config: pytest.Config, pipe: Connection, temporary: Path) -> None:
    """Have outputs and temporary directories of its own, and leave the terminal to the parent."""
    plugins = config.pluginmanager
    plugins.unregister(name="at-once")
    config.get_terminal_writer()._file = cast(TextIO, Path(os.devnull).open("w"))  # noqa: SIM115
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()  # Its file is the parent's.
    capture.start_global_capturing()
    capture.suspend_global_capture()
    temporary.mkdir(0o700)
    config._tmp_path_factory._basetemp = temporary  # type: ignore[attr-defined]
    plugins.register(Reports(config, pipe), "at-once-reports")


def _run(session: pytest.Session, files: Sequence[File], queue: int) -> None:
    while number := os.read(queue, _NUMBER.size):
        file = files[_NUMBER.unpack(number)[0]]
        for item, following in zip(file, [*file[1:], None], strict=True):
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            except KeyboardInterrupt:
                session._setupstate.teardown_exact(None)
                raise
