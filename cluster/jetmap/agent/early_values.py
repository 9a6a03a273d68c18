"""The values of a worker's next report, where they are too large to be in it. No I/O."""

from __future__ import annotations

from .holdings import HeldChunk, Loan


class EarlyValues:
    """Keep values that come before their report: in a frame, or in memory that is lent for them."""

    def __init__(self) -> None:
        self._values = b""
        self._loan: Loan | None = None

    def on_values(self, values: bytes) -> None:
        """Keep the values of a frame."""
        self._values = values

    def on_region(self, loan: Loan | None) -> None:
        """Keep the region that has the values; None: there is none any more."""
        self._loan = loan

    def take(self, held: HeldChunk | None) -> bytes:
        """Return the values of the report that is here now; empty: it has them, or a region.

        Args:
            held: Its chunk. Its region is used again when the chunk is confirmed; None: at once,
                because nobody wants the report, or it never came.
        """
        values, self._values = self._values, b""
        if self._loan is not None:
            if held is None:
                self._loan.end()
            else:
                held.loans.append(self._loan)
            self._loan = None
        return values
