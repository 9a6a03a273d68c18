"""The protocol's versions: which releases work together."""

from __future__ import annotations

import pytest

from jetmap.wire import protocol
from jetmap.wire.protocol import (
    CONSTANTS_PROTOCOL,
    DIGEST_PROTOCOL,
    HURRY_PROTOCOL,
    OLDEST_PROTOCOL,
    PARTS_PROTOCOL,
    PICKLES_PROTOCOL,
    PROTOCOL,
    understands,
)


def test_releases_work_together_where_each_knows_the_others_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "PROTOCOL", 5)
    monkeypatch.setattr(protocol, "OLDEST_PROTOCOL", 3)
    found = {(p, o): understands(p, o) for p, o in ((2, 1), (3, 1), (5, 5), (9, 5), (9, 6))}
    assert found == {(2, 1): False, (3, 1): True, (5, 5): True, (9, 5): True, (9, 6): False}


def test_no_feature_is_newer_than_the_protocol() -> None:
    features = PARTS_PROTOCOL, PICKLES_PROTOCOL, DIGEST_PROTOCOL, CONSTANTS_PROTOCOL, HURRY_PROTOCOL
    assert all(OLDEST_PROTOCOL <= feature <= PROTOCOL for feature in features)
