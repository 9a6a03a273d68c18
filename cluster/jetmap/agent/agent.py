"""The agent, one process a host: NATS I/O, claims, and the supervision of its workers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

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
from .holdings import HeldChunk, Holdings, Key, Lease
from .imports import Imports
from .intake import NAK, Delivered, Intake
from .offer import Offer, brief
from .options import AgentOptions
from .reload import Reload
from .reports import Reports, too_large
from .slot import Slot, StartWorker
from .stored_reports import StoredReports
from .warm_ups import WarmUps
from .worker_process import WorkerProcess
from .worker_state import signal_name

logger = logging.getLogger(__name__)
# Limited: each crash costs a worker's start, but there may be a hundred cores.
crashes = Limited(logger, "crashes", rate=5, burst=20)

TICK_SECONDS = 1.0  # Seconds between two checks for lost pulls, lost callers and changed sources.
WRITE_SECONDS = 5.0  # Seconds between two checks that the broker still has the offer.
DRAIN_FLUSH_SECONDS = 3.0  # Seconds a draining agent waits for confirmations.
WITHDRAWN_KEPT = 1000  # Withdrawn maps to remember.
ENVELOPE_BYTES = 4096  # Bytes of a message around its reports.
ACK, TERM, IN_PROGRESS = b"+ACK", b"+TERM", b"+WPI"

_parcel = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_head = msgspec.msgpack.Decoder(ChunkHead).decode
_report_counts = msgspec.msgpack.Decoder(ReportCounts).decode
_mail = msgspec.msgpack.Decoder(AgentMail).decode
_control = msgspec.msgpack.Decoder(Control).decode


class Agent:
    """Offer this host's cores to a pool, from ``start`` to ``drain`` or ``stop``.

    Nothing is raised once the agent has started: faults are announced and logged.

    Attributes:
        failed: Why no worker can start.
        refused: Why the broker does not let this agent take chunks.
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
        self._served = ""  # The offer whose chunks this agent pulls.
        self._connection = connection
        self._options = options = replace(options, host=options.host or socket.gethostname())
        self._inbox = connection.inbox(self.id)
        setup = _within(connection.room, options.setup)
        self._warm_ups = WarmUps(options.workers.start_timeout)
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
            *(connection, options.pool, f"{self._inbox}.pull", self._on_delivered, self._renew),
            local=options.local,
        )
        self._code = CodeFile(options.code)
        self._machine = boot_id()
        self._offer = Offer(connection, options)
        self._stored = StoredReports(
            connection, options.pool, self._inbox, self._reports.add, self.flush
        )
        # Callers of an embedded agent never get older code than their own.
        tries = options.workers.reload and not options.embedded
        self._reload = Reload((lambda: start(options, None, setup)) if tries else None)
        self._withdrawn: dict[str, None] = {}
        self._subscriptions: list[Subscription] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._chunk_tasks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._draining = False
        self._stopping: asyncio.Task[None] | None = None

    # Life cycle

    async def start(self) -> None:
        """Join the pool and start the workers, which become ready in the background."""
        pool = self._options.pool
        await self._offer.find_stream(jetstream.PATIENCE)
        subscribe = self._connection.subscribe
        self._subscriptions = [
            await subscribe(self._mail, self._on_mail, direct=True),
            await subscribe(subjects.control(pool), self._on_control),
        ]
        await self._intake.start()
        await self._stored.start()
        self._connection.on_reconnect(self._on_reconnect)
        self._connection.on_lost(self._on_lost)
        create = asyncio.get_running_loop().create_task
        self._tasks = [create(slot.run(), name=f"slot-{slot.number}") for slot in self._slots]
        for seconds, step in (
            (BEAT, self._beat),
            (RENEW_SECONDS, self._renew_leases),
            (TICK_SECONDS, self._tick),
            (TICK_SECONDS, self._recycle),
            (TICK_SECONDS, self._reload_source),
            (WRITE_SECONDS, self._keep_written),
        ):
            self._tasks.append(create(self._every(seconds, step), name=step.__name__))
        await self.announce()

    async def drain(self, grace: float) -> None:
        """Take no more chunks, finish or hand back those held within ``grace`` seconds, and stop.

        Each running chunk ends after its current item; its other items run elsewhere.
        """
        if not self._draining:
            self._draining = True
            await self._intake.stop()
            await self.announce()
            for slot in self._slots:
                slot.drain(grace)
            await self._wait_until_released(grace + DRAIN_FLUSH_SECONDS)
        await self.stop()

    async def _wait_until_released(self, patience: float) -> None:
        """Wait until nothing is held, or waiting longer makes no sense."""
        deadline = time.monotonic() + patience
        while len(self._held):
            if not any(slot.held for slot in self._slots):
                # Only confirmations are missing: a dispatcher that lives sends them now.
                if not self._connection.connected:
                    return
                deadline = min(deadline, time.monotonic() + DRAIN_FLUSH_SECONDS)
            self._released.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._released.wait()
            except TimeoutError:
                return

    async def stop(self) -> None:
        """End the workers and leave the pool, now. Unfinished chunks run elsewhere."""
        if self._stopping is None:
            self._draining = True
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        # A drain that is cut short must not leave workers behind: their end must be waited for.
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self._intake.stop()
        for slot in self._slots:
            slot.close()
        for task in [*self._tasks[len(self._slots) :], *self._chunk_tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._chunk_tasks, return_exceptions=True)
        await self._reload.close()
        await self.announce()
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        await self._intake.close()
        await self._stored.close()
        if self._connection.connected:
            try:
                await self._connection.flush(1)
            except JetmapError:
                pass  # The broker went first; it will notice that this agent is gone.

    # Offer

    @property
    def was_ready(self) -> bool:
        """Whether a worker ever was ready."""
        return bool(self._offer.name)

    async def on_worker_ready(self, slot: Slot, ready: Ready) -> None:
        self.failed = None
        self._reload.watch(ready.files)
        self._code.on_loaded(slot.number, ready)
        if self._offer.update(ready):
            try:
                await self._renew()
            except JetmapError as error:
                if self.refused is None:
                    logger.warning("no chunks yet: %s", error)
                self._intake.renew_soon()
        await self._offer.keep()
        await self.announce()

    async def on_worker_failed(self, slot: Slot, failure: StartFailed) -> None:
        self.counts.start_failures += 1
        self._reload.watch(failure.files)
        text = failure.traceback.strip() or f"{failure.type}: {failure.message}"
        if text != self.failed:
            self.failed = text
            logger.error("workers cannot start; trying again with growing pauses:\n%s", text)
        await self.announce()

    async def on_import_failed(self, broken: Broken, *, fatal: bool) -> None:
        if self._imports.on_failed(broken, time.monotonic(), fatal=fatal):
            # The user of an embedded agent sees it as an exception.
            log = logger.info if self._options.embedded else logger.warning
            log("%s cannot be imported: %s", broken.home, broken.text)
        self._reload.watch(broken.files)
        await self.announce()

    async def _keep_written(self) -> None:
        if await self._offer.keep():
            await self.announce()

    async def _renew(self) -> None:
        """Create what is missing at the broker, and pull there."""
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
        """Announce this agent's state to the pool."""
        slots = self._slots
        presence = Presence(
            agent=self.id,
            host=self._options.host,
            pid=os.getpid(),
            pool=self._options.pool,
            # Chunks come only if there is a consumer that this agent may pull from.
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
            failure=self.failed or (str(self.refused) if self.refused else self._reload.failure),
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

    async def on_core_freed(self, slot: Slot) -> None:
        if not self._draining:
            try:
                await self._intake.on_core_freed()
            except JetmapError as error:  # The pulls are sent again when they seem lost.
                logger.debug("not pulled: %s", error)

    def on_core_lost(self, slot: Slot) -> None:
        self._intake.on_core_lost()

    async def _on_delivered(self, delivered: Delivered) -> None:
        """Take in a message for an idle core: one chunk, or several small ones."""
        parcel = _parcel(delivered.data)
        lease = Lease(delivered.ack, len(parcel), delivered.deliveries)
        now = time.monotonic()
        fresh = []
        for raw in parcel:
            data = bytes(raw)
            head = _head(data)
            if head.map in self._withdrawn or self._held.is_gone(head.inbox):
                # The chunk was on its way when its map was withdrawn, or its caller went.
                if lease.release():
                    await self._send(lease.ack, TERM)
                continue
            known = self._held.get(head.map, head.number) is not None
            held = self._held.add(head, lease, data, delivered.pending, now)
            if not known:  # Known: its lease ran out while this process was frozen; it goes on.
                fresh.append(held)
        if not fresh:
            await self._intake.on_core_freed()
        elif delivered.deliveries > 1 or any(held.head.attempt > 1 for held in fresh):
            task = asyncio.get_running_loop().create_task(self._start_wanted(fresh))
            self._chunk_tasks.add(task)
            task.add_done_callback(self._chunk_tasks.discard)
        else:
            await self._start_chunks(fresh)

    async def _start_wanted(self, fresh: list[HeldChunk]) -> None:
        """Claim chunks that another agent had before, and start those that are not done already."""
        answers = await self._claims.ask(fresh, self._in_progress())
        wanted = []
        for held in fresh:
            answer = answers[held.key]
            if answer is None:
                # Its dispatcher is gone, or out of reach: in that case it sends the chunk again.
                await self._release(held, TERM)
            elif answer and not held.unwanted:
                wanted.append(held)
        if wanted:
            await self._start_chunks(wanted)
        else:
            await self._intake.on_core_freed()

    async def _start_chunks(self, fresh: list[HeldChunk]) -> None:
        slot = next((slot for slot in self._slots if slot.is_idle), None)
        if slot is not None and not self._draining:
            slot.assign(fresh)
            return
        # The idle worker died between the pull and the delivery.
        for held in fresh:
            await self._release(held, NAK)
        if not self._draining:
            await self._intake.on_core_freed()

    async def on_report(self, held: HeldChunk, report: bytes, last: bool) -> None:
        if held.unwanted:
            if last:
                await self._release(held, TERM)
            return
        if len(report) > (limit := self._connection.max_payload - ENVELOPE_BYTES):
            report = too_large(report, limit)
        head = _report_counts(report)
        self.counts.outcomes(held.head.function, head.count, (e.kind for e in head.errors))
        held.end = head.start + head.count
        held.finished = last
        self._released.set()
        if head.count and subjects.job_of(head.map) is not None:
            await self._stored.store(held, report)
        else:
            await self._reports.add(held, report)

    async def on_rest(self, held: HeldChunk, rest: Rest) -> None:
        """Report that a chunk goes on with the item in progress only; ``rest`` runs elsewhere."""
        await self._reports.add(held, encode(_empty_report(held.head, rest.start, rest=rest)))
        await self.flush()

    async def on_chunk_ended(self, held: HeldChunk, crash: Crash | None) -> None:
        """Report the end of a chunk without a result: its missing items run elsewhere.

        crash: how its worker died; None if the worker has not begun it.
        """
        if held.unwanted:
            await self._release(held, TERM)
            return
        if crash is not None and crash.reason != "stopped":
            self._log_crash(held.head.function, held.head.map, crash)
        held.finished = True
        self._released.set()
        report = _empty_report(held.head, held.end, final=Final(held.end, crash))
        await self._reports.add(held, encode(report))

    def _log_crash(self, function: str, map: str, crash: Crash) -> None:
        """Count and log the death of a worker with an item."""
        cause = crash.reason if crash.signal is None else signal_name(crash.signal)
        self.counts.crash(function, cause)
        hint = "; perhaps it ran out of memory" if cause == "SIGKILL" else ""
        item = "before its first item" if crash.item is None else f"item {crash.item}"
        crashes.log(
            logging.WARNING, "%s, %s of map %s: %s%s", function, item, map, crash.message, hint
        )

    def on_recycled(self) -> None:
        self.counts.recycled += 1

    async def flush(self) -> None:
        await self._reports.flush()

    async def _release(self, held: HeldChunk, answer: bytes) -> None:
        self._held.drop(held)
        await self._answer(held, answer)

    async def _answer(self, held: HeldChunk, answer: bytes) -> None:
        """Acknowledge each delivery whose last chunk this was."""
        self._released.set()
        for lease in held.leases:
            if lease.release():
                await self._send(lease.ack, answer)

    async def _withdraw(self, held: HeldChunk) -> None:
        """End a chunk that is no longer wanted: by its worker, or by replacing that."""
        if held.unwanted:
            return
        held.unwanted = True
        grace = self._options.settings.chunks.withdraw_grace
        if not any(slot.stop(held, grace) for slot in self._slots):
            self._claims.refuse(held)
            await self._release(held, TERM)

    # Messages

    async def _on_mail(self, message: Message) -> None:
        mail = _mail(message.data)
        if isinstance(mail, ClaimAnswer):
            await self._on_claim_answer(mail)
            return
        for held in self._held.confirm(mail.tokens):
            self._held.on_answer(held.head.inbox, time.monotonic())
            await self._answer(held, ACK)

    async def _on_claim_answer(self, answer: ClaimAnswer) -> None:
        self._held.on_answer(answer.dispatcher, time.monotonic())
        for map, number in answer.unwanted:
            held = self._held.get(map, number)
            if held is not None:
                await self._withdraw(held)
        self._claims.on_answer(answer)

    async def _on_control(self, message: Message) -> None:
        control = _control(message.data)
        if isinstance(control, Ping):
            await self.announce()
            return
        self._withdrawn[control.map] = None
        if len(self._withdrawn) > WITHDRAWN_KEPT:
            del self._withdrawn[next(iter(self._withdrawn))]
        for held in self._held.of_map(control.map):
            await self._withdraw(held)

    async def _on_lost(self) -> None:
        self._released.set()

    async def _on_reconnect(self) -> None:
        await self._intake.on_reconnect()
        await self._claim()
        await self.announce()

    # Periodic steps

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat a step whatever happens: without leases and claims, all chunks would be lost."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await step()
            except Exception:
                logger.exception("internal error in %s; the agent goes on", step.__name__)

    async def _beat(self) -> None:
        """Send claims, unconfirmed reports and an announcement, every two seconds."""
        now = time.monotonic()
        await self._claim()
        await self._reports.send_overdue(now)
        await self._stored.store_overdue(now)
        await self.announce()

    async def _claim(self) -> None:
        await self._claims.send(self._in_progress())

    def _in_progress(self) -> dict[Key, int | None]:
        """Return the item in progress of each chunk that is being computed."""
        return {slot.held.key: slot.item for slot in self._slots if slot.held is not None}

    async def _renew_leases(self) -> None:
        for ack in self._held.leases():
            await self._send(ack, IN_PROGRESS)

    async def _tick(self) -> None:
        """Look, once a second, for lost pulls and lost callers."""
        now = time.monotonic()
        for held in self._held.take_abandoned(now):
            logger.warning("map %s: its caller is gone; its chunk is dropped", held.head.map)
            await self._withdraw(held)
        await self._intake.check(now)

    async def _reload_source(self) -> None:
        """Replace the workers, once a second, if their source has changed and can be imported."""
        if not (self._options.embedded or self._options.workers.reload):
            return
        is_serving = any(slot.is_ready for slot in self._slots)
        if await self._reload.check(is_serving=is_serving):
            self._imports.on_changed()
            self._warm_ups.forget()
            for slot in self._slots:
                await slot.replace()
            await self.announce()

    async def _recycle(self) -> None:
        """Replace, once a second, workers that have served long enough."""
        for slot in self._slots:
            await slot.recycle()

    async def _send(self, subject: str, payload: bytes) -> None:
        """Publish, or give up: everything that matters is sent again by a later beat."""
        try:
            await self._connection.publish(subject, payload)
        except JetmapError as error:
            logger.debug("could not publish to %s: %s", subject, error)


def _empty_report(
    head: ChunkHead, start: int, *, final: Final | None = None, rest: Rest | None = None
) -> Report:
    """Make a report without outcomes."""
    values = b"[]" if head.format == "json" else b"\x90"
    return Report(head.map, head.number, head.attempt, start, 0, values, [], 0.0, final, rest=rest)


def _within(room: int, setup: Setup) -> Setup:
    """Limit the values and reports of workers to what the broker can carry."""
    value, report = min(setup.max_value, room), min(setup.max_report, room)
    return msgspec.structs.replace(setup, max_value=value, max_report=report)
