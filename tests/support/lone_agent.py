"""A pool of one agent, and a dispatcher made up, over a network that loses, doubles and delays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from jetmap.agent.agent import Agent
from jetmap.nats.memory import MemoryBroker, MemoryConnection
from jetmap.wire import subjects
from jetmap.wire.messages import (
    BatchTerms,
    Chunk,
    Claim,
    ClaimAnswer,
    Confirmation,
    Delivery,
    encode,
)
from jetmap.wire.presence import Presence
from simulated_pool import FUNCTION, SimulatedPool, Work

POOL = "default"


class Caller:
    """A dispatcher's side of the wire: chunks out, and answers to what comes back."""

    def __init__(self, connection: MemoryConnection) -> None:
        self.connection = connection
        self.id = subjects.new_id()
        self.inbox = connection.inbox(self.id)
        self.values: dict[int, int] = {}  # By number of the chunk, which has one item.
        self.reported: Counter[int] = Counter()
        self.claimed: set[int] = set()
        self.unwanted: set[tuple[str, int]] = set()
        self.answers = True
        self.offer = ""
        self.batch: BatchTerms | None = None  # Of what it sends.

    async def start(self) -> None:
        subscribe = self.connection.subscribe
        await subscribe(f"{self.inbox}.result", self._on_result)
        await subscribe(f"{self.inbox}.claim", self._on_claim)
        await subscribe(subjects.all_presence(POOL), self._on_presence)

    async def send(
        self,
        *numbers: int,
        map: str = "m",
        attempt: int = 1,
        copy: str = "",
        kwargs: bytes = b"",
    ) -> None:
        """Publish chunks of one item each, in one message."""
        chunks = [
            Chunk(
                *(map, number, attempt, FUNCTION, "msgpack", 0, 1, self.inbox, None, 0.0),
                items=encode([number]),
                kwargs=kwargs,
                batch=self.batch,
            )
            for number in numbers
        ]
        subject = subjects.work(POOL, self.offer, "main", f"{map}{copy}", numbers[0])
        await self.connection.publish(subject, encode([msgspec.Raw(encode(c)) for c in chunks]))

    async def waiting(self) -> int:
        """Return the messages that the broker has and that are not acknowledged."""
        info = await self.connection.api(f"STREAM.INFO.{subjects.stream(POOL)}")
        return int(info["state"]["messages"])

    async def until(self, condition: Any) -> None:
        """Look twice a second, in virtual time: the condition may ask the broker."""
        async with asyncio.timeout(200):
            while True:
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.5)

    async def done(self) -> bool:
        return await self.waiting() == 0

    async def _on_presence(self, message: Any) -> None:
        presence = msgspec.msgpack.decode(message.data, type=Presence)
        self.offer = presence.offer or self.offer

    async def _on_result(self, message: Any) -> None:
        if not self.answers:
            return
        delivery = msgspec.msgpack.decode(message.data, type=Delivery)
        for report in delivery.reports:
            if report.count:
                (value,) = msgspec.msgpack.decode(report.values)
                assert value == 2 * report.number == self.values.setdefault(report.number, value)
            self.reported[report.number] += 1
        await self.connection.publish(delivery.inbox, encode(Confirmation([delivery.token])))

    async def _on_claim(self, message: Any) -> None:
        if not self.answers:
            return
        claim = msgspec.msgpack.decode(message.data, type=Claim)
        self.claimed |= {chunk.number for chunk in claim.chunks}
        answer = ClaimAnswer(self.inbox, claim.sequence, sorted(self.unwanted))
        await self.connection.publish(claim.inbox, encode(answer))


class Network:
    """Deals out fates to what agent and caller say to each other, once ``started``."""

    def __init__(self, fates: Sequence[Sequence[float]]) -> None:
        self.started = False
        self._fates = list(reversed(fates))

    def __call__(self, subject: str, data: bytes) -> Sequence[float]:
        ours = subject.endswith((".result", ".claim", ".mail"))
        return self._fates.pop() if self.started and ours and self._fates else (0.0,)


class LoneAgent:
    """A pool of one agent and one caller."""

    def __init__(self, fates: Sequence[Sequence[float]] = (), work: Work | None = None) -> None:
        self.network = Network(fates)
        self.pool = SimulatedPool(MemoryBroker(network=self.network), work)
        self.agent: Agent
        self.caller: Caller

    async def __aenter__(self) -> LoneAgent:
        await self.pool.__aenter__()
        self.caller = Caller(self.pool._connect("caller"))
        await self.caller.start()
        self.agent = await self.pool.agent(2)
        await self.caller.until(lambda: self.caller.offer)
        self.network.started = True
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.pool.__aexit__(*raised)
