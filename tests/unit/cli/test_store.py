"""The store of `jetmap up`: its directory and its disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jetmap.cli import store
from jetmap.cli.store import ENOUGH_BYTES, PROBE_SECONDS, RESTART_SECONDS, DiskAction, StoreHealth
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings


def test_the_default_store_is_of_directory_and_pool(place: Path) -> None:
    found = {
        store.default_store(cwd, pool)
        for cwd in (place, place / "state")
        for pool in ("default", "blue")
    }
    assert len(found) == 4
    assert {path.parent for path in found} == {place / "state" / "jetmap"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place / "home"))
        for unusable in ("", "relative/path"):
            patch.setenv("XDG_STATE_HOME", unusable)
            path = store.default_store(place, "default")
            assert path.parent == place / "home" / ".local" / "state" / "jetmap"


def test_without_its_default_store_up_has_no_jobs(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.load()
    first = store.hold_store(settings)
    assert first is not None
    assert store.hold_store(settings) is None
    assert "is used by another `jetmap up`: there will be no jobs" in caplog.text
    first.close()
    first.close()
    again = store.hold_store(settings)
    assert again is not None
    again.close()
    (place / "file").touch()
    os.environ["XDG_STATE_HOME"] = str(place / "file")
    assert store.hold_store(settings) is None
    assert "file" in caplog.text
    with pytest.raises(ConfigurationError, match="cannot be used"):
        store.hold_store(Settings.load(store=str(place / "file" / "store")))
    assert store.hold_store(Settings.load(store="none")) is None


def test_steps_of_a_disk_that_fills_and_empties() -> None:
    health = StoreHealth()
    assert health.wants_probe(ENOUGH_BYTES, 0)
    assert health.decide(ENOUGH_BYTES, [], 0) is DiskAction.NOTHING
    assert not health.wants_probe(ENOUGH_BYTES, 2)
    # Filled: said once, whatever is stuck, and nothing is started without room.
    assert health.wants_probe(0, 4)
    assert health.decide(0, [], 4) is DiskAction.REPORT_FULL
    assert health.decide(0, ["A"], 6) is DiskAction.NOTHING
    assert health.decide(ENOUGH_BYTES - 1, ["A"], 8) is DiskAction.NOTHING
    # Room: streams are asked until none is stuck; a restart has its time to help.
    assert health.wants_probe(ENOUGH_BYTES, 10)
    assert health.decide(ENOUGH_BYTES, None, 10) is DiskAction.NOTHING
    assert health.decide(ENOUGH_BYTES, ["A"], 12) is DiskAction.RESTART
    assert health.wants_probe(ENOUGH_BYTES, 14)
    assert health.decide(ENOUGH_BYTES, ["A"], 14) is DiskAction.NOTHING
    assert health.decide(ENOUGH_BYTES, ["A"], 12 + RESTART_SECONDS) is DiskAction.RESTART
    assert health.decide(ENOUGH_BYTES, [], 50) is DiskAction.NOTHING
    assert not health.wants_probe(ENOUGH_BYTES, 52)


def test_a_disk_that_was_full_and_stopped_nothing() -> None:
    health = StoreHealth()
    assert health.decide(0, [], 0) is DiskAction.REPORT_FULL
    assert health.wants_probe(ENOUGH_BYTES, 2)
    assert health.decide(ENOUGH_BYTES, None, 2) is DiskAction.NOTHING  # The streams did not answer.
    assert health.wants_probe(ENOUGH_BYTES, 4)
    assert health.decide(ENOUGH_BYTES, [], 4) is DiskAction.REPORT_ROOM
    assert health.decide(ENOUGH_BYTES, [], 6) is DiskAction.NOTHING


def test_a_server_is_restarted_as_its_disk_gets_room() -> None:
    """Room may come little by little, and its limit is from its start."""
    health = StoreHealth()
    assert health.decide(0, [], 0, is_cramped=False) is DiskAction.REPORT_FULL
    assert health.decide(ENOUGH_BYTES, [], 2, is_cramped=True) is DiskAction.RESTART
    assert health.decide(ENOUGH_BYTES, None, 4, is_cramped=True) is DiskAction.NOTHING
    assert health.decide(9 * ENOUGH_BYTES, [], 6, is_cramped=True) is DiskAction.NOTHING
    later = 2 + RESTART_SECONDS
    assert health.decide(9 * ENOUGH_BYTES, [], later, is_cramped=True) is DiskAction.RESTART
    assert health.decide(9 * ENOUGH_BYTES, [], 2 * later, is_cramped=False) is DiskAction.NOTHING


def test_a_disk_that_was_full_between_two_looks() -> None:
    health = StoreHealth()
    assert health.decide(ENOUGH_BYTES, [], 0) is DiskAction.NOTHING
    assert not health.wants_probe(ENOUGH_BYTES, 10)
    assert health.wants_probe(ENOUGH_BYTES, PROBE_SECONDS)
    assert health.decide(ENOUGH_BYTES, ["A"], PROBE_SECONDS) is DiskAction.RESTART
