"""Announce a dispatcher's activity beside its path, and answer whoever looks closer."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from pathlib import Path

from jetmap.background import Background
from jetmap.dispatch.dispatcher import Dispatcher
from jetmap.errors import JetmapError
from jetmap.jobs.service import Jobs
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import subjects
from jetmap.wire.activity import ActivityAnswer, Ask, read_ask
from jetmap.wire.messages import ANNOUNCEMENT_BYTES, encode
from jetmap.wire.timing import BEAT

from .observer import Identity, Observer, fitted, kind_of

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2  # Seconds between two announcements, at least, however many ask for one.


class Announcer:
    """Publish what an ``Observer`` sees, every beat and when somebody begins to look."""

    def __init__(
        self, connection: Broker, dispatcher: Dispatcher, jobs: Jobs, pool: str, owner: str = ""
    ) -> None:
        self._connection = connection
        self._dispatcher = dispatcher
        self._pool = pool
        inbox = connection.inbox(dispatcher.id)
        host = socket.gethostname()
        identity = Identity(
            dispatcher.id, pool, inbox, owner or f"{program()} on {host}", host, os.getpid()
        )
        self.observer = Observer(
            identity,
            dispatcher.maps,
            dispatcher.scheduler,
            dispatcher.roster,
            dispatcher.stats,
            time.monotonic,
            jobs.waiting,
        )
        self._ask_subject = f"{inbox}.ask"
        self._background = Background("announcer")
        self._subscriptions: list[Subscription] = []
        self._last = 0.0

    async def start(self) -> None:
        subscribe = self._connection.subscribe
        self._subscriptions = [
            await subscribe(self._ask_subject, self._on_ask),
            await subscribe(subjects.look(self._pool), self._on_look),
        ]
        self._background.spawn(self._beat(), "announce")

    async def close(self) -> None:
        await self._background.close()
        await self._announce(gone=True)
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    async def _beat(self) -> None:
        while True:
            try:
                await self._announce()
            except Exception:
                # People see less; maps go on.
                logger.exception("the activity could not be described")
            await asyncio.sleep(BEAT)

    async def _announce(self, *, gone: bool = False) -> None:
        if not self._connection.connected:
            return
        self._last = time.monotonic()
        limit = min(ANNOUNCEMENT_BYTES, self._connection.max_payload)
        data = fitted(self.observer.activity(gone=gone), limit)
        try:
            await self._connection.publish(subjects.activity(self._pool, self._dispatcher.id), data)
        except JetmapError as error:
            logger.debug("the activity is not announced: %s", error)

    async def _on_look(self, message: Message) -> None:
        if time.monotonic() - self._last > LOOK_SECONDS:
            await self._announce()

    async def _on_ask(self, message: Message) -> None:
        ask = read_ask(message.data)
        answer = await self._answer(ask)
        if message.reply:
            try:
                await self._connection.publish(message.reply, encode(answer))
            except JetmapError as error:
                logger.debug("an answer is lost: %s", error)
        if ask.what not in ("map", "failure"):
            await self._announce()

    async def _answer(self, ask: Ask) -> ActivityAnswer:
        if ask.what == "map":
            details = self.observer.details(ask.id)
            return (
                ActivityAnswer(map=details)
                if details
                else ActivityAnswer(refusal=f"map {ask.id} is not here")
            )
        if ask.what == "failure":
            found = self.observer.failures.details(ask.id)
            return (
                ActivityAnswer(failure=found)
                if found
                else ActivityAnswer(refusal="this failure is forgotten")
            )
        run = self.observer.find(ask.id)
        if run is None:
            return ActivityAnswer(refusal=f"map {ask.id} has ended, or is not here")
        if ask.what == "cancel":
            if kind_of(run.id) == "job":
                return ActivityAnswer(refusal="a job is cancelled by its own address, not as a map")
            logger.info("map %s is cancelled on request", ask.id)
            await self._dispatcher.cancel(run)
        elif kind_of(run.id) == "job" and ask.what in ("pause", "resume", "limit"):
            return ActivityAnswer(refusal="a job is steered by its own address, not as a map")
        elif ask.what == "pause":
            run.pause()
        elif ask.what == "resume":
            run.resume()
        elif ask.what == "limit":
            run.restrict(ask.value or None)
        else:
            return ActivityAnswer(refusal=f"this version of jetmap cannot {ask.what} a map")
        self._dispatcher.steered(run)
        return ActivityAnswer()


def program() -> str:
    """Return the name of this program, for people."""
    path = Path(sys.argv[0] or "python")
    name = path.stem if path.stem != "__main__" else path.parent.name
    if path.parent.name == "cli" and path.stem == "__main__":
        name = "jetmap"  # A child of `jetmap up`.
    words = [word for word in sys.argv[1:2] if word.isidentifier()]
    return " ".join([name or "python", *words])[:40]
