"""The pull loop: keep the pulls that ``Pulls`` decides on at the broker, and hand on chunks."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec

from jetmap.background import Background
from jetmap.errors import JetmapError
from jetmap.nats import jetstream
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.nats.jetstream import PullEnd
from jetmap.supervision import Backoff
from jetmap.wire import pool_streams, subjects
from jetmap.wire.timing import (
    ANSWER_SECONDS,
    CLUSTER_PARK_SECONDS,
    HEARTBEAT_SECONDS,
    PARK_SECONDS,
)

from .pulls import AgentLane, Pull, Pulls, Verdict
from .shard_pulls import ShardPulls
from .standing_pulls import StandingPulls

logger = logging.getLogger(__name__)

NAK = b"-NAK"


class Delivered(msgspec.Struct, frozen=True):
    """A chunk from the broker."""

    data: bytes
    ack: str
    lane: AgentLane
    deliveries: int
    pending: int  # Backlog of the lane behind this chunk.


class Intake:
    """Take one chunk for each idle core, and no more, or all of them.

    Args:
        take: Called with each chunk that has an idle core.
        renew: Called when a stream or a consumer seems gone: it creates what is missing, and
            calls ``serve``.
        local: Offer of sealed chunks, which are taken too; empty if there is none.
        takes_all: Whether every chunk is taken, also while no core is idle: the pool has no other
            agent, and no shards.

    Attributes:
        gone: Queues that are not served any more although they should be.
    """

    def __init__(
        self,
        connection: Broker,
        pool: str,
        inbox: str,
        take: Callable[[Delivered], Awaitable[None]],
        renew: Callable[[], Awaitable[None]],
        local: str = "",
        *,
        takes_all: bool = False,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._inbox = inbox
        self._take = take
        self._renew = renew
        self._local = local
        self._lanes: tuple[AgentLane, ...] = ("express", "main")
        if local:
            self._lanes += (subjects.LOCAL,)
        self._pulls = StandingPulls() if takes_all else Pulls(local=bool(local))
        self._sharded: ShardPulls | None = None  # These pulls, if the pool has shards.
        self._queues = [pool]  # By the numbers of their shards.
        # Offer and epoch that each queue is served at.
        self._places: dict[str, tuple[str, str]] = {}
        self._subjects: dict[tuple[AgentLane, int], str] = {}
        self._held: deque[Delivered] = deque()
        self._numbers = itertools.count()
        self._heard: dict[tuple[AgentLane, int], float] = {}
        self._subscriptions: list[Subscription] = []
        self._background = Background("intake")
        self._renewing: asyncio.Task[None] | None = None
        self._bodies = _bodies(clustered=False)
        self._patience = PARK_SECONDS + 1  # Seconds of silence after which pulls count as lost.
        self._pending = [0]
        self.gone: set[str] = set()
        self.stopped = False

    async def start(self) -> None:
        """Subscribe, once for each kind of pull.

        A chunk arrives under its own subject, so only the subscription tells which pull it answers.
        """
        for lane in self._lanes:
            for wait in (True, False):
                subject = f"{self._inbox}.{lane}.{int(wait)}.*"
                self._subscriptions.append(
                    await self._connection.subscribe(
                        subject, self._on_message(lane, wait), direct=True
                    )
                )

    async def serve(self, offer: str, epochs: Mapping[str, str], epoch: str = "") -> None:
        """Take the chunks of this offer from now on.

        Args:
            epochs: The queues that have its consumers, and their epochs.
            epoch: Epoch of the pool's work stream.
        """
        clustered = self._connection.clustered
        self._bodies = _bodies(clustered=clustered)
        silence = max(ANSWER_SECONDS, 2 * HEARTBEAT_SECONDS) if clustered else PARK_SECONDS
        self._patience = silence + 1
        queues = subjects.queues(self._pool, offer)
        if queues != self._queues:
            self._spread(queues)
        for shard, queue in enumerate(queues):
            if queue not in epochs:
                self._close(shard)
                continue
            place = offer, epochs[queue]
            if self._sharded is None:
                self._serve(shard, queue, *place)
            elif self._places.get(queue) != place:  # The others have pulls already.
                self._sharded.open(shard)
                self._serve(shard, queue, *place)
                self._places[queue] = place
            self.gone.discard(queue)
        place = self._local, epoch
        if self._local and (self._sharded is None or self._places.get(self._pool) != place):
            self._point(
                subjects.LOCAL, 0, self._pool, subjects.consumer(self._local, subjects.LOCAL, epoch)
            )
            self._places[self._pool] = place
            self.gone.discard(self._pool)
        await self.pull()

    def _serve(self, shard: int, queue: str, offer: str, epoch: str) -> None:
        for lane in pool_streams.LANES:
            self._point(lane, shard, queue, subjects.consumer(offer, lane, epoch))

    def _point(self, lane: AgentLane, shard: int, queue: str, consumer: str) -> None:
        """Send a lane's pulls to this consumer; earlier ones are lost."""
        prefix, stream = self._connection.api_prefix, subjects.stream(queue)
        self._subjects[lane, shard] = f"{prefix}CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._pulls.forget(lane, shard)
        self._heard[lane, shard] = time.monotonic()

    def _spread(self, queues: list[str]) -> None:
        """Pull from other queues from now on."""
        self._queues, self._pending = queues, [0] * len(queues)
        self._places.clear()
        self._subjects.clear()
        self._heard.clear()
        self.gone.clear()
        before, local = self._pulls, bool(self._local)
        self._sharded = ShardPulls(len(queues), local=local) if len(queues) > 1 else None
        self._pulls = self._sharded or Pulls(local=local)
        self._pulls.take_over(before)

    def _close(self, shard: int) -> None:
        """Pull no more from a shard until it is served again."""
        assert self._sharded is not None
        self._sharded.close(shard)
        queue = self._queues[shard]
        self._places.pop(queue, None)
        self._pending[shard] = 0
        self.gone.add(queue)

    async def on_core_freed(self) -> None:
        self._pulls.on_core_freed()
        await self.pull()

    def on_measured(self, *, is_far: bool) -> None:
        """Record whether the broker is far."""
        self._pulls.is_far = is_far

    def on_core_lost(self) -> None:
        self._pulls.on_core_lost()

    @property
    def idle(self) -> int:
        return self._pulls.idle

    @property
    def pending(self) -> int:
        """Chunks that wait in the main lane, as far as known."""
        return sum(self._pending)

    async def stop(self) -> None:
        """Take no more chunks; hand back those that still arrive."""
        self.stopped = True
        await self._background.close()
        while self._held:
            await self._end(self._held.popleft(), Verdict.BACK)

    async def close(self) -> None:
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    async def pull(self) -> None:
        if self._subjects and not self.stopped:
            await self._settle()
            await self._send(self._pulls.plan())

    async def check(self, now: float) -> None:
        """Send again, once a second, the pulls that the broker seems to have lost."""
        for (lane, shard), heard in self._heard.items():
            if self._pulls.out(lane, shard) and now - heard > self._patience:
                self._pulls.forget(lane, shard)
                self._heard[lane, shard] = now
        await self.pull()

    async def on_reconnect(self) -> None:
        """Renew everything: the broker forgets pulls with their connection."""
        for lane, shard in self._subjects:
            self._pulls.forget(lane, shard)
        self.gone.clear()
        if self._renewing is not None:
            # A request sent before the connection was lost is never answered.
            self._renewing.cancel()
            self._renewing = None
        self.renew_soon()

    async def _send(self, pulls: list[Pull]) -> None:
        for pull in pulls:
            lane, shard = at = pull.lane, pull.shard
            reply = f"{self._inbox}.{lane}.{int(pull.wait)}.{next(self._numbers)}"
            if self._sharded is not None:
                reply += f"-{shard}"
            if self._pulls.out(lane, shard) == 1:
                self._heard[at] = time.monotonic()
            body = self._bodies[pull.wait] if pull.chunks == 1 else self._body_of_many(pull.chunks)
            await self._connection.publish(self._subjects[at], body, reply)

    def _body_of_many(self, chunks: int) -> bytes:
        return _parked(chunks, clustered=self._connection.clustered)

    def _on_message(
        self, lane: AgentLane, wait: bool
    ) -> Callable[[Message], Coroutine[Any, Any, None]]:
        async def receive(message: Message) -> None:
            is_chunk = bool(message.reply and not message.headers)
            shard = 0 if self._sharded is None else self._shard(message.subject, is_chunk=is_chunk)
            self._heard[lane, shard] = time.monotonic()
            if is_chunk:
                await self._on_chunk(message, lane, shard, wait)
            else:
                await self._on_status(message, lane, shard, wait)

        return receive

    def _shard(self, subject: str, *, is_chunk: bool) -> int:
        """Return the shard that a message is from: 0 for what was pulled before there were any."""
        if is_chunk:
            queue = subjects.queue_of(subject)
            return self._queues.index(queue) if queue in self._queues else 0
        shard = int(subject.rpartition("-")[2]) if "-" in subject.rpartition(".")[2] else 0
        return shard if shard < len(self._queues) else 0

    async def _on_chunk(self, message: Message, lane: AgentLane, shard: int, wait: bool) -> None:
        if self.stopped:
            await self._connection.publish(message.reply, NAK)
            return
        deliveries, pending = _parse_ack(message.reply)
        if lane == "main":
            self._pending[shard] = pending
            pending = self.pending
        behind = -1 if lane == "express" else pending
        delivered = Delivered(message.data, message.reply, lane, deliveries, behind)
        verdict = self._pulls.on_delivered(lane, shard, waited=wait)
        if lane == "main":
            # Chunks that are held already go first.
            self._held.append(delivered)
            if verdict is not Verdict.HOLD:
                await self._end(self._held.popleft(), verdict)
        else:
            await self._end(delivered, verdict)
        await self._settle()

    async def _settle(self) -> None:
        """Hand held chunks to a core, or back to the broker, as soon as that is decided."""
        while (verdict := self._pulls.settle_held()) is not None:
            await self._end(self._held.popleft(), verdict)

    async def _end(self, delivered: Delivered, verdict: Verdict) -> None:
        if verdict is Verdict.TAKE:
            await self._take(delivered)
        else:
            await self._connection.publish(delivered.ack, NAK)

    async def _on_status(self, message: Message, lane: AgentLane, shard: int, wait: bool) -> None:
        end = jetstream.pull_end(message.headers or {})
        if end is PullEnd.NOT_YET:
            return
        if end is PullEnd.EMPTY and not wait:
            self._pulls.on_empty(lane, shard)
        elif wait:
            self._pulls.on_expired(lane, shard)
        else:
            self._pulls.forget(lane, shard)
        if lane == "main" and self._sharded is not None:
            self._pending[shard] = 0
        if end is PullEnd.CONSUMER_GONE:
            logger.info("pull refused: %s", message.headers)
            self._pulls.forget(lane, shard)
            if self._sharded is not None:
                if lane == subjects.LOCAL:
                    self._places.pop(self._pool, None)
                    self.gone.add(self._pool)
                else:
                    self._close(shard)
            self.renew_soon()
            return
        if end is PullEnd.REFUSED:
            logger.debug("pull refused: %s", message.headers)
        await self.pull()

    def renew_soon(self) -> None:
        """Call ``renew`` until it succeeds."""
        if not self.stopped and (self._renewing is None or self._renewing.done()):
            self._renewing = self._background.spawn(self._renew_consumers(), "renew")

    async def _renew_consumers(self) -> None:
        """Create stream and consumers anew if they are gone, and pull again; try until it works."""
        backoff = Backoff(0.1, 2.0)
        while True:
            try:
                await self._renew()
                return
            except JetmapError as error:
                logger.debug("the work stream cannot be created yet: %s", error)
                await asyncio.sleep(backoff.grow())


def _bodies(*, clustered: bool) -> dict[bool, bytes]:
    """Return the requests of pulls that wait, and of those that do not.

    A lone server answers every pull that waits, with a chunk or at its end, or the connection is
    lost with it. One of several may be killed while the connection to another goes on.
    """
    return {
        True: _parked(1, clustered=clustered),
        False: msgspec.json.encode({"batch": 1, "no_wait": True}),
    }


def _parked(chunks: int, *, clustered: bool) -> bytes:
    """Return the request of a pull that waits, and lets this many chunks through."""
    seconds = CLUSTER_PARK_SECONDS if clustered else PARK_SECONDS
    waiting: dict[str, int] = {"batch": chunks, "expires": int(seconds * 1e9)}
    if clustered:
        waiting["idle_heartbeat"] = int(HEARTBEAT_SECONDS * 1e9)
    return msgspec.json.encode(waiting)


def _parse_ack(subject: str) -> tuple[int, int]:
    """Read the number of deliveries and the consumer's backlog from an ack subject.

    ADR-15: with a domain and account hash, it has two tokens more, and one at its end.
    """
    tokens = subject.split(".")
    if len(tokens) == 9:
        return int(tokens[4]), int(tokens[8])
    return int(tokens[6]), int(tokens[10])
