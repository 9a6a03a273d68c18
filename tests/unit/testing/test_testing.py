"""Names of ``jetmap.testing`` are loaded when they are used."""

from __future__ import annotations

import pytest

from jetmap import testing


def test_names_lead_to_their_modules() -> None:
    assert testing.MemoryBroker.__module__ == "jetmap.nats.memory"
    assert testing.ManualClock.__module__ == "jetmap.nats.clock"
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = testing.Nothing
