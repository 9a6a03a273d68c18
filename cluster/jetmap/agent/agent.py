"""The agent, one process a host: it offers the host's cores to a pool, and keeps their workers.

``chunks.py`` has the way of a chunk through it, ``slot.py`` a core and its worker.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import replace

import msgspec

from jetmap.background import Background
from jetmap.errors import BrokerUnreachable, JetmapError
from jetmap.machine import choose_cores
from jetmap.nats import jetstream
from jetmap.nats.answers import JetStreamError
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.nats.errors import Forbidden, is_lasting
from jetmap.wire import subjects
from jetmap.wire.counts import AgentCounts
from jetmap.wire.messages import Control, Hurry, Ping, encode
from jetmap.wire.presence import Presence
from jetmap.wire.protocol import PROTOCOL
from jetmap.wire.timing import BEAT, RENEW_SECONDS
from jetmap.wire.worker_start import Broken, Loaded, Ready, StartFailed

from .announcements import Announcements
from .chunks import Chunks
from .imports import Imports
from .neighbours import NeighbourDispatchers
from .offer import Offer
from .options import AgentOptions, fit_to_messages
from .pulse import Pulse, always
from .reload import Reload
from .slot import Slot, StartWorker
from .spare import Spare
from .warm_ups import WarmUps
from .worker_process import WorkerProcess

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0  # Seconds between two checks for lost pulls, lost callers and changed sources.
MEASURE_SECONDS = 10.0  # Seconds between two measurements of the round trip to the broker.
REST_SECONDS = 60.0  # Seconds between two of them while the agent rests.
WRITE_SECONDS = 5.0  # Seconds between two checks that the broker still has the offer.

_control = msgspec.msgpack.Decoder(Control).decode


class Agent:
    """Offer this host's cores to a pool, from ``start`` to ``drain`` or ``stop``.

    Nothing is raised once the agent has started: faults are announced and logged.
    """

    def __init__(
        self,
        connection: Broker,
        options: AgentOptions,
        start: StartWorker = WorkerProcess.start,
    ) -> None:
        self.id = subjects.new_id()
        self._connection = connection
        self._options = options = replace(options, host=options.host or socket.gethostname())
        setup = fit_to_messages(connection.room, options.setup)
        self._offer = Offer(connection, options)
        self._imports = Imports(setup)
        self._warm_ups = WarmUps(options.workers.start_timeout)
        # Callers of an embedded agent never get older code than their own.
        tries = options.workers.reload and not options.embedded
        self._reload = Reload((lambda: start(options, None, setup)) if tries else None)
        self._spare = Spare(lambda: start(options, None, setup), wanted=options.workers.warm_spare)
        self._slots: list[Slot] = []
        cores = choose_cores(options.cores)
        share = options.settings.chunks.arena(processes=len(cores))
        self._neighbours = neighbours = NeighbourDispatchers(f"jetmap-{self.id}", share)
        self._state = Announcements(
            self.id, options, self._slots, self._offer, self._imports, self._reload, neighbours
        )
        self._chunks = Chunks(
            connection, options, self.id, self._slots, self._state, self._renew, neighbours
        )
        for number, cpu in enumerate(cores):
            cpu = cpu if options.pinned else None
            self._slots.append(
                Slot(
                    number,
                    cpu,
                    options,
                    setup,
                    self,
                    self._chunks,
                    start,
                    self._warm_ups,
                    self._spare.take,
                    neighbours,
                )
            )
        self._subject = subjects.presence(options.pool, self.id)
        self._measured = 0.0  # Time of the last measurement of the round trip.
        self._control: Subscription | None = None
        self._cores = Background("agent's cores")
        self._background = Background("agent")
        self._stopping: asyncio.Task[None] | None = None

    # Life cycle

    async def start(self) -> None:
        """Join the pool and start the workers, which become ready in the background."""
        await self._offer.find_stream(jetstream.PATIENCE)
        self._control = await self._connection.subscribe(
            subjects.control(self._options.pool), self._on_control
        )
        wanted = self._options.settings.stream.work_shards
        if await self._offer.find_shards(wanted, jetstream.PATIENCE):
            await self._send_shards()
        await self._chunks.start()
        self._neighbours.start()
        self._connection.on_reconnect(self._on_reconnect)
        self._connection.on_lost(self._chunks.on_lost)
        for slot in self._slots:
            self._cores.spawn(slot.run(), f"core {slot.number}")
        self._background.spawn(self._pulse().run(), "pulse")
        self._background.spawn(self._measure(), "measure")
        await self.announce()

    def _pulse(self) -> Pulse:
        """Return the periodic steps. An agent that rests wakes for its beats only."""
        pulse, chunks = Pulse(self._background), self._chunks
        pulse.add(BEAT, self._beat)
        pulse.add(RENEW_SECONDS, chunks.renew_leases, chunks.needs_checks)
        pulse.add(TICK_SECONDS, chunks.check, chunks.needs_checks)
        pulse.add_beside(BEAT, chunks.store_overdue, chunks.has_unstored)
        pulse.add_beside(TICK_SECONDS, self._check_spare, lambda: self._spare.needs_checks)
        pulse.add_beside(WRITE_SECONDS, self._keep_written, lambda: not self._offer.is_written)
        pulse.add_beside(MEASURE_SECONDS, self._measure, self._is_to_measure)
        if any(slot.recycles for slot in self._slots):
            pulse.add_beside(TICK_SECONDS, self._recycle, always)
        if self._options.embedded or self._options.workers.reload:
            pulse.add_beside(TICK_SECONDS, self._reload_source, always)
        return pulse

    async def drain(self, grace: float) -> None:
        """Take no more chunks, finish or hand back those held within ``grace`` seconds, and stop.

        Each running chunk ends after its current item; its other items run elsewhere.
        """
        if not self._state.draining:
            self._state.draining = True
            await self._chunks.intake.stop()
            await self.announce()
            await self._chunks.drain(grace)
        await self.stop()

    async def stop(self) -> None:
        """End the workers and leave the pool, now. Unfinished chunks run elsewhere."""
        if self._stopping is None:
            self._state.draining = self._state.gone = True
            self._stopping = self._background.spawn(self._stop(), "stop")
        # A drain that is cut short must not leave workers behind: their end must be waited for.
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self._chunks.stop()
        for slot in self._slots:
            slot.close()
        await self._background.close()
        await self._spare.drop()
        await self._cores.finish()
        self._neighbours.stop()
        await self._reload.close()
        await self.announce()
        if self._control is not None:
            await self._control.unsubscribe()
        await self._chunks.close()
        if self._connection.connected:
            try:
                await self._connection.flush(1)
            except JetmapError:
                pass  # The broker went first; it will notice that this agent is gone.

    # Workers and offer

    @property
    def was_ready(self) -> bool:
        """Return whether a worker ever was ready."""
        return bool(self._offer.name)

    @property
    def is_broken(self) -> bool:
        """Return whether its workers cannot start, and none ever did."""
        return not self.was_ready and self._state.failed is not None

    @property
    def refused(self) -> JetmapError | None:
        """The reason why the broker does not let this agent take chunks."""
        return self._state.refused

    async def on_worker_ready(self, slot: Slot, ready: Ready) -> None:
        self._state.on_ready(slot.number, ready)
        self._imports.on_ready(ready.loads)
        self._spare.on_ready(ready)
        if self._offer.update(ready, self._imports.broken(time.monotonic())):
            await self._serve()
        await self._offer.keep()
        await self.announce()

    async def _serve(self) -> None:
        """Take the chunks of the offer's new name."""
        self._chunks.intake.gone.clear()
        try:
            await self._renew()
        except JetmapError as error:
            if self.refused is None:
                logger.warning("no chunks, or not all, yet: %s", error)
            self._chunks.intake.renew_soon()

    async def on_worker_failed(self, slot: Slot, failure: StartFailed) -> None:
        self._state.on_worker_failed(failure)
        self._imports.on_start_failed(time.monotonic())
        await self.announce()

    async def on_import_failed(self, broken: Broken, *, fatal: bool) -> None:
        self._state.on_import_failed(broken, fatal=fatal)
        await self.announce()

    async def on_load_failed(self, broken: Broken) -> None:
        """Record that a loader has ended a worker that was not ready yet.

        A loader that worked elsewhere is called again by the next worker; for want of memory, for
        example, another one may have failed.
        """
        if self._imports.is_proven(broken.loader):
            self._state.on_worker_failed(StartFailed("WorkerStartFailed", broken.text, ""))
        else:
            self._state.on_import_failed(broken, fatal=True)
        await self.announce()

    async def on_loaded(self, loaded: Loaded) -> None:
        self._imports.on_loaded(loaded)
        self._spare.on_ready(loaded)
        await self._spare.drop()  # It has not loaded this.

    async def on_stale(self) -> None:
        await self._spare.drop()

    def on_recycled(self) -> None:
        self._state.counts.recycled += 1

    @property
    def counts(self) -> AgentCounts:
        return self._state.counts

    @property
    def presence(self) -> Presence:
        """The state of this agent, as it would announce it now."""
        return self._state.presence(self._chunks.intake.pending)

    @property
    def connected(self) -> bool:
        return self._connection.connected

    async def _renew(self) -> None:
        """Create what is missing at the broker, and pull there."""
        if not self._offer.name:
            return
        offer, intake = self._offer, self._chunks.intake
        missing: JetmapError | None = None
        try:
            await offer.find_consumers(intake.gone or None)
        except Forbidden as error:
            self._state.on_refused(error)
            raise
        except (JetStreamError, BrokerUnreachable) as error:
            if isinstance(error, JetStreamError) and is_lasting(error):
                self._state.on_refused(error)
                raise
            if not offer.epochs:
                raise
            missing = error  # A server that is lost takes its shards with it, and no others.
        is_news = self._state.served != offer.name
        self._state.refused, self._state.served = None, offer.name
        await intake.serve(offer.name, offer.epochs, offer.epoch)
        if is_news:
            await self.announce()
        if missing is not None:
            raise missing

    async def announce(self) -> None:
        """Announce this agent's state to the pool."""
        pending, limit = self._chunks.intake.pending, self._connection.max_payload
        try:
            await self._connection.publish(self._subject, self._state.message(pending, limit))
        except JetmapError as error:
            logger.debug("not announced: %s", error)  # The next beat does it.

    # Messages

    async def _on_control(self, message: Message) -> None:
        control = _control(message.data)
        if isinstance(control, Ping):
            if control.shards and self._offer.follow(control.shards):
                self._background.spawn(self._take_name(), "take another name")
            if self._state.on_ping(control):
                await self.announce()
        elif isinstance(control, Hurry):
            self._chunks.hurry(control)
        else:
            await self._chunks.withdrawals.withdraw_map(control.map)

    async def _send_shards(self) -> None:
        """Let the other agents of the pool follow this one's number of shards."""
        subject = subjects.control(self._options.pool)
        await self._connection.publish(subject, encode(Ping(PROTOCOL, shards=self._offer.shards)))

    async def _on_reconnect(self) -> None:
        self._state.on_news()  # Another server may be farther, or nearer.
        await self._chunks.on_reconnect()
        await self.announce()
        if not self._state.gone:
            self._background.spawn(self._look_for_shards(), "look for shards")

    async def _look_for_shards(self) -> None:
        """Follow a number of shards that was set while the broker was away."""
        before = self._offer.name
        await self._offer.find_shards(patience=jetstream.PATIENCE)
        if self._offer.name != before:
            await self._take_name()

    async def _take_name(self) -> None:
        """Take the chunks of the offer's new name, and announce it."""
        await self._serve()
        await self._offer.keep()
        await self.announce()

    # Periodic steps

    async def _beat(self) -> None:
        await self._chunks.beat()
        await self.announce()

    def _is_to_measure(self) -> bool:
        """Return whether to measure the round trip again: less often while nothing happens."""
        now = time.monotonic()
        # This is asked every ten seconds or so, perhaps a little early.
        due = now - self._measured >= REST_SECONDS - MEASURE_SECONDS / 2
        return due or not self._state.rests(now)

    async def _measure(self) -> None:
        """Measure the round trip to the broker, and announce one that has changed."""
        self._measured = time.monotonic()
        await self._chunks.prefetching.measure()
        if self._chunks.prefetch.round_trip != self._state.round_trip:
            self._state.round_trip = self._chunks.prefetch.round_trip
            await self.announce()

    async def _keep_written(self) -> None:
        """Write the offer again if the broker has lost it."""
        if await self._offer.keep():
            await self.announce()

    async def _reload_source(self) -> None:
        """Replace the workers if their source has changed and can be imported."""
        is_serving = any(slot.is_ready for slot in self._slots)
        if await self._reload.check(is_serving=is_serving):
            self._imports.on_changed()
            self._warm_ups.forget()
            self._spare.forget()
            await self._spare.drop()
            for slot in self._slots:
                await slot.replace()
            await self.announce()

    async def _check_spare(self) -> None:
        """Keep a spare worker where loading takes long."""
        if not self._state.draining:
            settled = all(slot.is_ready for slot in self._slots)
            largest = lambda: max(slot.memory() for slot in self._slots)  # noqa: E731
            await self._spare.check(settled=settled, size=largest)

    async def _recycle(self) -> None:
        """Replace workers that have served long enough."""
        for slot in self._slots:
            await slot.recycle()
