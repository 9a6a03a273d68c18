"""The choice of publishes to acknowledge, and of those to send again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jetmap.dispatch.ack_sampler import EVERY, KEPT, WARY, AckSampler


def test_one_publish_in_a_while_asks() -> None:
    sampler: AckSampler[str] = AckSampler()
    asked = [sampler.sample("chunk", n * EVERY / 10, ask=False) is not None for n in range(30)]
    assert asked == [n % 10 == 0 for n in range(30)]


def test_what_is_sent_again_always_asks() -> None:
    sampler: AckSampler[str] = AckSampler()
    assert sampler.sample("first", 0.0, ask=False)
    assert sampler.sample("again", 0.0, ask=True)


def test_after_a_refusal_each_asks_for_a_while() -> None:
    sampler: AckSampler[str] = AckSampler()
    number = sampler.sample("refused", 10.0, ask=False)
    assert number is not None
    assert sampler.sample("in doubt", 10.01, ask=False) is None
    assert sampler.on_refused(number, 10.02) == ["refused", "in doubt"]
    assert sampler.sample("wary", 10.03, ask=False)
    assert sampler.sample("wary", 10.04, ask=False)
    late = 10.02 + WARY
    assert sampler.sample("first", late + EVERY, ask=False)
    assert sampler.sample("second", late + EVERY, ask=False) is None


steps = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, EVERY)), max_size=60)


@given(steps)
def test_nothing_that_a_full_stream_refused_is_forgotten(
    steps: list[tuple[bool, bool, float]],
) -> None:
    """A stream takes or refuses what comes, as it has room, and answers who asks."""
    sampler: AckSampler[int] = AckSampler()
    now = 0.0
    missing: dict[int, float] = {}  # What was refused and is not known to be, and since when.
    known = set()  # That have their word.
    for chunk, (takes, ask, pause) in enumerate(steps):
        now += pause
        number = sampler.sample(chunk, now, ask=ask)
        if not takes:
            missing[chunk] = now
        if number is None:
            continue
        known.add(chunk)
        if takes:
            sampler.on_stored(number)
        else:
            again = sampler.on_refused(number, now)
            assert len(again) == len(set(again))
            assert {sent for sent, at in missing.items() if now - at < KEPT} <= set(again)
            assert not known & set(again) - {chunk}
            missing.clear()


def test_what_is_old_is_left_to_silence() -> None:
    sampler: AckSampler[int] = AckSampler()
    for n in range(10_000):
        sampler.sample(n, n * 0.01, ask=False)
    number = sampler.sample(-1, 100.0, ask=True)
    assert number is not None
    again = sampler.on_refused(number, 100.0)
    assert again[0] == -1 and min(again[1:]) >= 10_000 - KEPT / 0.01 - 1
