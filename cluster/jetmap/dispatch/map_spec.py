"""The call of a map without its items: what is computed, how, and within which limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jetmap.wire.messages import BatchTerms, Format, FunctionRef
from jetmap.wire.presence import FunctionInfo


class MapSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One call of ``map``: everything about it but its items.

    Attributes:
        function: Name of the function.
        format: Encoding of the items, the keyword parameters and the values.
        kwargs: Encoded keyword parameters; each chunk carries them.
        ref: Where an embedded worker finds the function; None: its name is enough.
        timeout: Seconds for the whole map.
        item_timeout: Seconds for one item; None: as the function was announced.
        attempts: Workers that one item may kill; None: as the function was announced.
        ordered: Whether outcomes come in input order.
        early: Whether the reader shows the first outcomes while others are computed.
        whole: Whether the reader does without early outcomes, so that chunks may be long, and the
            last items sent early if the source can do that.
        in_order: Whether items begin in input order where one agent computes them, so that all
            chunks go by the main lane.
        weight: Share of the cores beside other maps.
        causes: Whether the caller unpickles exceptions.
        values: Whether the caller wants the function's values.
        submitted: The span in which a job was submitted, as ``traceparent`` names it.
        labels: Names and values by which people find the map.
        max_parallel: Cores that it may use at most, over the whole pool; None: no limit of its own.
        decode: Decodes values from memory that changes later; None if they have to be copied first.
        constants: Digests of the constants among its keyword parameters.
        batch: The batches of a function that takes a list; None: as the function was announced.
        together: Cores that all maps of the function may use together, unless people want
            another limit; None: as the function was announced.
    """

    function: str
    format: Format
    kwargs: bytes = b""
    ref: FunctionRef | None = None
    timeout: float | None = None
    item_timeout: float | None = None
    attempts: int | None = None
    ordered: bool = False
    early: bool = False
    whole: bool = False
    in_order: bool = False
    weight: float = 1.0
    causes: bool = False
    values: bool = True
    submitted: str = ""
    labels: dict[str, str] | None = None
    max_parallel: int | None = None
    constants: tuple[str, ...] = ()
    batch: BatchTerms | None = None
    together: int | None = None
    decode: Callable[[memoryview], list[Any] | None] | None = None

    @property
    def overhead(self) -> int:
        """Bytes that each chunk carries beside its items and about 200 of names and numbers."""
        if self.ref is None or self.ref.value is None:
            return len(self.kwargs)
        return len(self.kwargs) + len(self.ref.value)

    def completed(self, info: FunctionInfo | None) -> MapSpec:
        """Fill in what the function's announcement says and the caller left open."""
        if info is None or (self.ref is not None and self.ref.module):
            return self
        is_known = info.timeout is self.item_timeout and info.attempts is self.attempts
        is_known = is_known and info.max_parallel is self.together
        if is_known and not info.batch and self.batch is None:
            return self
        return msgspec.structs.replace(
            self,
            item_timeout=info.timeout if self.item_timeout is None else self.item_timeout,
            attempts=info.attempts if self.attempts is None else self.attempts,
            batch=BatchTerms(info.batch, info.linger) if info.batch else None,
            together=info.max_parallel if self.together is None else self.together,
        )
