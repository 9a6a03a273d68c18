"""The command, the environment and the descriptors of a worker process."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jetmap.worker import spawn
from jetmap.worker.spawn import MARK, interpreter, spawn_worker


def test_an_interpreter_has_the_callers_path_and_flags(tmp_path: Path) -> None:
    """Files of the user hide nothing while jetmap is imported, and are found afterwards."""
    for name in ("types", "random"):
        (tmp_path / f"{name}.py").write_text("mine = True\n")
    path = [str(tmp_path), *filter(None, sys.path)]
    imports = "import random, jetmap.worker.main; assert not hasattr(random, 'mine')"
    show = "del sys.modules['random']; import random; print(sys.path[0], random.mine)"
    command = interpreter(path, imports, show)
    assert command[0] == sys.executable and command[-2] == "-c"
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout == f"{tmp_path} True\n", found.stderr


def test_a_worker_has_its_mark_and_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_NATS_PASSWORD", "secret")
    monkeypatch.setenv("OWN_SETTING", "stays")
    started: dict[str, Any] = {}

    def popen(command: list[str], **options: Any) -> None:
        started.update(options, command=command)

    monkeypatch.setattr(spawn.subprocess, "Popen", popen)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        spawn_worker(
            sys_path=["/a"],
            cwd="/",
            pipe=theirs,
            progress_fd=7,
            raw_output=8,
            output_fd=9,
            cpu=1,
            mark="m",
        )
        assert started["pass_fds"] == (theirs.fileno(), 7, 9)
    environment = started["env"]
    assert environment[MARK] == "m" and environment["OWN_SETTING"] == "stays"
    assert [name for name in environment if name.startswith("JETMAP_")] == [MARK]
    assert started["start_new_session"] and started["stdin"] == subprocess.DEVNULL
    assert started["stdout"] == started["stderr"] == 8
