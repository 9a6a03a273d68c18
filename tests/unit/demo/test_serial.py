"""The plain loop that the demo compares with."""

from __future__ import annotations

import io
import json
import os
import sys
from types import ModuleType

import pytest

from jetmap.demo import serial


def test_the_loop_reports_its_progress_and_times(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: None, raising=False)
    monkeypatch.setattr(serial, "TELL_SECONDS", -1.0)
    order = {"function": "next_prime", "items": [4, 24]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order)))
    serial.main()
    *progress, last = capsys.readouterr().out.splitlines()
    assert progress == ["1", "2"]
    found = json.loads(last)
    assert found["seconds"] >= 0 and found["cpu"] >= 0
