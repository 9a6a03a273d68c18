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


def test_the_headers_are_those_of_nats_py() -> None:
    real = nats.js.api.Header
    for header in deferred.NatsHeader:
        assert real[header.name].value == header.value == real[header.name]


def test_a_process_that_connects_runs_none_of_them() -> None:
    assert run(f"{BEFORE}print('nats.js.client' in sys.modules)") == "False"
    # What the client asks for the status of a message leaves it so.
    client = "import nats; nats.js.api.Header.STATUS; nats.js.api.Header.DESCRIPTION; "
    assert run(f"{BEFORE}{client}print('nats.js.client' in sys.modules)") == "False"


def test_whoever_uses_them_gets_them_whatever_the_way() -> None:
    same = "print(C is nats.js.client.JetStreamContext, S is nats.js.api.StreamConfig, "
    same += "nats.js.JetStreamContext is C, type(nats.js))"
    for ways in (
        "from nats.js import JetStreamContext as C; from nats.js.api import StreamConfig as S",
        "from nats.js.api import StreamConfig as S; "
        "from nats.js.client import JetStreamContext as C",
        "import nats.js.api; S = nats.js.api.StreamConfig; C = type(nats.NATS().jetstream())",
        "from nats.js import api; S = api.StreamConfig; "
        "import nats.js.client as c; C = c.JetStreamContext",
    ):
        assert run(f"{BEFORE}import nats, nats.js.client; {ways}; {same}") == (
            "True True True <class 'module'>"
        )
        assert run(f"{BEFORE}import nats; {ways}; {same}") == "True True True <class 'module'>"


def test_a_star_gets_everything() -> None:
    program = f"{BEFORE}from nats.js.api import *\nprint(StreamConfig.__module__)"
    assert run(program) == "nats.js.api"


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    program = "import nats\ntry:\n nats.js.nothing\nexcept AttributeError as e:\n print(e)"
    assert run(BEFORE + program) == "module 'nats.js' has no attribute 'nothing'"


def test_what_was_imported_before_stays_as_it_is() -> None:
    program = "import nats, sys; before = nats.js.api; import jetmap.nats.connection; "
    assert run(f"{program}print(nats.js.api is before, type(nats.js))") == ("True <class 'module'>")
