"""The worker process: one core, one chunk at a time, no connection but its pipe."""

from __future__ import annotations

import atexit
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec

from jetmap import machine
from jetmap.codecs import types
from jetmap.functions.function import Function
from jetmap.functions.importing import broken_files, import_main
from jetmap.functions.locating import StaleFunction
from jetmap.wire import frames
from jetmap.wire.messages import (
    CONSTANTS_MARK,
    Chunk,
    Report,
    Together,
)
from jetmap.wire.protocol import OLDEST_PROTOCOL, PROTOCOL, understands
from jetmap.wire.worker_start import Joined, Setup, StartFailed, Unshared

from . import forks, reporter
from .aftermath import WorkerAftermath
from .compute import Limits, compute, refuse_chunk
from .dispositions import Dispositions
from .functions import BrokenHome, WorkerFunctions
from .lines import renderer
from .logs import mark_records, show_logs
from .output import Output
from .progress import ProgressPages
from .reporter import Reporter

if TYPE_CHECKING:
    from .constants import WorkerConstants

STALE_EXIT = 77  # Exit code of a worker whose source has changed.

# Whether this process is a worker, and inside an item. A Cluster must not be used inside an item,
# nor be started anywhere in a worker. While functions are imported, each worker would start others
# that import the same.
in_worker = False
in_item = False
# Whether this worker has served as long as its functions want: it goes before its next chunk.
is_spent = False


def main(
    pipe_fd: int, progress_fd: int, output_fd: int, parent: int, cpu: int | None, nice: int = 0
) -> None:
    """Serve chunks until the agent closes the pipe; called by the agent's spawn."""
    global in_worker
    in_worker = True
    started_as = os.getpid()
    aftermath = WorkerAftermath()
    dispositions = Dispositions(aftermath.needed)
    dispositions.take()
    machine.die_with_parent(parent)
    machine.pin(cpu)
    os.nice(nice)
    for fd in (pipe_fd, progress_fd, output_fd):
        os.set_inheritable(fd, False)
    channel = frames.BlockingPipe(socket.socket(fileno=pipe_fd))
    worker = _Worker(channel, ProgressPages(progress_fd), output_fd, aftermath, dispositions)
    os.register_at_fork(
        before=dispositions.before_fork,
        after_in_parent=dispositions.after_fork_in_parent,
        after_in_child=worker.after_fork,
    )
    try:
        worker.run()
    except ConnectionError:
        pass  # The agent was killed: a pipe shows that by an end of file, or by this error.
    if os.getpid() == started_as:
        _end_as_programs_do()


def _end_as_programs_do(code: int = 0) -> NoReturn:
    """End this process: ``atexit`` functions run, as coverage needs; threads are not waited for."""
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


class Plan(NamedTuple):
    """Chunks that are computed together, and how, as ``BatchComputation`` describes it."""

    chunks: list[Chunk]
    first: int
    skip: int
    runs: list[int]


