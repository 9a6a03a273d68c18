"""Messages kept for the next reader."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jetmap.jobs.message_cache import MessageCache, Request
from jetmap.jobs.store import StoredMessage


def found(size: int) -> list[StoredMessage]:
    return [StoredMessage(1, b"0" * size)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 400))))
def test_it_holds_no_more_than_its_limit_and_the_latest_of_it(
    puts: list[tuple[str, int, int]],
) -> None:
    cache = MessageCache(1000)
    kept: dict[Request, list[StoredMessage]] = {}
    for job, after, size in puts:
        request = (job, after, 10, 100)
        if cache.get(request) is None:
            kept[request] = found(size)
            cache.put(request, kept[request])
            assert cache.get(request) is kept[request]
        assert cache.size <= 1000
    known = [request for request in kept if cache.get(request) is kept[request]]
    assert cache.size == sum(len(kept[r][0].data) + 100 for r in known)
    for job in "abc":
        cache.drop(job)
    assert cache.size == 0 and all(cache.get(request) is None for request in kept)


def test_what_is_used_stays_longest() -> None:
    cache = MessageCache(1000)
    first, second, third = (("a", n, 1, 1) for n in range(3))
    cache.put(first, found(350))
    cache.put(second, found(350))
    assert cache.get(first) is not None
    cache.put(third, found(350))
    assert cache.get(first) is not None and cache.get(second) is None
