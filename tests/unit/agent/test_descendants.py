"""Processes that functions start, ended with their worker."""

from __future__ import annotations

import os
import subprocess

import pytest

from jetmap.agent import descendants
from jetmap.agent.descendants import end_marked
from waiting import PATIENCE

VARIABLE = "TEST_DESCENDANTS"


def test_only_what_has_the_mark_is_ended() -> None:
    child = subprocess.Popen(
        ["sleep", "1000"], start_new_session=True, env={**os.environ, VARIABLE: "ours"}
    )
    try:
        for other in ("our", "ours2", "", "other"):
            end_marked(VARIABLE, other)
        assert child.poll() is None
        end_marked(VARIABLE, "ours")
        assert child.wait(PATIENCE) == -9
    finally:
        child.kill()
        child.wait()


def test_what_is_started_meanwhile_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    living, looks = {1, 2}, 0

    def pids() -> list[int]:
        nonlocal looks
        looks += 1
        return sorted(living)

    def kill(pid: int, variable: str, mark: str) -> None:
        assert (variable, mark) == ("V", "m")
        living.discard(pid)
        if pid < 10:
            living.add(pid + 5)  # It was just starting this one.

    monkeypatch.setattr(descendants, "_pids", pids)
    monkeypatch.setattr(descendants, "_is_marked", lambda pid, variable, mark: True)
    monkeypatch.setattr(descendants, "_kill", kill)
    end_marked("V", "m")
    assert not living and looks == 5, "it looks twice more when nothing is found"


def test_what_starts_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(descendants, "_PAUSE", 0.0)
    monkeypatch.setattr(descendants, "_pids", lambda: [1])
    monkeypatch.setattr(descendants, "_is_marked", lambda pid, variable, mark: True)
    monkeypatch.setattr(descendants, "_kill", lambda pid, variable, mark: killed.append(pid))
    end_marked("V", "m")
    assert len(killed) == descendants._ROUNDS
