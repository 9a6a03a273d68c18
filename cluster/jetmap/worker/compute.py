"""Compute one chunk: decode its items into the annotated types, call the function, encode.

No process and no pipe: the worker process uses this, and so does ``Cluster(inline=True)``.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, Protocol, cast

from jetmap.codecs.late import Delayed
from jetmap.functions.causes import cause_of
from jetmap.functions.task import Function
from jetmap.wire import arrays
from jetmap.wire.budget import NO_LIMIT, Budget
from jetmap.wire.messages import Chunk, ErrorRecord, Final, Format, Report
from jetmap.wire.scattered import Scattered, scattered

from .aftermath import Aftermath
from .error_records import DecodingError, Undecodable, record_of, traceback_of, weight_of
from .progress import ITEM, STARTED, STOP, STRETCH_SHIFT

NO_AFTERMATH = Aftermath()
REPORT_SECONDS = 0.1
AGAIN = "again"  # Kind of the record of an item that is to be sent once more.
# Seconds of a stretch, tiny items that are entered together (decision 0650), below which the next
# one is twice as long. After one of four times as many seconds, and while there is work after each
# item, items are entered one by one.
STRETCH_SECONDS = 100e-6
STRETCH = 32  # Items of a stretch, at most.
# Seconds of an item above which each one of a stretch is entered by itself all the same, which
# costs little then: it is known if the worker dies, and nothing behind it has begun.
KNOWN_SECONDS = 4e-6


class Words(Protocol):
    """Numbers that the worker and its agent share."""

    def __getitem__(self, word: int, /) -> int: ...
    def __setitem__(self, word: int, number: int, /) -> None: ...


class ProgressWriter(Protocol):
    """Progress of a computation: the item in progress, and when it may begin no further one.

    words: the computation writes ITEM and STARTED, as ``ProgressPages.enter`` does, and reads STOP.
    exact: as in ``ProgressPages``.
    """

    exact: Callable[[], int] | None

    @property
    def words(self) -> Words: ...
    def expect(self, at: float, each: float) -> None: ...
    def leave(self) -> None: ...


class Limits:
    """Bytes of a value and of a report; seconds between two reports (0: one for each item).

    scatters: whether the values of a report may be ``Scattered``.
    """

    def __init__(
        self,
        *,
        value: int,
        report: int,
        report_seconds: float = REPORT_SECONDS,
        scatters: bool = False,
    ) -> None:
        self.value = value
        self.report = report
        self.several = min(value, report)  # Bytes of several values in a report.
        self.report_seconds = report_seconds
        self.scatters = scatters


def compute(
    chunk: Chunk,
    function: Function,
    progress: ProgressWriter,
    emit: Callable[[Report], None],
    limits: Limits,
    aftermath: Aftermath = NO_AFTERMATH,
    state: Mapping[str, Any] | None = None,
    decoded: list[Any] | None = None,
) -> None:
    """Call the function for each item of a chunk; the last report carries ``final``.

    The chunk ends early, before an item, when ``progress`` says stop or its budget of seconds is
    spent: items that were not begun are not in the reports. ``aftermath`` is settled after each
    item that leaves work. ``state`` has the parameters that the worker passes; ``decoded`` the
    items, if they were decoded before. Errors of the function and of the data are reported, not
    raised.
    """
    clock = time.monotonic
    timed = chunk.timeout is not None
    if timed:
        from .in_time import begin_in_time

        part, call, items = begin_in_time(chunk, function, progress, emit, limits, state, decoded)
    else:
        part = Part(chunk, function, emit, limits)
        call, items = prepare(chunk, function, part, state, decoded)
    if not chunk.values:
        call = partial(_drop_value, call)
    progress.exact = part.at
    if chunk.count == 1:
        _compute_one(chunk, call, items, part, progress, aftermath)
        return
    budget = Budget(chunk.budget, chunk.each) if chunk.budget else NO_LIMIT
    began = now = clock()
    due_first = began + budget.until(1)  # Time after which the second item is given back.
    if chunk.count:
        progress.expect(due_first, budget.each)
    # In a large pool, chunks are longer; a report counts as much as a chunk there.
    report_seconds = limits.report_seconds and max(limits.report_seconds, chunk.budget)
    report_at = began + report_seconds
    each, first = budget.each, chunk.start + 1
    words = progress.words
    append = part.values.append
    # Time at which the next item may have to be given back, or a report may be due.
    check_at = min(report_at, due_first)
    done, size = 0, 1
    least = KNOWN_SECONDS if chunk.stretches else 0.0  # Else each item has to be known.
    is_known = True
    most = STRETCH if report_seconds and not timed else 1
    while done < chunk.count:
        if now >= check_at and done:
            if now > report_at or part.full:
                part.flush(now - began, None)
                append = part.values.append
                began = now
                report_at = now + report_seconds
            due = due_first + (done - 1) * each
            if now >= due:
                break
            check_at = min(report_at, due)
        # Written before ``stopping`` is read: an agent that asks to stop and then reads the item
        # knows that those behind its stretch are not begun. From 1 on: ITEM is 0 between items.
        if timed:
            words[STARTED] = time.monotonic_ns()
        behind = 0 if is_known else min(size, chunk.count - done) - 1
        words[ITEM] = (first + done) | (behind << STRETCH_SHIFT)
        if words[STOP]:
            break
        try:
            # An item that leaves work clears this list, which ends the stretch.
            aftermath.stretch = stretch = items[done : done + size]
            if behind or size == 1:
                for item in stretch:
                    append(call(item))
            else:
                for number, item in zip(count(first + done), stretch):
                    words[ITEM] = number
                    if words[STOP]:
                        break
                    append(call(item))
        except BaseException as error:
            aftermath.failed(error, refused=isinstance(error, DecodingError))
            part.fail(error)
            check_at = 0.0
        before, done = done, part.at() - chunk.start
        last, now = now, clock()
        if behind and aftermath.due:  # What is done now is for the last of them.
            words[ITEM] = first + done - 1
        if aftermath.due and aftermath.settle(now - last):
            due_first += now - last  # Loading at a first call is not on the items' budget.
            progress.expect(due_first, each)
        is_known = now - last >= least * (done - before)
        if aftermath.due or now - last > 4 * STRETCH_SECONDS:
            size = 1
        elif now - last < STRETCH_SECONDS and done - before == size:
            size = min(2 * size, most)
    progress.leave()
    aftermath.stretch = []  # An item may be large.
    part.flush(clock() - began, Final(chunk.start + done))


def _compute_one(
    chunk: Chunk,
    call: Callable[[Any], Any],
    items: list[Any],
    part: Part,
    progress: ProgressWriter,
    aftermath: Aftermath,
) -> None:
    """Compute a chunk of one item as ``compute`` does: there is no other to be given back."""
    words, clock = progress.words, time.monotonic
    began = clock()
    if chunk.timeout is not None:
        words[STARTED] = time.monotonic_ns()
    words[ITEM] = chunk.start + 1
    if not words[STOP]:
        try:
            part.values.append(call(items[0]))
        except BaseException as error:
            aftermath.failed(error, refused=isinstance(error, DecodingError))
            part.fail(error)
        if aftermath.due:
            aftermath.settle(clock() - began)
    progress.leave()
    part.flush(clock() - began, Final(part.at()))


def refuse_chunk(
    chunk: Chunk,
    function: Function | None,
    error: BaseException,
    emit: Callable[[Report], None],
    limits: Limits,
) -> None:
    """Fail every item of a chunk with the same error: its function is not available here."""
    part = Part(chunk, function, emit, limits)
    for _ in range(chunk.count):
        part.fail(error)
        if part.full:
            part.flush(0.0, None)
    part.flush(0.0, Final(chunk.start + chunk.count))


def _drop_value(call: Callable[[Any], Any], item: Any) -> None:
    """Call a function for its side effects only."""
    call(item)


def prepare(
    chunk: Chunk,
    function: Function,
    part: Part,
    state: Mapping[str, Any] | None,
    decoded: list[Any] | None = None,
    *,
    late: bool = False,
) -> tuple[Callable[[Any], Any], list[Any]]:
    """Return the function to call for each item, and the items.

    Calling it for an undecodable item fails that item. With ``late``, items stay ``Delayed`` whose
    decoding may run code of users.
    """
    f = function.callable
    try:
        kwargs = function.kwargs.decode(chunk.kwargs, chunk.format)
    except BaseException as error:  # Whatever the code that a pickle brings may raise.
        refusal = Undecodable(ValueError(f"keyword parameters: {error}"))
        return part.refuse, [refusal] * chunk.count
    if state:
        kwargs = {**kwargs, **state}
    plain: Callable[[Any], Any] = f
    if kwargs:
        # The function of executors knows a shorter way than a call with keyword parameters.
        bind = getattr(f, "jetmap_bound", None)
        plain = (bind and bind(**kwargs)) or partial(f, **kwargs)
    if decoded is not None:
        return plain, decoded
    try:
        codec = function.item
    except TypeError as error:  # One of its types cannot travel.
        return part.refuse, [Undecodable(error)] * chunk.count
    try:
        items = (codec.decode_late if late else codec.decode_list)(chunk.items, chunk.format)
        if len(items) == chunk.count:
            chunk.items = b""  # They may be large, and are not needed any more.
            return plain, items
    except BaseException:
        # An item is bad: the loop below finds it, and the others keep their values.
        pass
    items = []
    try:
        elements = arrays.split(chunk.items, chunk.format)
        if len(elements) != chunk.count:
            raise ValueError(f"the chunk has {len(elements)} items and not {chunk.count}")
    except Exception as error:
        return part.refuse, [Undecodable(error)] * chunk.count
    decode = partial(Delayed, codec) if late and codec.runs_code else codec.decode
    for raw in elements:
        try:
            items.append(decode(bytes(raw), chunk.format))
        except BaseException as error:
            items.append(Undecodable(error))

    def call(item: Any) -> Any:
        return part.refuse(item) if type(item) is Undecodable else plain(item)

    return call, items


class Part:
    """The outcomes of a chunk that have not been reported yet.

    Attributes:
        start: Index of the first of them.
    """

    def __init__(
        self,
        chunk: Chunk,
        function: Function | None,
        emit: Callable[[Report], None],
        limits: Limits,
        start: int | None = None,
    ) -> None:
        self._chunk = chunk
        self._function = function
        self._emit = emit
        self._limits = limits
        self.start = chunk.start if start is None else start
        self._error_bytes = 0
        self.full = False  # The error records alone would fill a report.
        self._has_again = False  # Some of them are of the kind AGAIN.
        self.values: list[Any] = []
        self.errors: list[ErrorRecord] = []

    def refuse(self, item: Undecodable) -> Any:
        raise DecodingError from item.error

    def at(self) -> int:
        """Return the index of the item whose outcome is recorded next."""
        return self.start + len(self.values)

    def fail(self, error: BaseException) -> None:
        """Record that the next item has no value."""
        chunk, index = self._chunk, self.at()
        if isinstance(error, DecodingError) and error.__cause__ is not None:
            record = record_of(index, "invalid", error.__cause__, None)
        else:
            record = record_of(index, "raised", error, traceback_of(error))
            record.cause = cause_of(error, pickled=chunk.causes)
            retry = self._function.retry if self._function is not None else None
            if retry is not None and chunk.tries >= 0:
                tries = chunk.tries + 1
                record.detail = {"tries": tries}
                wait = retry.wait(error, tries, random.random())
                if wait is not None:
                    record = ErrorRecord(index, AGAIN, record.type, record.message)
                    record.detail = {"tries": tries, "wait": wait}
                    self._has_again = True
        self.errors.append(record)
        self.values.append(None)
        self._error_bytes += weight_of(record)
        self.full = self._error_bytes > self._limits.report

    def flush(self, seconds: float, final: Final | None) -> None:
        """Report everything gathered, in as many reports as its size needs."""
        values, errors = self.values, self.errors
        self.values, self.errors, self._error_bytes, self.full = [], [], 0, False
        if self._has_again:
            self._has_again = False
            self._flush_around(values, errors, seconds, final)
            return
        if not errors and self._function is not None:
            try:
                encoded = self._encode_all(self._function, values)
                limits = self._limits
                most = limits.value if len(values) == 1 else limits.several
                if encoded is not None and len(encoded) <= most:
                    self._report(len(values), encoded, errors, seconds, final)
                    return
            except BaseException:  # The value's own ``__reduce__`` may raise anything.
                # A value cannot be encoded: ``_flush_singly`` finds it.
                pass
        self._flush_singly(values, errors, seconds, final)

    def _encode_all(self, function: Function, values: list[Any]) -> bytes | Scattered | None:
        """Encode values together; None: each has to be looked at."""
        format, codec = self._chunk.format, function.value
        if not self._chunk.values:
            return arrays.nulls(len(values), format)
        if self._limits.scatters and format != "json" and codec.keeps_bytes:
            encoded = scattered(values)
            if encoded is not None:
                return encoded
        return codec.encode_list(values, format)

    def _flush_around(
        self, values: list[Any], errors: list[ErrorRecord], seconds: float, final: Final | None
    ) -> None:
        """Report outcomes, in runs between the items that are to be sent once more; then those."""
        again = [record for record in errors if record.kind == AGAIN]
        failed = [record for record in errors if record.kind != AGAIN]
        share = seconds / len(values)
        begin = self.start
        for end in [*(record.index for record in again), begin + len(values)]:
            run = values[self.start - begin : end - begin]
            if run:
                records = [record for record in failed if self.start <= record.index < end]
                self._flush_singly(run, records, share * len(run), None)
            self.start += 1  # Behind the item that has no outcome.
        self.start = begin + len(values)
        self._report(0, arrays.join([], self._chunk.format), again, share * len(again), final)

    def _flush_singly(
        self, values: list[Any], errors: list[ErrorRecord], seconds: float, final: Final | None
    ) -> None:
        failed = {record.index: record for record in errors}
        format = self._chunk.format
        encoded: list[bytes] = []
        records: list[ErrorRecord] = []
        size = 1  # Includes the array's head, or its commas.
        share = seconds / max(1, len(values))
        for value in values:
            index = self.start + len(encoded)
            record = failed.get(index)
            data = arrays.NULL[format]
            if record is None and self._chunk.values:
                data, record = self._encode(index, value, format)
            if record is not None:
                records.append(record)
            weight = len(data) + 1 + (weight_of(record) if record else 0)
            if encoded and size + weight > self._limits.report:
                if record is not None:
                    records.pop()
                self._report(
                    len(encoded), arrays.join(encoded, format), records, share * len(encoded), None
                )
                encoded, records, size = [], [record] if record else [], 1
            encoded.append(data)
            size += weight
        self._report(
            len(encoded), arrays.join(encoded, format), records, share * len(encoded), final
        )

    def _encode(self, index: int, value: Any, format: Format) -> tuple[bytes, ErrorRecord | None]:
        assert self._function is not None, "refused items have no values to encode"
        try:
            data = self._function.value.encode(value, format)
        except RecursionError:
            message = (
                "the value nests too deep to be encoded, or holds itself; about "
                f"{sys.getrecursionlimit()} levels are the limit. Return it flatter: a list of "
                "records that refer to each other by number, or a text in a format of your own"
            )
            return arrays.NULL[format], ErrorRecord(index, "unencodable", "RecursionError", message)
        except BaseException as error:
            record = record_of(index, "unencodable", error, None)
            record.message = f"the value cannot be encoded: {record.message}"
            is_foreign = format in ("json", "msgpack") and isinstance(error, TypeError)
            if is_foreign and self._function.value.is_open:
                record.message += (
                    f"; annotate what {self._function.name} returns with a type that JSON has, as "
                    "in -> dict[str, int]"
                )
                record.detail = {"untyped": True}
            return arrays.NULL[format], record
        if len(data) <= self._limits.value:
            return data, None
        message = (
            f"the value takes {len(data):,} bytes; the limit is {self._limits.value:,} (setting "
            "max_item_bytes of the workers). Return less, or a reference to it, or raise the limit"
        )
        return arrays.NULL[format], ErrorRecord(index, "unencodable", "ValueError", message)

    def _report(
        self,
        count: int,
        values: bytes | Scattered,
        errors: list[ErrorRecord],
        seconds: float,
        final: Final | None,
    ) -> None:
        chunk = self._chunk
        start = self.start
        self.start += count
        self._emit(
            Report(
                chunk.map,
                chunk.number,
                chunk.attempt,
                start,
                count,
                cast("bytes", values),  # ``emit`` knows that they may be scattered.
                errors,
                seconds,
                final,
                tries=chunk.tries + 1 if chunk.tries > 0 else 1,
            )
        )
