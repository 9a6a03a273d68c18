"""End every command with a sentence on stderr and a named exit code, never with a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum

import typer

from jetmap import errors
from jetmap.logs import harmless
from jetmap.machine import advice_for

from .streams import OutputFailed, ReaderGone, drop_output


class Exit(IntEnum):
    """The exit codes, which ``--help`` lists."""

    OK = 0
    ITEMS_FAILED = 1
    USAGE = 2
    BROKER = 3
    WORKERS = 4
    TIMEOUT = 5
    STORE = 6
    OUTPUT = 7
    INTERNAL = 70
    INTERRUPTED = 130


class ChildFailed(errors.JetmapError):
    """A child process failed in a way that would repeat if it was started again."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"the {name} ended with exit code {code}; its message is above")
        self.exit_code = code


MEANING = {
    Exit.OK: "done",
    Exit.ITEMS_FAILED: "items failed, or a job did",
    Exit.USAGE: "wrong usage, configuration or input",
    Exit.BROKER: "no broker, or it refuses access",
    Exit.WORKERS: "no worker, or the workers cannot start",
    Exit.TIMEOUT: "not done in time",
    Exit.STORE: "no store for jobs, or it is full",
    Exit.OUTPUT: "the output cannot be written",
    Exit.INTERNAL: "a fault in jetmap",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
}

# The first match counts.
CODES: list[tuple[type[BaseException], Exit]] = [
    (errors.ItemError, Exit.ITEMS_FAILED),
    (errors.ConfigurationError, Exit.USAGE),
    (errors.LimitExceeded, Exit.USAGE),
    (errors.DuplicateFunction, Exit.USAGE),
    (errors.NotImportable, Exit.USAGE),
    (errors.BrokerUnreachable, Exit.BROKER),
    (errors.TopologyMismatch, Exit.BROKER),
    (errors.BrokerRefused, Exit.BROKER),
    (errors.UnknownFunction, Exit.WORKERS),
    (errors.NoWorkers, Exit.WORKERS),
    (errors.WorkerStartFailed, Exit.WORKERS),
    (errors.MapTimeout, Exit.TIMEOUT),
    (errors.MapCancelled, Exit.ITEMS_FAILED),
    (errors.TooManyFailed, Exit.ITEMS_FAILED),
    (errors.JobEnded, Exit.ITEMS_FAILED),
    (errors.UnknownJob, Exit.USAGE),
    (errors.KeyReused, Exit.USAGE),
    (errors.KeyBusy, Exit.TIMEOUT),
    (errors.JobError, Exit.STORE),
    (OutputFailed, Exit.OUTPUT),
    (KeyboardInterrupt, Exit.INTERRUPTED),
]


def code_of(exc: BaseException) -> Exit:
    """Return the exit code for an error."""
    return next((code for cls, code in CODES if isinstance(exc, cls)), Exit.INTERNAL)


def say(message: str) -> None:
    """Print a message on stderr, marked as jetmap's."""
    text = harmless(message.replace("\r\n", "\n"), lines=True)
    first, *rest = text.splitlines() or [""]
    with suppress(OSError):  # stderr cannot be written either.
        print("\n".join([f"jetmap: {first}", *rest]), file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def exits() -> Iterator[None]:
    """Turn an exception of a command into a message and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BaseException as exc:
        exc = _first_of(exc)
        if isinstance(exc, OutputFailed | ReaderGone):
            drop_output()
        if isinstance(exc, ReaderGone):  # It has read as much as it wanted.
            raise typer.Exit(Exit.OK) from None
        code = exc.exit_code if isinstance(exc, ChildFailed) else code_of(exc)
        if isinstance(exc, errors.ConfigurationError):
            say(_listed(exc.problems))
        elif isinstance(exc, errors.JetmapError):
            say(str(exc))
        else:
            say(_fault(exc))
        raise typer.Exit(code) from None


def _first_of(exc: BaseException) -> BaseException:
    """Return the first error of a group."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _listed(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n".join([f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems)])


def _fault(exc: BaseException) -> str:
    name = type(exc).__name__
    if os.environ.get("JETMAP_DEBUG", "").lower() in ("1", "true", "yes", "on"):
        return f"a fault in jetmap: {name}: {exc}\n" + "".join(traceback.format_exception(exc))
    if advice := advice_for(exc):
        return f"{exc}{advice}"
    return f"a fault in jetmap: {name}: {exc} (JETMAP_DEBUG=true shows where)"
