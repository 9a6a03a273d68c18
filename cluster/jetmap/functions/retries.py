"""Decide whether an item whose function raised is tried again, and after how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jetmap import bounds

Classes = type[BaseException] | Sequence[type[BaseException]]

_DOUBLINGS = 64  # Doublings of a wait, at most: far more than any limit allows.


class RetryPolicy:
    """The retries of a function.

    Args:
        retries: Calls of the function for one item after the first.
        retry_on: Exceptions after which it is called again.
        no_retry_on: Exceptions among those after which it is not.
        backoff: Seconds that the first wait takes at most; each further one takes twice as long.
        max_backoff: Seconds that a wait takes at most.

    Raises:
        TypeError: An argument is not a number, or a class is not an exception.
        ValueError: A number is out of bounds.
    """

    # Not a dataclass: task files import this module, which must be quick.
    __slots__ = ("backoff", "max_backoff", "no_retry_on", "retries", "retry_on")

    def __init__(
        self,
        retries: int,
        retry_on: Classes = (Exception,),
        no_retry_on: Classes = (),
        backoff: float = 1.0,
        max_backoff: float = 60.0,
    ) -> None:
        self.retries = bounds.RETRIES.check("retries", retries)
        self.retry_on = _classes("retry_on", retry_on)
        self.no_retry_on = _classes("no_retry_on", no_retry_on)
        self.backoff = bounds.BACKOFF.check("backoff", backoff)
        self.max_backoff = bounds.BACKOFF.check("max_backoff", max_backoff)

    @property
    def is_default(self) -> bool:
        """Return whether nothing but the number of retries was chosen, if that."""
        plain = RetryPolicy(0)
        names = [name for name in self.__slots__ if name != "retries"]
        return all(getattr(self, name) == getattr(plain, name) for name in names)

    def wait(self, error: BaseException, tries: int, share: float) -> float | None:
        """Return the seconds until the next try; None if this one was the last.

        Args:
            error: The exception of the last try.
            tries: Tries so far, that one included.
            share: Random number from 0 to 1. All of the wait is random (full jitter), so that
                items that failed together do not meet again.
        """
        if tries > self.retries or not isinstance(error, self.retry_on):
            return None
        if isinstance(error, self.no_retry_on):
            return None
        longest = self.backoff * 2.0 ** min(tries - 1, _DOUBLINGS)
        return share * min(longest, self.max_backoff)

    def __reduce__(self) -> tuple[Any, ...]:
        about = (self.retries, self.retry_on, self.no_retry_on, self.backoff, self.max_backoff)
        return RetryPolicy, about


def _classes(option: str, given: Any) -> tuple[type[BaseException], ...]:
    """Return the exceptions of an option, as ``except`` takes them: one, or a tuple."""
    classes = (given,) if isinstance(given, type) or not _is_sequence(given) else tuple(given)
    for each in classes:
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise TypeError(
                f"{option} takes exception classes, such as {option}=(OSError, TimeoutError), "
                f"not {bounds.shown(each)}"
            )
    return classes


def _is_sequence(given: Any) -> bool:
    return isinstance(given, (tuple, list, set, frozenset))
