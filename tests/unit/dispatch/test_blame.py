"""Items that are to blame for a lost worker or agent."""

from __future__ import annotations

import pytest

from jetmap.dispatch.blame import VANISHED_LIMIT, Blame, Crashes, after_claim, after_crash
from jetmap.dispatch.flight import Flight, Piece
from jetmap.wire.messages import Crash

PIECE = Piece(10, 3, b"[1,2,3]")


def test_an_item_may_cost_as_many_workers_as_there_are_attempts() -> None:
    crashes = Crashes()
    crash = Crash(11, "died", "killed by SIGKILL", 9, None, 1000, "h1")
    assert after_crash(PIECE, crash, crashes, 2) == Blame(apart=range(11, 12))
    blame = after_crash(PIECE, crash, crashes, 2)
    assert blame.apart == range(11, 12) and blame.error is not None
    assert (blame.error.index, blame.error.kind) == (11, "lost")
    assert blame.error.message == "killed by SIGKILL (2 attempts)"
    assert blame.error.detail is not None and blame.error.detail["host"] == "h1"


@pytest.mark.parametrize(
    ("item", "reason", "blame"),
    [
        (None, "died", Blame(alone=True)),
        (None, "stopped", Blame()),
        (9, "died", Blame(alone=True)),
        (12, "stopped", Blame(apart=range(12, 13))),
    ],
)
def test_an_item_that_is_not_known_is_looked_for(
    item: int | None, reason: str, blame: Blame
) -> None:
    crash = Crash(item, reason, "")  # type: ignore[arg-type]
    assert after_crash(PIECE, crash, Crashes(), 2) == blame


def test_a_single_item_is_guilty_and_a_timeout_is_an_error_at_once() -> None:
    single = Piece(10, 1, b"[1]")
    blame = after_crash(single, Crash(None, "died", "segfault"), Crashes(), 1)
    assert blame.error is not None and blame.error.index == 10
    blame = after_crash(PIECE, Crash(11, "timeout", "took too long"), Crashes(), 3)
    assert (
        blame.error is not None and blame.error.kind == "timeout" and blame.apart == range(11, 12)
    )


def test_a_stretch_ends_with_its_chunk() -> None:
    """Agents of older releases name items behind it, which have not begun."""
    crashes = Crashes()
    blame = after_crash(PIECE, Crash(12, "died", "", items=32), crashes, 2)
    assert blame == Blame(apart=range(12, 13))
    blame = after_crash(Piece(13, 1, b""), Crash(13, "died", ""), crashes, 2)
    assert blame.error is None, "it has cost one worker"


@pytest.mark.parametrize("attempts", [2, 3])
def test_one_item_of_a_stretch_is_to_blame_for_it(attempts: int) -> None:
    crashes = Crashes()
    piece = Piece(10, 30, b"")
    blame = after_crash(piece, Crash(12, "died", "", items=4), crashes, attempts)
    assert blame == Blame(apart=range(12, 16)), "each of them goes alone, and none is given up"
    for cost in range(2, attempts + 1):
        blame = after_crash(Piece(13, 1, b""), Crash(13, "died", ""), crashes, attempts)
        assert (blame.error is not None) == (cost == attempts)
    assert blame.error is not None and blame.error.detail is not None
    assert blame.error.detail["attempts"] == attempts, "the stretch counts as one of them"
    assert crashes.add(14) == 1, "the others of the stretch have cost none"


@pytest.mark.parametrize("suspect", [False, True])
def test_agents_that_vanish_make_suspects_and_then_an_error(suspect: bool) -> None:
    flight = Flight(1, Piece(10, 1, b"[1]", suspect=suspect), "offer", 0.0, 0.0, 0.0)
    gone: dict[str, float] = {}
    limit = 3 if suspect else VANISHED_LIMIT
    for number in range(limit):
        assert after_claim(flight, gone, 3) is None
        flight.claims[f"a{number}"] = gone[f"a{number}"] = float(number)
    blame = after_claim(flight, gone, 3)
    assert blame is not None and blame.alone != suspect
    assert (blame.error is not None) == suspect
