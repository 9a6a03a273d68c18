"""Finding the ``up`` of a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap.embedded.running import already_runs, find_running, read_running, register_up

pytestmark = pytest.mark.usefixtures("runtime")


def test_found_until_closed(tmp_path: Path) -> None:
    registration = register_up(tmp_path, "nats://127.0.0.1:4222", "u", "secret", gateway="http://x")
    found = find_running(tmp_path)
    assert found is not None
    assert (found.url, found.auth.user, found.auth.password) == (
        "nats://127.0.0.1:4222",
        "u",
        "secret",
    )
    assert found.gateway == "http://x"
    assert "secret" not in repr(found)
    assert find_running(tmp_path / "elsewhere") is None
    with pytest.raises(RuntimeError, match="already"):
        register_up(tmp_path, "", "", "")
    registration.close()
    registration.close()
    assert find_running(tmp_path) is None


def test_what_commands_need_is_beside_the_lock(tmp_path: Path) -> None:
    more = {"tasks": ["t.py"], "key": "00ff", "reload": True}
    registration = register_up(tmp_path, "nats://127.0.0.1:1", "u", "pw", pool="p", **more)
    running = registration.running
    try:
        assert running.is_alive and running.password_file.read_text() == "pw"
        assert running.password_file.stat().st_mode & 0o077 == 0
        assert read_running(running.lock) == running == find_running(tmp_path, "p")
        assert find_running(tmp_path, "another") is None
        assert f"kill {running.pid}" in already_runs(running) and "pool p" in already_runs(running)
    finally:
        registration.close()
    assert not running.is_alive and read_running(running.lock) is None
    assert not running.password_file.exists()
