"""Watch a pool for as long as somebody looks: announcements in, one view and its differences out.

While nobody looks there is no subscription, no task and no view.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

import msgspec

from jetmap.background import Background
from jetmap.dispatch.roster import Roster
from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.nats.errors import NoResponders
from jetmap.wire import subjects
from jetmap.wire.activity import ActivityAnswer, Ask, read_activity, read_answer
from jetmap.wire.controls import PoolControl
from jetmap.wire.messages import encode
from jetmap.wire.timing import GONE_AFTER

from .pool_view import PoolView

logger = logging.getLogger(__name__)

STEP_SECONDS = 1.0  # Seconds between two differences.
LINGER_SECONDS = 60.0  # Seconds for which a pool is still watched after the last look.
# Seconds without any announcement, this process's own too, after which the broker counts as away:
# before anybody is forgotten.
SILENT_SECONDS = GONE_AFTER - 2.0
FIRST_SECONDS = 0.5  # Seconds for all dispatchers to answer whoever begins to look.
BROKER_SECONDS = 5.0  # Seconds between two looks at the broker's streams.
ANSWER_SECONDS = 3.0  # Seconds for a dispatcher's answer.
MOST_WAITING = 32  # Differences that may wait for a slow reader, who then starts anew.

# Kinds of streams of a pool, by the names that people know.
STREAMS = ("WORK", "JOBS", "INPUT", "OUTCOMES")


class _Reader:
    """Keep the differences that one reader has not read yet, if they are few."""

    def __init__(self) -> None:
        self._changes: deque[bytes] = deque()
        self._is_behind = self._is_over = False
        self._event = asyncio.Event()

    def add(self, change: bytes) -> None:
        if len(self._changes) >= MOST_WAITING:
            self._is_behind = True
            self._changes.clear()
        if not self._is_behind:
            self._changes.append(change)
        self._event.set()

    def end(self) -> None:
        self._is_over = True
        self._event.set()

    async def next(self) -> bytes | None:
        """Return the next difference; empty: start anew; None: there are no more."""
        await self._event.wait()
        if self._is_over:
            return None
        if self._is_behind:
            self._is_behind = False
            self._event.clear()
            return b""
        change = self._changes.popleft()
        if not self._changes:
            self._event.clear()
        return change


class PoolWatch:
    """The view of a pool, kept while it is used.

    Args:
        store_bytes: Bytes that the pool's jobs may store together.
        control: Returns what is paused or limited.
    """

    def __init__(
        self,
        connection: Broker,
        roster: Roster,
        pool: str,
        store_bytes: int = 0,
        control: Callable[[], PoolControl] = PoolControl,
    ) -> None:
        self._connection = connection
        self._roster = roster
        self._pool = pool
        self._store_bytes = store_bytes
        self._control = control
        self._view: PoolView | None = None
        self._subscription: Subscription | None = None
        self._background = Background("pool watch")
        self._starting: asyncio.Task[PoolView] | None = None
        self._readers: set[_Reader] = set()
        self._used = 0.0
        self._heard = self._stepped = 0.0  # When something was heard last; the latest step.

    @property
    def is_watching(self) -> bool:
        return self._view is not None

    async def close(self) -> None:
        for reader in self._readers:
            reader.end()
        await self._background.close()
        await self._stop()

    async def view(self) -> PoolView:
        """Return the view, with what all dispatchers and agents say now."""
        self._used = time.monotonic()
        if self._view is not None and self._starting is None:
            return self._view
        if self._starting is None:
            self._starting = self._background.spawn(self._start(), "begin to watch")
        return await asyncio.shield(self._starting)

    async def changes(self) -> AsyncGenerator[bytes, None]:
        """Yield the view as JSON, then its differences, one a second, until the reader leaves."""
        reader = _Reader()
        view = await self.view()
        self._readers.add(reader)
        try:
            yield msgspec.json.encode(view.snapshot())
            while (change := await reader.next()) is not None:
                yield change or msgspec.json.encode(view.snapshot())
        finally:
            self._readers.discard(reader)
            self._used = time.monotonic()

    async def ask(self, what: str, id: str, value: int = 0) -> ActivityAnswer:
        """Ask the dispatcher that has a map, or a cause of failures."""
        view = await self.view()
        inbox = view.owner_of(id)
        if inbox is None:
            return ActivityAnswer(refusal=f"nobody has {id} any more")
        question = encode(Ask(what, id, value))
        try:
            data = await self._connection.request(f"{inbox}.ask", question, ANSWER_SECONDS)
        except NoResponders:
            return ActivityAnswer(refusal=f"the process that has {id} has just ended")
        return read_answer(data)

    # Inside

    async def _start(self) -> PoolView:
        now = time.monotonic()
        view = PoolView(self._pool, round(time.time() - now, 2))
        self._heard = self._stepped = now
        self._subscription = await self._connection.subscribe(
            subjects.all_activity(self._pool), self._on_activity
        )
        self._view = view
        try:
            with contextlib.suppress(JetmapError):
                await self._connection.publish(subjects.look(self._pool))
            await asyncio.sleep(FIRST_SECONDS)
        finally:
            self._starting = None
        self._step(view)
        self._background.spawn(self._keep(view), "watch")
        self._background.spawn(self._look_at_broker(view), "look at the broker")
        return view

    async def _stop(self) -> None:
        self._view = None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.unsubscribe()

    async def _on_activity(self, message: Message) -> None:
        if self._view is None:
            return
        self._heard = time.monotonic()
        try:
            self._view.on_activity(read_activity(message.data), time.monotonic())
        except msgspec.MsgspecError as error:
            logger.debug("an announcement cannot be read: %s", error)

    async def _keep(self, view: PoolView) -> None:
        """Make a difference a second, until nobody has looked for a while."""
        while True:
            await asyncio.sleep(STEP_SECONDS)
            if not self._readers and time.monotonic() - self._used > LINGER_SECONDS:
                await self._stop()
                return
            change = self._step(view)
            if self._readers:
                data = msgspec.json.encode(change)
                for reader in self._readers:
                    reader.add(data)

    def _step(self, view: PoolView) -> dict[str, Any]:
        now = time.monotonic()
        # A process that was frozen has not listened.
        self._heard += max(0.0, now - self._stepped - 2 * STEP_SECONDS)
        self._stepped = now
        # A broker that is cut off, or frozen, keeps its connections for a while.
        is_silent = now - self._heard > SILENT_SECONDS
        is_there = self._connection.connected and not is_silent
        view.on_connection(is_there, self._heard if is_silent else now)
        if is_there:
            view.on_agents(self._roster.agents, now)
        view.control = self._control()
        return view.advance(now)

    async def _look_at_broker(self, view: PoolView) -> None:
        while self._view is view:
            streams = await self._streams(
                [subjects.job_stream(self._pool, kind) for kind in STREAMS]
            )
            stored = sum(s["bytes"] for s in streams if s["name"] != subjects.stream(self._pool))
            jobs = {"bytes": stored, "quota": self._store_bytes if len(streams) > 1 else 0}
            if shards := self._shards():
                streams[1:1] = await self._streams([subjects.stream(shard) for shard in shards])
            server = self._connection.server_name
            view.on_broker({"server": server, "streams": streams, "store": jobs})
            await asyncio.sleep(BROKER_SECONDS)

    def _shards(self) -> list[str]:
        """List the shards that the pool's agents pull from."""
        offers = {agent.offer for agent in self._roster.agents}
        found = {queue for offer in offers for queue in subjects.queues(self._pool, offer)}
        return sorted(filter(subjects.is_shard, found), key=lambda shard: (len(shard), shard))

    async def _streams(self, names: Iterable[str]) -> list[dict[str, Any]]:
        streams = []
        for name in names:
            try:
                streams.append(await self._stream(name))
            except (JetmapError, KeyError) as error:
                logger.debug("stream %s cannot be looked at: %s", name, error)
        return streams

    async def _stream(self, name: str) -> dict[str, Any]:
        info = await self._connection.api(f"STREAM.INFO.{name}", timeout=2)
        config, state = info["config"], info["state"]
        return {
            "name": name,
            "messages": state.get("messages", 0),
            "bytes": state.get("bytes", 0),
            "quota": config.get("max_bytes", -1),
            "storage": config.get("storage", ""),
            "copies": config.get("num_replicas", 1),
            "leader": (info.get("cluster") or {}).get("leader", ""),
            "replicas": [
                {"name": r.get("name", ""), "current": bool(r.get("current"))}
                for r in (info.get("cluster") or {}).get("replicas") or []
            ],
        }
