"""A function's first call may load what it needs: how long, and what the error says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.agent.warm_ups import WarmUps

quick = examples(200)
MOST = 60.0

names = st.sampled_from(["f", "g"])
events = st.one_of(
    st.tuples(st.just("warmed"), names, st.floats(0, 2 * MOST)),
    st.tuples(st.just("expired"), names, st.just(0.0)),
)


@quick
@given(st.lists(events, max_size=30))
def test_an_allowance_is_the_whole_one_until_one_expires(
    story: list[tuple[str, str, float]],
) -> None:
    warm_ups = WarmUps(MOST)
    measured = {"f": 0.0, "g": 0.0}
    expired = set()
    for what, name, seconds in story:
        if what == "warmed":
            warm_ups.on_warmed(name, seconds)
            measured[name] = max(measured[name], min(seconds, MOST))
        else:
            assert "first call" in warm_ups.on_expired(name)
            expired.add(name)
        for one in measured:
            assert warm_ups.allowance(one) == (measured[one] if one in expired else MOST)
    warm_ups.forget()
    assert warm_ups.allowance("f") == warm_ups.allowance("g") == MOST


@quick
@given(st.lists(st.floats(0.001, 100), max_size=40), st.floats(0.1, 10), st.floats(0, 20))
def test_what_hangs_costs_one_allowance(loads: list[float], timeout: float, load: float) -> None:
    """Each item hangs, in a worker of its own, except those that load and succeed."""
    warm_ups = WarmUps(MOST)
    spent, items = 0.0, 0
    for number, seconds in enumerate(loads):
        takes = load if number % 3 == 0 else seconds + 1e6
        limit = timeout + warm_ups.allowance("f")
        items += 1
        if takes <= limit:
            warm_ups.on_warmed("f", takes)
            spent += takes
        else:
            warm_ups.on_expired("f")
            spent += limit
    assert spent <= MOST + items * (timeout + load) + 1e-6


def test_the_error_says_which_time_it_had() -> None:
    warm_ups = WarmUps(MOST)
    assert "and the 60 s more that the first call" in warm_ups.on_expired("f")
    assert "Load it when the module is imported, or raise the timeout" in warm_ups.on_expired("f")
    warm_ups.on_warmed("f", 3.0)
    assert "and the 3 s more" in warm_ups.on_expired("f")
