"""nats-py's JetStream classes, which run only where they are used."""

from __future__ import annotations

import subprocess
import sys

import nats.js.api

from jetmap.nats import deferred

BEFORE = "import jetmap.nats.connection, sys\n"


def run(program: str) -> str:
    """Run a program in a fresh interpreter; return what it prints."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# Runs each program that follows in a fork, as if it had begun with the import above it.
FORKS = """
import os, sys
for program in sys.argv[1:]:
    sys.stdout.flush()
    if not (child := os.fork()):
        exec(program, {})
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def run_each(*programs: str) -> list[str]:
    """Run programs of one line of output, each in an interpreter with nothing but ``BEFORE``."""
    command = [sys.executable, "-c", BEFORE + FORKS, *programs]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_headers_are_those_of_nats_py() -> None:
    real = nats.js.api.Header
    for header in deferred.NatsHeader:
        assert real[header.name].value == header.value == real[header.name]


def test_a_process_that_connects_runs_none_of_them() -> None:
    runs = "import sys; print('nats.js.client' in sys.modules)"
    # What the client asks for the status of a message leaves it so.
    client = "import nats; nats.js.api.Header.STATUS; nats.js.api.Header.DESCRIPTION; "
    assert run_each(runs, client + runs) == ["False", "False"]


def test_whoever_uses_them_gets_them_whatever_the_way() -> None:
    same = "print(C is nats.js.client.JetStreamContext, S is nats.js.api.StreamConfig, "
    same += "nats.js.JetStreamContext is C, type(nats.js))"
    ways = (
        "from nats.js import JetStreamContext as C; from nats.js.api import StreamConfig as S",
        "from nats.js.api import StreamConfig as S; "
        "from nats.js.client import JetStreamContext as C",
        "import nats.js.api; S = nats.js.api.StreamConfig; C = type(nats.NATS().jetstream())",
        "from nats.js import api; S = api.StreamConfig; "
        "import nats.js.client as c; C = c.JetStreamContext",
    )
    imports = ("import nats, nats.js.client", "import nats")
    programs = [f"{first}; {way}; {same}" for first in imports for way in ways]
    assert run_each(*programs) == ["True True True <class 'module'>"] * 8


def test_a_star_gets_everything() -> None:
    program = "from nats.js.api import *\nprint(StreamConfig.__module__)"
    assert run_each(program) == ["nats.js.api"]


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    program = "import nats\ntry:\n nats.js.nothing\nexcept AttributeError as e:\n print(e)"
    assert run_each(program) == ["module 'nats.js' has no attribute 'nothing'"]


def test_what_was_imported_before_stays_as_it_is() -> None:
    program = "import nats, sys; before = nats.js.api; import jetmap.nats.connection; "
    assert run(f"{program}print(nats.js.api is before, type(nats.js))") == ("True <class 'module'>")