class _Worker:
    def __init__(
        self,
        channel: frames.BlockingPipe,
        progress: ProgressPages,
        output_fd: int,
        aftermath: WorkerAftermath,
        dispositions: Dispositions,
    ) -> None:
        self._pipe: frames.BlockingPipe | forks.NoPipe = channel
        self._reporter = reporter = Reporter(channel)
        self._progress = progress
        self._aftermath = aftermath
        self._dispositions = dispositions
        self._map = ""
        self._number = 0  # Number of the chunk; the agent counts them too.
        self._functions = WorkerFunctions(reporter.send, self._end_if_forked)
        self._items: deque[bytes] = deque()  # Of the next chunks that do not have them.
        self._called: set[Function] = set()
        self._constants: WorkerConstants | None = None  # None until the agent gives it one.
        self._decode = msgspec.msgpack.Decoder(Chunk).decode
        self._output_fd = output_fd
        self._output: Output | None = None

    def run(self) -> None:
        first = self._pipe.receive()
        if first is None or not self._start(msgspec.msgpack.decode(first[1], type=Setup)):
            return
        while (received := self._pipe.receive()) is not None:
            if received[0] == frames.CHUNK:
                self._number += 1
                begins = self._progress.begin(self._number)
                chunk = self._decode(received[1])
                # Items that came just before are taken, and those copied that a seal is over.
                is_due = chunk.at is not None and bool(self._items or chunk.seal)
                if is_due and not self._has_items(chunk):
                    begins = False  # The chunk has ended, or its dispatcher: they are gone.
                if begins:
                    self._compute(chunk)
                else:
                    self._pipe.send(frames.SKIPPED, b"")
            elif received[0] == frames.BATCH:
                self._compute_batch(received[1])
            elif received[0] == frames.ITEMS:
                self._items.append(received[1])
            elif received[0] == frames.JOINED:
                self._join(received[1])
            elif received[0] == frames.LEFT and self._reporter.neighbours is not None:
                self._reporter.neighbours.leave(received[1].decode())
            elif received[0] in (frames.GIVEN, frames.DROPPED):
                self._on_constant(*received)

    def _has_items(self, chunk: Chunk) -> bool:
        """Put the items into a chunk that came without; return whether they are still there."""
        if self._items:  # Those of all chunks that came together, or of none.
            items: bytes | None = self._items.popleft()
        else:
            shared = self._reporter.neighbours
            items = shared.items(chunk) if shared is not None else None
        chunk.items, chunk.at = items or b"", None
        return items is not None

    def _join(self, payload: bytes) -> None:
        """Share memory with a dispatcher; few workers ever do."""
        from .neighbours import NeighbourSegments

        if (shared := self._reporter.neighbours) is None:
            shared = self._reporter.neighbours = NeighbourSegments(os.getppid())
        joined = msgspec.msgpack.decode(payload, type=Joined)
        try:
            shared.join(joined)
        except (OSError, ValueError) as error:
            self._reporter.send(frames.UNSHARED, Unshared(joined.inbox, joined.items, str(error)))

    def _on_constant(self, kind: bytes, payload: bytes) -> None:
        """Take a constant that later chunks need, or let go of one; few workers ever do."""
        from .constants import WorkerConstants

        if self._constants is None:
            self._constants = WorkerConstants()
        if kind == frames.GIVEN:
            self._constants.give(payload)
        else:
            self._constants.drop(payload.decode())

    def _start(self, setup: Setup) -> bool:
        self._reporter.start(setup)
        types.may_import_classes, types.run_script = setup.trust, import_main
        self._output = Output(
            self._mark,
            self._output_fd,
            setup.output_bytes,
            self._aftermath.needed,
            self._progress.last_words,
            renderer(setup.log_format),
            lambda: self._progress.item is not None,
        )
        self._output.redirect()
        show_logs(setup.log_level, setup.log_format)
        mark_records(lambda: self._map, lambda: self._progress.item)
        try:
            machine.limit_memory(setup.memory_limit)
            self._functions.load(setup)
        except BaseException as error:
            self._end_if_forked(error)
            from jetmap.functions.import_errors import format_import_error

            failure = StartFailed(
                type(error).__name__,
                str(error),
                format_import_error(error),
                broken_files(error, *setup.tasks),
            )
            self._reporter.send(frames.FAILED, failure)
            return False
        atexit.register(self._functions.close)  # Before what modules have registered.
        self._dispositions.watch()
        self._aftermath.steps = [self._output.finish, self._dispositions.restore]
        self._aftermath.needed()
        return True

    def _compute_batch(self, payload: bytes) -> None:
        """Compute the chunks of the next frames together, those that still have their items."""
        together = msgspec.msgpack.decode(payload, type=Together)
        chunks, first = [], self._number + 1
        for _ in range(together.count):
            received = self._pipe.receive()
            if received is None:
                return  # The agent is gone.
            chunks.append(self._decode(received[1]))
        self._number += together.count
        self._progress.begin(first)
        # Those without would be at other positions than the agent knows.
        has_all = [chunk.at is None or self._has_items(chunk) for chunk in chunks]
        if not all(has_all):
            for _ in chunks:
                self._pipe.send(frames.SKIPPED, b"")
            return
        self._compute(chunks[0], Plan(chunks, first, together.skip, together.runs))

    def _compute(self, chunk: Chunk, plan: Plan | None = None) -> None:
        global in_item
        self._map = chunk.map
        try:
            if is_spent:
                raise StaleFunction
            function = self._find(chunk)
            state = self._functions.state_of(chunk, function) if function.per_worker else None
        except StaleFunction:
            # The source changed since it was imported; the agent starts a worker that has it.
            self._pipe.send(frames.STALE, b"")
            _end_as_programs_do(STALE_EXIT)
        except BrokenHome:
            for _ in plan.chunks if plan is not None else (chunk,):
                self._pipe.send(frames.SKIPPED, b"")
            return
        except BaseException as error:
            self._end_if_forked(error)
            for each in plan.chunks if plan is not None else (chunk,):
                refuse_chunk(each, None, error, self._reporter.emit, self._reporter.limits)
            return
        decoded = None
        if chunk.at is not None:  # Its items are in shared memory.
            if (shared := self._reporter.neighbours) is not None and function.batching is None:
                decoded = shared.decoded(chunk, function)
            if decoded is None and not self._has_items(chunk):
                self._pipe.send(frames.SKIPPED, b"")  # It has ended, or its dispatcher.
                return
        cold, aftermath = function not in self._called, self._aftermath
        self._progress.set_cold(cold)
        if cold or aftermath.due:
            warmed = (lambda seconds: self._warmed(function, seconds)) if cold else None
            aftermath.begin(warmed)
        in_item = True
        limits, emit = self._reporter.begin(chunk, function), self._reporter.emit
        if self._constants is not None and chunk.kwargs[:1] == CONSTANTS_MARK:
            function = self._constants.filled(function, chunk.map, trusted=self._functions.trust)
        try:
            if function.batching is not None or plan is not None:
                plan = plan or Plan([chunk], self._number, 0, [])
                self._compute_planned(plan, function, limits, state)
            elif chunk.traceparent:
                self._compute_traced(chunk, function, limits, state, decoded)
            else:
                compute(chunk, function, self._progress, emit, limits, aftermath, state, decoded)
        finally:
            in_item = False

    def _compute_planned(
        self, plan: Plan, function: Function, limits: Limits, state: Mapping[str, Any] | None
    ) -> None:
        """Compute a batch, and report each of its chunks as its dispatcher reads it."""
        from .batches import BatchComputation

        def emit_of(chunk: Chunk, stack: ExitStack) -> Callable[[Report], None]:
            span = None
            if chunk.traceparent:
                from jetmap import tracing

                name = chunk.traceparent, chunk.function, chunk.map, chunk.number, chunk.attempt
                span = stack.enter_context(tracing.computing(*name, chunk.count))

            def emit(report: Report) -> None:
                if span is not None:
                    tracing.count_failed(span, [error.kind for error in report.errors])
                if self._reporter.neighbours is not None:
                    self._reporter.share(chunk)
                self._reporter.emit(report)

            return emit

        with ExitStack() as stack:
            # The function's own spans are below that of the first chunk, which is entered last.
            emits = [emit_of(chunk, stack) for chunk in reversed(plan.chunks)][::-1]
            if function.batching is None:  # Another version of it takes lists.
                for chunk, emit in zip(plan.chunks, emits, strict=True):
                    compute(chunk, function, self._progress, emit, limits, self._aftermath, state)
                return
            BatchComputation(
                *(plan.chunks, function, self._progress, emits, limits, self._aftermath, state),
                first=plan.first,
                skip=plan.skip,
                runs=plan.runs,
            ).compute()
            self._progress.leave_batch()

    def _compute_traced(
        self,
        chunk: Chunk,
        function: Function,
        limits: Limits,
        state: Mapping[str, Any] | None,
        decoded: list[Any] | None,
    ) -> None:
        from jetmap import tracing

        send = self._reporter.emit
        if (context := tracing.unsampled_context(chunk.traceparent)) is not None:
            # Most chunks, with a sampler that takes few: nothing is made for each of them.
            token = tracing.attach(context)
            try:
                compute(
                    *(chunk, function, self._progress, send, limits, self._aftermath, state),
                    decoded,
                )
            finally:
                tracing.detach(token)
            return
        name = chunk.traceparent, chunk.function, chunk.map, chunk.number, chunk.attempt
        with tracing.computing(*name, chunk.count) as span:

            def emit(report: Report) -> None:
                tracing.count_failed(span, [error.kind for error in report.errors])
                send(report)

            compute(
                *(chunk, function, self._progress, emit, limits, self._aftermath, state), decoded
            )

    def _warmed(self, function: Function, seconds: float) -> None:
        """Report that a function's first call here has ended."""
        self._called.add(function)
        self._progress.leave()  # Before ``set_cold``: see ``ProgressPages.is_cold``.
        self._progress.set_cold(False)
        self._reporter.send(frames.WARMED, (function.name, seconds))

    def after_fork(self) -> None:
        """Let go, in a forked child, of everything that belongs to the parent."""
        self._pipe.close()
        self._pipe = self._reporter.pipe = forks.NoPipe()
        reporter.shortcut = None
        self._progress.leave_to_parent()
        if self._reporter.neighbours is not None:
            self._reporter.neighbours.close()
        self._aftermath.end_with(forks.end)
        if self._output is not None:
            self._output.after_fork()
        self._dispositions.after_fork_in_child()

    def _end_if_forked(self, error: BaseException) -> None:
        if isinstance(self._pipe, forks.NoPipe):
            forks.end(error)

    def _find(self, chunk: Chunk) -> Function:
        if not understands(chunk.protocol):
            from jetmap.errors import JetmapError

            raise JetmapError(
                f"the caller speaks protocol {chunk.protocol} of jetmap, and this worker speaks "
                f"{OLDEST_PROTOCOL} to {PROTOCOL}: upgrade jetmap where the map was called"
            )
        functions = self._functions
        types.may_import_classes = functions.trust  # For the values of this chunk.
        if chunk.ref is not None and chunk.ref.module and functions.takes(chunk):
            function = functions.find(chunk, chunk.ref)
        elif (found := functions.by_name.get(chunk.function)) is not None:
            function = found
        else:
            raise LookupError(f"this worker has no function {chunk.function!r}")
        return function if chunk.format != "pickle" else functions.pickling(chunk, function)

    def _mark(self) -> str:
        item = self._progress.item
        if item is None:
            return f"[worker {os.getpid()}]"
        return f"[{self._map} item {item}]"
