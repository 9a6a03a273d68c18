"""Decide whether more items have failed than a caller tolerates. No I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from jetmap import bounds
from jetmap.errors import TooManyFailed
from jetmap.wire.messages import ErrorRecord

from .outcomes import item_error

SHOWN = 5  # Errors that the message and the exception have.
# The text of a number, or of a share.
PATTERN = r"^([0-9]{1,16}|(100|[0-9]{1,2}(\.[0-9]{1,6})?)%)$"
_SYNTAX = 'a whole number of items, or a share of them from "0%" to "100%"'


class Tolerance:
    """The items that may fail: a number, or a share of all.

    Attributes:
        text: The value, as it is written in records and queries.

    Raises:
        TypeError: The value is neither a whole number nor text.
        ValueError: It is out of bounds, or the text is not a number or a percentage.
    """

    def __init__(self, value: int | str) -> None:
        self._share: Decimal | None = None  # Per cent.
        self._most = 0
        if isinstance(value, str):
            if not re.fullmatch(PATTERN, value):
                raise ValueError(f"max_failed must be {_SYNTAX}, not {bounds.shown(value)}")
            if value.endswith("%"):
                self._share = Decimal(value[:-1])
            else:
                self._most = int(value)
            self.text = value
        else:
            self._most = bounds.START.check("max_failed", value)
            self.text = str(self._most)

    @classmethod
    def of(cls, value: int | str | None) -> Tolerance | None:
        """Make the tolerance of an optional argument."""
        return None if value is None else cls(value)

    @property
    def is_share(self) -> bool:
        """True if it depends on the number of all items."""
        return self._share is not None

    def limit(self, total: int | None) -> int:
        """Return how many of ``total`` items may fail."""
        return self._most if self._share is None else int((total or 0) * self._share / 100)

    def check_length(self, length: int | None) -> None:
        """Raise ValueError for a share of an input whose length is not known."""
        if self.is_share and length is None:
            raise ValueError(
                f"max_failed={self.text!r} is a share of an input whose length is not known: give "
                "a number, or a list"
            )


class FailureCount:
    """The failed items of one map, against its tolerance.

    Args:
        tolerance: None: any number may fail. It may be exchanged.
        total: Number of items; None if unknown.
        failed: Number that have failed before.
        trusted: Whether pickled exceptions may be loaded.
    """

    def __init__(
        self,
        tolerance: Tolerance | None,
        total: int | None,
        failed: int = 0,
        *,
        trusted: bool = False,
    ) -> None:
        self.failed = failed
        self.tolerance = tolerance
        self.exceeded: Tolerance | None = None  # The one that was exceeded last.
        self._total = total
        self._trusted = trusted
        self._first: list[ErrorRecord] = []

    def add(self, errors: Iterable[ErrorRecord], done: int) -> None:
        """Count errors. Raises TooManyFailed once there are more than may be.

        done: items that have an outcome.
        """
        for error in errors:
            self.failed += 1
            self._first.append(error)
        self._first.sort(key=lambda record: record.index)
        del self._first[SHOWN:]
        self.check(done)

    def check(self, done: int) -> None:
        """Raise TooManyFailed if more have failed than may."""
        tolerance = self.tolerance
        if tolerance is not None and self.failed > (most := tolerance.limit(self._total)):
            self.exceeded = tolerance
            raise self._too_many(tolerance, most, done)

    def _too_many(self, tolerance: Tolerance, most: int, done: int) -> TooManyFailed:
        of_all = "" if self._total is None else f" of {self._total:,}"
        share = f", which is {most:,}" if tolerance.is_share else ""
        items = "item" if self.failed == 1 and not of_all else "items"
        shown = "".join(f"\n  item {e.index}: {e.type}: {e.message}" for e in self._first)
        if self.failed > len(self._first):
            shown += f"\n  and {self.failed - len(self._first):,} more"
        return TooManyFailed(
            f"{self.failed:,}{of_all} {items} failed, {done:,} were done; max_failed is "
            f"{tolerance.text}{share}:{shown}",
            failed=self.failed,
            done=done,
            total=self._total,
            errors=[item_error(record, trusted=self._trusted) for record in self._first],
        )
