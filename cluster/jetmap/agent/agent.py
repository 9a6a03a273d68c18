"""The agent: one process a host. NATS I/O, claims and the supervision of its workers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from jetmap.errors import JetmapError
from jetmap.logs import Limited
from jetmap.machine import boot_id, choose_cores
from jetmap.nats import jetstream
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.nats.errors import Forbidden, JetStreamError, is_lasting
from jetmap.wire import counts, subjects
from jetmap.wire.messages import (
    OLDEST_PROTOCOL,
    PROTOCOL,
    AgentMail,
    Broken,
    ChunkHead,
    ClaimAnswer,
    Control,
    Crash,
    Final,
    Ping,
    Presence,
    Ready,
    Report,
    ReportCounts,
    Rest,
    Setup,
    StartFailed,
    encode,
)
from jetmap.wire.timing import BEAT, RENEW_SECONDS
from jetmap.wire.versions import package_versions, python_version

from .claims import Claims
from .code import CodeFile
from .holdings import Holding, Holdings, Key, Lease
from .imports import Imports
from .intake import NAK, Delivered, Intake
from .offer import Offer, brief
from .options import AgentOptions
from .reports import Reports, too_large
from .slot import Slot, StartWorker
from .stored_reports import Storing
from .warm_ups import WarmUps
from .worker_process import WorkerProcess, signal_name

logger = logging.getLogger(__name__)
# Each crash costs a worker's start, but there may be a hundred cores.
crashes = Limited(logger, "crashes", rate=5, burst=20)

TICK_SECONDS = 1.0
WRITE_SECONDS = 5.0
DRAIN_FLUSH_SECONDS = 3.0
WITHDRAWN_KEPT = 1000
WORDS_BYTES = 4096  # Of a message, around a report.
ACK, TERM, IN_PROGRESS = b"+ACK", b"+TERM", b"+WPI"

_parcel = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_head = msgspec.msgpack.Decoder(ChunkHead).decode
_report_counts = msgspec.msgpack.Decoder(ReportCounts).decode
_mail = msgspec.msgpack.Decoder(AgentMail).decode
_control = msgspec.msgpack.Decoder(Control).decode


class Agent:
    """Offers this host's cores to a pool, from ``start`` to ``drain`` or ``stop``.

    Raises nothing once started: what goes wrong is announced (``failed``: no worker can start;
    ``refused``: the broker does not let us take chunks) and logged.
    """

    def __init__(
        self,
        connection: Broker,
        options: AgentOptions,
        start: StartWorker = WorkerProcess.start,
    ) -> None:
        self.id = subjects.new_id()
        self.failed: str | None = None
        self.counts = counts.AgentCounts()
        self.refused: Forbidden | JetStreamError | None = None
        self._served = ""  # The offer whose chunks we pull.
        self._connection = connection
        self._options = options = replace(options, host=options.host or socket.gethostname())
        self._inbox = connection.inbox(self.id)
        setup = _within(connection.room, options.setup)
        self._warm_ups = WarmUps(options.start_timeout)
        self._imports = Imports(setup.modules)
        self._slots = [
            Slot(number, cpu, options, setup, self, start, self._warm_ups)
            for number, cpu in enumerate(choose_cores(options.cores))
        ]
        self._mail = f"{self._inbox}.mail"
        self._held = Holdings()
        self._reports = Reports(
            self._held, self.id, self._mail, self._send, lambda: connection.room
        )
        self._claims = Claims(self._held, self.id, options.host, self._mail, self._send)
        self._intake = Intake(
            *(connection, options.pool, f"{self._inbox}.pull", self._take, self._renew),
            local=options.local,
        )
        self._code = CodeFile(options.code)
        self._machine = boot_id()
        self._offer = Offer(connection, options)
        self._storing = Storing(
            connection, options.pool, self._inbox, self._reports.add, self.flush
        )
        self._files: dict[str, float] = {}
        self._withdrawn: dict[str, None] = {}
        self._subscriptions: list[Subscription] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._chunk_tasks: set[asyncio.Task[None]] = set()
        self._let_some_go = asyncio.Event()
        self._draining = False
        self._stopping: asyncio.Task[None] | None = None

    # Its life

    async def start(self) -> None:
        """Connects to the pool and starts the workers; they get ready in the background."""
        pool = self._options.pool
        await self._offer.find_stream(jetstream.PATIENCE)
        subscribe = self._connection.subscribe
        self._subscriptions = [
            await subscribe(self._mail, self._receive_mail, direct=True),
            await subscribe(subjects.control(pool), self._receive_control),
        ]
        await self._intake.start()
        await self._storing.start()
        self._connection.on_reconnect(self._reconnected)
        self._connection.on_lost(self._lost)
        create = asyncio.get_running_loop().create_task
        self._tasks = [create(slot.run(), name=f"slot-{slot.number}") for slot in self._slots]
        for seconds, step in (
            (BEAT, self._beat),
            (RENEW_SECONDS, self._renew_leases),
            (TICK_SECONDS, self._tick),
            (TICK_SECONDS, self._recycle),
            (WRITE_SECONDS, self._keep_written),
        ):
            self._tasks.append(create(self._every(seconds, step), name=step.__name__))
        await self.announce()

    async def drain(self, grace: float) -> None:
        """Takes no more, finishes or hands back what it holds within ``grace`` seconds, stops.

        Each running chunk ends after its current item; the rest of it runs elsewhere.
        """
        if not self._draining:
            self._draining = True
            await self._intake.stop()
            await self.announce()
            for slot in self._slots:
                slot.drain(grace)
            await self._let_all_go(grace + DRAIN_FLUSH_SECONDS)
        await self.stop()

    async def _let_all_go(self, patience: float) -> None:
        """Until nothing is held, or not longer than it makes sense to wait."""
        deadline = time.monotonic() + patience
        while len(self._held):
            if not any(slot.held for slot in self._slots):
                # Only confirmations are waited for: a dispatcher that lives gives them now.
                if not self._connection.connected:
                    return
                deadline = min(deadline, time.monotonic() + DRAIN_FLUSH_SECONDS)
            self._let_some_go.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._let_some_go.wait()
            except TimeoutError:
                return

    async def stop(self) -> None:
        """Ends the workers and leaves the pool, now. What is unfinished runs elsewhere."""
        if self._stopping is None:
            self._draining = True
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        # A drain that is cut short must not leave workers behind whose end nobody waits for.
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self._intake.stop()
        for slot in self._slots:
            slot.close()
        for task in [*self._tasks[len(self._slots) :], *self._chunk_tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._chunk_tasks, return_exceptions=True)
        await self.announce()
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        await self._intake.close()
        await self._storing.close()
        if self._connection.connected:
            try:
                await self._connection.flush(1)
            except JetmapError:
                pass  # The broker went first; it will see that we are gone.

    # Its offer

    @property
    def was_ready(self) -> bool:
        """Whether a worker ever was."""
        return bool(self._offer.name)

    async def worker_ready(self, slot: Slot, ready: Ready) -> None:
        self.failed = None
        self._files |= {path: _modified(path) for path in ready.files}
        self._code.loaded(slot.number, ready)
        if self._offer.take(ready):
            try:
                await self._renew()
            except JetmapError as error:
                if self.refused is None:
                    logger.warning("no chunks yet: %s", error)
                self._intake.renew_soon()
        await self._offer.keep()
        await self.announce()

    async def worker_failed(self, slot: Slot, failure: StartFailed) -> None:
        self.counts.start_failures += 1
        text = failure.traceback.strip() or f"{failure.type}: {failure.message}"
        if text != self.failed:
            self.failed = text
            logger.error("workers cannot start; trying again with growing pauses:\n%s", text)
        await self.announce()

    async def import_failed(self, broken: Broken, *, fatal: bool) -> None:
        if self._imports.failed(broken, time.monotonic(), fatal=fatal):
            # An embedded one's user gets it as an exception.
            log = logger.info if self._options.embedded else logger.warning
            log("%s cannot be imported: %s", broken.home, broken.text)
        self._files |= {file: _modified(file) for file in broken.files}
        await self.announce()

    async def _keep_written(self) -> None:
        if await self._offer.keep():
            await self.announce()

    async def _renew(self) -> None:
        """Makes what is missing at the broker, and pulls there."""
        if not self._offer.name:
            return
        try:
            await self._offer.find_consumers()
        except (Forbidden, JetStreamError) as error:
            if is_lasting(error):
                if self.refused is None:
                    logger.error("no chunks: %s", error)
                self.refused, self._served = error, ""
            raise
        is_news = self._served != self._offer.name
        self.refused, self._served = None, self._offer.name
        await self._intake.serve(self._offer.name, self._offer.epoch)
        if is_news:
            await self.announce()

    async def announce(self) -> None:
        """Tells the pool how it stands here."""
        slots = self._slots
        presence = Presence(
            agent=self.id,
            host=self._options.host,
            pid=os.getpid(),
            pool=self._options.pool,
            # Chunks come only where there is a consumer that we may pull from.
            offer=self._offer.name if self._served == self._offer.name else "",
            version=self._offer.version,
            rank=self._offer.rank,
            cores=len(slots),
            ready=sum(slot.is_ready for slot in slots) if self._served else 0,
            busy=sum(slot.held is not None for slot in slots),
            draining=self._draining,
            gone=self._stopping is not None,
            functions=list(self._offer.functions.values()),
            workers=[slot.status() for slot in slots],
            pending=max(0, self._intake.pending),
            embedded=self._options.embedded,
            failure=self.failed or (str(self.refused) if self.refused else None),
            trusts=self._options.setup.trust,
            items=counts.rows(self.counts.items),
            crashes=counts.rows(self.counts.crashes),
            recycled=self.counts.recycled,
            start_failures=self.counts.start_failures,
            local=self._options.local if self._served else "",
            broken=self._imports.broken(time.monotonic()),
            python=python_version(),
            packages=package_versions(),
            machine=self._machine,
            protocol=PROTOCOL,
            oldest_protocol=OLDEST_PROTOCOL,
        )
        message = encode(presence)
        if len(message) > self._connection.max_payload:
            message = encode(brief(presence))
        await self._send(subjects.presence(self._options.pool, self.id), message)

    # Chunks

    async def core_freed(self, slot: Slot) -> None:
        if not self._draining:
            try:
                await self._intake.core_freed()
            except JetmapError as error:  # The pulls are sent again when they seem lost.
                logger.debug("not pulled: %s", error)

    def core_lost(self, slot: Slot) -> None:
        self._intake.core_lost()

    async def _take(self, delivered: Delivered) -> None:
        """A message has come for an idle core: one chunk, or several small ones."""
        parcel = _parcel(delivered.data)
        lease = Lease(delivered.ack, len(parcel), delivered.deliveries)
        now = time.monotonic()
        fresh = []
        for raw in parcel:
            data = bytes(raw)
            head = _head(data)
            if head.map in self._withdrawn or self._held.is_gone(head.inbox):
                # It was on its way when its map was withdrawn, or its caller went.
                if lease.is_over():
                    await self._send(lease.ack, TERM)
                continue
            known = self._held.get(head.map, head.number) is not None
            held = self._held.take(head, lease, data, delivered.pending, now)
            if not known:  # Else our lease ran out while we were frozen: the chunk goes on.
                fresh.append(held)
        if not fresh:
            await self._intake.core_freed()
        elif delivered.deliveries > 1 or any(held.head.attempt > 1 for held in fresh):
            task = asyncio.get_running_loop().create_task(self._start_wanted(fresh))
            self._chunk_tasks.add(task)
            task.add_done_callback(self._chunk_tasks.discard)
        else:
            await self._start_chunks(fresh)

    async def _start_wanted(self, fresh: list[Holding]) -> None:
        """Chunks that somebody had before are claimed first: they may be done already."""
        answers = await self._claims.ask(fresh, self._in_progress())
        wanted = []
        for held in fresh:
            answer = answers[held.key]
            if answer is None:
                # Its dispatcher is gone, or only out of reach: then it sends it again later.
                await self._let_go(held, TERM)
            elif answer and not held.unwanted:
                wanted.append(held)
        if wanted:
            await self._start_chunks(wanted)
        else:
            await self._intake.core_freed()

    async def _start_chunks(self, fresh: list[Holding]) -> None:
        slot = next((slot for slot in self._slots if slot.is_idle), None)
        if slot is not None and not self._draining:
            slot.assign(fresh)
            return
        # The idle worker died between the pull and the delivery.
        for held in fresh:
            await self._let_go(held, NAK)
        if not self._draining:
            await self._intake.core_freed()

    async def reported(self, held: Holding, report: bytes, last: bool) -> None:
        if held.unwanted:
            if last:
                await self._let_go(held, TERM)
            return
        if len(report) > (limit := self._connection.max_payload - WORDS_BYTES):
            report = too_large(report, limit)
        head = _report_counts(report)
        self.counts.outcomes(held.head.function, head.count, (e.kind for e in head.errors))
        held.end = head.start + head.count
        held.finished = last
        self._let_some_go.set()
        if head.count and subjects.job_of(head.map) is not None:
            await self._storing.store(held, report)
        else:
            await self._reports.add(held, report)

    async def gave_back(self, held: Holding, rest: Rest) -> None:
        """The chunk goes on with the item in progress; ``rest`` runs elsewhere."""
        await self._reports.add(held, encode(_nothing(held.head, rest.start, rest=rest)))
        await self.flush()

    async def ended(self, held: Holding, crash: Crash | None) -> None:
        """Its worker died, or has not begun it (None): what is missing of it runs elsewhere."""
        if held.unwanted:
            await self._let_go(held, TERM)
            return
        if crash is not None and crash.reason != "stopped":
            self._crashed(held.head.function, held.head.map, crash)
        held.finished = True
        self._let_some_go.set()
        report = _nothing(held.head, held.end, final=Final(held.end, crash))
        await self._reports.add(held, encode(report))

    def _crashed(self, function: str, map: str, crash: Crash) -> None:
        """Count and log the end of a worker with an item."""
        cause = crash.reason if crash.signal is None else signal_name(crash.signal)
        self.counts.crash(function, cause)
        hint = "; perhaps for want of memory" if cause == "SIGKILL" else ""
        item = "before its first item" if crash.item is None else f"item {crash.item}"
        crashes.log(
            logging.WARNING, "%s, %s of map %s: %s%s", function, item, map, crash.message, hint
        )

    def recycled(self) -> None:
        self.counts.recycled += 1

    async def flush(self) -> None:
        await self._reports.flush()

    async def _let_go(self, held: Holding, answer: bytes) -> None:
        self._held.drop(held)
        await self._answer(held, answer)

    async def _answer(self, held: Holding, answer: bytes) -> None:
        """Tells the broker, for each delivery of which this was the last chunk."""
        self._let_some_go.set()
        for lease in held.leases:
            if lease.is_over():
                await self._send(lease.ack, answer)

    async def _withdraw(self, held: Holding) -> None:
        """The chunk is no longer wanted: its worker ends it, or is replaced."""
        if held.unwanted:
            return
        held.unwanted = True
        slot = next((slot for slot in self._slots if slot.has(held)), None)
        if slot is not None:
            slot.stop(held, self._options.withdraw_grace)
        else:
            self._claims.refuse(held)
            await self._let_go(held, TERM)

    # What arrives

    async def _receive_mail(self, message: Message) -> None:
        mail = _mail(message.data)
        if isinstance(mail, ClaimAnswer):
            await self._claim_answered(mail)
            return
        for held in self._held.confirmed(mail.tokens):
            self._held.heard(held.head.inbox, time.monotonic())
            await self._answer(held, ACK)

    async def _claim_answered(self, answer: ClaimAnswer) -> None:
        self._held.heard(answer.dispatcher, time.monotonic())
        for map, number in answer.unwanted:
            held = self._held.get(map, number)
            if held is not None:
                await self._withdraw(held)
        self._claims.answered(answer)

    async def _receive_control(self, message: Message) -> None:
        control = _control(message.data)
        if isinstance(control, Ping):
            await self.announce()
            return
        self._withdrawn[control.map] = None
        if len(self._withdrawn) > WITHDRAWN_KEPT:
            del self._withdrawn[next(iter(self._withdrawn))]
        for held in self._held.of_map(control.map):
            await self._withdraw(held)

    async def _lost(self) -> None:
        self._let_some_go.set()

    async def _reconnected(self) -> None:
        await self._intake.reconnected()
        await self._claim()
        await self.announce()

    # What happens by itself

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Goes on whatever happens: without leases or claims, all that is held would be lost."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await step()
            except Exception:
                logger.exception("a fault of the agent's own in %s; it goes on", step.__name__)

    async def _beat(self) -> None:
        """Every two seconds: claims, results that were not confirmed, presence."""
        now = time.monotonic()
        await self._claim()
        await self._reports.again(now)
        await self._storing.again(now)
        await self.announce()

    async def _claim(self) -> None:
        await self._claims.send(self._in_progress())

    def _in_progress(self) -> dict[Key, int | None]:
        """The item in progress of each chunk that is computed."""
        return {slot.held.key: slot.item for slot in self._slots if slot.held is not None}

    async def _renew_leases(self) -> None:
        for ack in self._held.leases():
            await self._send(ack, IN_PROGRESS)

    async def _tick(self) -> None:
        """Every second: lost pulls, lost callers, changed sources."""
        now = time.monotonic()
        for held in self._held.gone(now):
            logger.warning("map %s: its caller is gone; it is dropped", held.head.map)
            await self._withdraw(held)
        await self._intake.check(now)
        if self._options.embedded or self._options.reload:
            changed = [p for p, at in self._files.items() if _modified(p) != at]
            if changed:
                logger.info("%s changed: the workers are replaced", ", ".join(changed))
                self._imports.changed()
                self._files = {path: _modified(path) for path in self._files}
                self._warm_ups.forget()
                for slot in self._slots:
                    await slot.replace()

    async def _recycle(self) -> None:
        """Every second: worn workers."""
        for slot in self._slots:
            await slot.recycle()

    async def _send(self, subject: str, payload: bytes) -> None:
        """Publishes, or gives up: everything that matters is sent again by a later beat."""
        try:
            await self._connection.publish(subject, payload)
        except JetmapError as error:
            logger.debug("not sent to %s: %s", subject, error)


def _nothing(
    head: ChunkHead, start: int, *, final: Final | None = None, rest: Rest | None = None
) -> Report:
    """A report without outcomes."""
    values = b"[]" if head.format == "json" else b"\x90"
    return Report(head.map, head.number, head.attempt, start, 0, values, [], 0.0, final, rest=rest)


def _within(room: int, setup: Setup) -> Setup:
    """Workers make no value and no report that the broker cannot carry."""
    value, report = min(setup.max_value, room), min(setup.max_report, room)
    return msgspec.structs.replace(setup, max_value=value, max_report=report)


def _modified(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0
