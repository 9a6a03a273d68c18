"""Import TASKS in a process of their own, as workers do, and describe what is wrong.

A file that ends its process, or crashes it, does not end the command with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from jetmap.agent.watchdogs import import_failure
from jetmap.agent.worker_state import Death
from jetmap.errors import ConfigurationError
from jetmap.machine import die_with_parent, working_directory
from jetmap.wire.worker_start import Importing
from jetmap.worker.spawn import interpreter


class Found(msgspec.Struct):
    """The functions of an import, and what is wrong.

    importing: the argument whose import has begun, and not ended.
    """

    functions: list[str] = []
    problems: list[str] = []
    importing: str = ""


def try_import(tasks: Sequence[str]) -> Found:
    """Import TASKS in a new process; return their functions and problems."""
    path = tuple(dict.fromkeys([str(working_directory()), *filter(None, sys.path)]))
    with tempfile.TemporaryFile() as answers:
        fd = answers.fileno()
        statement = f"report({fd}, {os.getpid()}, {list(tasks)!r})"
        command = interpreter(path, "from jetmap.cli.trial_import import report", statement)
        process = subprocess.run(command, stdin=subprocess.DEVNULL, pass_fds=[fd], check=False)
        answers.seek(0)
        lines = answers.read().splitlines()
    found = msgspec.json.decode(lines[-1], type=Found) if lines else Found(importing=tasks[0])
    if found.importing:
        code = process.returncode
        death = Death(-code if code < 0 else None, code if code >= 0 else None, 0)
        found.problems.append(import_failure(Importing(found.importing), death, "Python"))
    return found


def report(fd: int, parent: int, tasks: list[str]) -> None:
    """Import the TASKS; write what is found to a file, one line after each step."""
    from jetmap.functions.task import registered
    from jetmap.worker import main

    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # The command hears of it, too.
    os.set_inheritable(fd, False)
    main.in_worker = True  # As in a worker, the module must not start a Cluster.
    found = Found()
    for argument in tasks:
        found.importing = argument
        _write(fd, found)
        found.problems += _problems_of(argument)
    found.importing = ""
    for function in registered():
        try:
            function.info()
        except TypeError as exc:
            found.problems.append(str(exc))
    found.functions = sorted(function.name for function in registered())
    _write(fd, found)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # The file may have closed it.
            stream.flush()
    os._exit(0)  # Threads that the file has started are not waited for.


def _write(fd: int, found: Found) -> None:
    os.write(fd, msgspec.json.encode(found) + b"\n")


def _problems_of(argument: str) -> list[str]:
    from jetmap.functions.import_errors import format_import_error
    from jetmap.functions.importing import load

    try:
        load(tasks=[argument])
    except ConfigurationError as exc:
        return exc.problems
    except BaseException as exc:  # A file that exits is a problem of the file, too.
        return [f"{argument}: {format_import_error(exc)}"]
    return []
