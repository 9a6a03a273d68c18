"""Retries: which exceptions are worth one, and after how long, decided without a clock."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap import task
from jetmap.functions.retries import RetryPolicy
from jetmap.functions.task import find

shares = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0, 1e6)


class Temporary(ConnectionError):
    pass


@examples(200)
@given(retries=st.integers(0, 1000), backoff=seconds, most=seconds, share=shares)
def test_each_wait_is_a_share_of_a_doubling_limit(
    retries: int, backoff: float, most: float, share: float
) -> None:
    policy = RetryPolicy(retries, backoff=backoff, max_backoff=most)
    waits = [policy.wait(ValueError(), tries, share) for tries in range(1, retries + 2)]
    assert waits[-1] is None and None not in waits[:-1]
    for tries, wait in enumerate(waits[:-1], 1):
        assert wait == share * min(backoff * 2 ** min(tries - 1, 64), most)


@examples(100)
@given(st.integers(1, 5), shares)
def test_full_jitter_reaches_from_nothing_to_the_limit(tries: int, share: float) -> None:
    policy = RetryPolicy(5, backoff=2.0, max_backoff=10.0)
    limit = min(2.0 * 2 ** (tries - 1), 10.0)
    assert policy.wait(ValueError(), tries, 0.0) == 0.0
    wait = policy.wait(ValueError(), tries, share)
    assert wait is not None and 0 <= wait <= limit


@pytest.mark.parametrize(
    ("retry_on", "no_retry_on", "again"),
    [
        ((Exception,), (), {ValueError, Temporary, FileNotFoundError, KeyError}),
        (OSError, (), {Temporary, FileNotFoundError}),
        ((ConnectionError, KeyError), (), {Temporary, KeyError}),
        ([OSError], {FileNotFoundError}, {Temporary}),
        ((Exception,), OSError, {ValueError, KeyError}),
        ((), (), set()),
        (BaseException, (), {ValueError, Temporary, FileNotFoundError, KeyError, SystemExit}),
    ],
)
def test_classes_decide(retry_on: Any, no_retry_on: Any, again: set[type[BaseException]]) -> None:
    policy = RetryPolicy(1, retry_on, no_retry_on)
    every = (ValueError, Temporary, FileNotFoundError, KeyError, SystemExit)
    assert {cls for cls in every if policy.wait(cls(), 1, 0.5) is not None} == again


@pytest.mark.parametrize("option", ["retry_on", "no_retry_on"])
@pytest.mark.parametrize("wrong", [int, "ValueError", (ValueError, 3), ValueError(), None, [str]])
def test_what_is_no_exception_is_refused_at_the_decorator(option: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"{option} takes exception classes, such as {option}="):

        @task(name="retries.wrong", retries=1, **{option: wrong})
        def wrongly(n: int) -> int:
            return n

    assert find("retries.wrong") is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"retries": -1}, ValueError),
        ({"retries": 1001}, ValueError),
        ({"retries": 1.5}, ValueError),
        ({"retries": True}, TypeError),
        ({"retries": "3"}, TypeError),
        ({"retries": 1, "backoff": -1}, ValueError),
        ({"retries": 1, "backoff": float("nan")}, ValueError),
        ({"retries": 1, "max_backoff": float("inf")}, ValueError),
    ],
)
def test_numbers_are_checked_there_too(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="must be a"):
        task(lambda n: n, name="retries.number", **wrong)


@pytest.mark.parametrize(
    "options", [{"retry_on": ValueError}, {"no_retry_on": OSError}, {"backoff": 2}]
)
def test_how_to_retry_needs_how_often(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="need the number of retries"):
        task(**options)
    assert task(retries=0, **options) is not None  # As from a configuration.


def test_a_function_keeps_its_policy() -> None:
    @task(name="retries.keeps", retries=2, retry_on=OSError, backoff=0.5)
    def keeps(n: int) -> int:
        return n

    policy = find(keeps).retry
    assert policy is not None and find(keeps).info().retries == 2
    again = pickle.loads(pickle.dumps(policy))
    assert [getattr(again, name) for name in RetryPolicy.__slots__] == [
        0.5, 60.0, (), 2, (OSError,)
    ]  # fmt: skip

    @task(name="retries.none", retries=0, retry_on=OSError)
    def none(n: int) -> int:
        return n

    assert find(none).retry is None and find(none).info().retries == 0
