"""Limits of workers: from the settings, and within what the broker carries."""

from __future__ import annotations

import pytest

from jetmap.agent.options import fit_to_messages, worker_setup
from jetmap.settings import Settings
from jetmap.wire.messages import PART_BYTES


def test_every_limit_of_a_worker_is_a_setting() -> None:
    settings = Settings(
        worker_memory="1GB", max_item_bytes=1_000, report_bytes="64KiB", output_bytes=77,
        log_level="debug",
    )  # fmt: skip
    setup = worker_setup(settings, tasks=["t.py"], grows=True)
    assert (setup.memory_limit, setup.max_value, setup.max_report) == (10**9, 1_000, 1 << 16)
    assert (setup.output_bytes, setup.log_level) == (77, "debug")
    assert setup.tasks == ["t.py"] and setup.grows and not setup.trust


@pytest.mark.parametrize("room", [100, 10_000, 10**9])
def test_a_smaller_broker_lowers_them(room: int) -> None:
    setup = worker_setup(Settings(max_item_bytes=900_000, report_bytes=5_000))
    found = fit_to_messages(room, setup)
    assert (found.inline, found.max_report) == (min(room, PART_BYTES), min(room, 5_000))
    assert found.max_value == 900_000, "values go in parts"
    assert found.output_bytes == setup.output_bytes
