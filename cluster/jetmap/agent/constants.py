"""The constants of a host: each is fetched once, for all its workers, and kept while it is needed.

An agent asks the dispatcher whose chunk names a constant where that is. On the dispatcher's own
host it opens the same memory; elsewhere it fetches the bytes in parts. Every beat it asks the
dispatchers which constants they still need. One that no dispatcher needs is dropped, and so is one
whose dispatchers have been silent for too long: they are dead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import msgspec

from jetmap.background import Background
from jetmap.errors import JetmapError
from jetmap.machine import boot_id
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import frames
from jetmap.wire.constants import Constant, ConstantsAnswer, ConstantsAsk, Given, digest_of
from jetmap.wire.memory_files import FilePlace, MemoryFile, room
from jetmap.wire.messages import encode
from jetmap.wire.timing import BEAT, SILENCE

from .holdings import HeldChunk
from .neighbours import Worker
from .parts import AGAIN_SECONDS, Transfers

logger = logging.getLogger(__name__)

_answer = msgspec.msgpack.Decoder(ConstantsAnswer).decode


class NotHereError(Exception):
    """A constant cannot be had on this host; the message says why."""


@dataclass(eq=False)
class _Fetch:
    """A constant on its way, and the chunks that wait for it."""

    constant: Constant
    inbox: str
    waiting: list[HeldChunk]
    place: FilePlace | None = None
    is_gone: bool = False  # The dispatcher does not have it any more.
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> str:
        return self.constant.digest

    @property
    def unwanted(self) -> bool:
        # Chunks of other dispatchers fetch it from theirs then: this one may be dead.
        own = (held for held in self.waiting if held.head.inbox == self.inbox)
        return self.is_gone or all(held.unwanted for held in own)


class _Parts:
    """A file that parts are written to."""

    def __init__(self, file: MemoryFile) -> None:
        self._file = file
        self.error: OSError | None = None

    def __setitem__(self, offset: int, part: bytes) -> None:
        try:
            self._file.write(offset, part)
        except OSError as error:
            self.error = error

    def clear(self) -> None:
        """Do nothing: all parts come again."""


class HostConstants:
    """The constants of one agent.

    Args:
        host: Name of this host.
        inbox: Inbox of the agent.
    """

    def __init__(self, connection: Broker, host: str, inbox: str, parts: Transfers) -> None:
        self._connection = connection
        self._host = host
        self._inbox = f"{inbox}.constants"
        self._parts = parts
        self._machine = boot_id()
        self._files: dict[str, MemoryFile] = {}
        self._needed_by: dict[str, set[str]] = {}  # By digest, the inboxes of dispatchers.
        self._heard: dict[str, float] = {}  # By inbox.
        self._fetching: dict[str, tuple[_Fetch, asyncio.Task[str]]] = {}
        self._given: WeakKeyDictionary[Worker, set[str]] = WeakKeyDictionary()
        self._checked = 0.0
        self._background = Background("constants")
        self._subscription: Subscription | None = None
        self._subscribing = asyncio.Lock()  # Chunks may need their constants at the same time.

    def __len__(self) -> int:
        return len(self._files)

    async def close(self) -> None:
        await self._background.close()
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        for digest in list(self._files):
            self._drop(digest)

    # For chunks

    def need(self, held: HeldChunk) -> None:
        """Keep the constants of a chunk that are here already for its dispatcher, too."""
        for constant in held.constants:
            if constant.digest in self._files:
                self._needed_by[constant.digest].add(held.head.inbox)
                self._heard.setdefault(held.head.inbox, time.monotonic())

    def are_here(self, held: HeldChunk) -> bool:
        """Return whether a chunk can begin: its constants are here, or cannot be had."""
        return bool(held.refusal) or all(each.digest in self._files for each in held.constants)

    async def fetch(self, held: HeldChunk) -> bool:
        """Fetch the constants of a chunk; return False if it is no longer wanted.

        If one cannot be had, the chunk's ``refusal`` says why.
        """
        for constant in held.constants:
            if not await self._fetch(held, constant):
                return False
        return True

    async def _fetch(self, held: HeldChunk, constant: Constant) -> bool:
        digest, inbox = constant.digest, held.head.inbox
        while digest not in self._files:
            if digest not in self._fetching:
                await self._subscribe()
            if digest not in self._fetching:  # Another chunk may have begun meanwhile.
                fetch = _Fetch(constant, inbox, [])
                task = self._background.spawn(self._run(fetch), "fetch a constant")
                self._fetching[digest] = fetch, task
            fetch, task = self._fetching[digest]
            fetch.waiting.append(held)
            refusal = await asyncio.shield(task)
            if held.unwanted:
                return False
            if fetch.inbox != inbox:
                continue  # What another dispatcher could not give, its own may have.
            if refusal:
                held.refusal = refusal
                return True
            if digest not in self._files:
                return False
        self.need(held)
        return True

    async def _run(self, fetch: _Fetch) -> str:
        """Fetch a constant; return why it cannot be had, if so."""
        constant = fetch.constant
        try:
            file = await self._file(fetch)
            if file is not None:
                self._files[constant.digest] = file
                self._needed_by[constant.digest] = {fetch.inbox}
                self._heard[fetch.inbox] = time.monotonic()
            return ""
        except NotHereError as error:
            logger.warning("a constant of %d bytes cannot be had: %s", constant.size, error)
            return str(error)
        except (OSError, ValueError) as error:  # For example, it cannot be mapped.
            logger.warning("a constant of %d bytes cannot be kept: %s", constant.size, error)
            return f"host {self._host} cannot keep it: {error}"
        finally:
            del self._fetching[constant.digest]

    async def _file(self, fetch: _Fetch) -> MemoryFile | None:
        """Return the file of a constant; None if nobody wants it any more."""
        while fetch.place is None:
            if fetch.unwanted:
                return None
            fetch.answered.clear()
            await self._ask(fetch.inbox, [fetch.constant.digest])
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
                    await fetch.answered.wait()
            except TimeoutError:
                continue
        constant, place = fetch.constant, fetch.place
        if place.machine and place.machine == self._machine:
            try:
                return MemoryFile.open(place, constant.size)
            except (OSError, ValueError) as error:
                logger.debug("a constant of this host cannot be shared: %s", error)
        try:
            file = MemoryFile.create(constant.size)
        except OSError:
            raise NotHereError(self._no_room(constant.size)) from None
        try:
            sink = _Parts(file)
            if not await self._parts.fetch_constant(fetch, constant, fetch.inbox, sink):
                file.close()
                return None
            if sink.error is not None:
                raise NotHereError(self._no_room(constant.size))
            file.seal()
            if await asyncio.to_thread(digest_of, file.view()) != constant.digest:
                raise NotHereError("the bytes that its caller sent are not those of its digest")
        except BaseException:
            file.close()
            raise
        return file

    def _no_room(self, size: int) -> str:
        return (
            f"host {self._host} has no room for its {size:,} bytes: about {room():,} are free in "
            "memory or in the directory for temporary files"
        )

    def give(self, worker: Worker, held: HeldChunk) -> None:
        """Give a worker the constants of its next chunk that it does not have yet."""
        given = self._given.setdefault(worker, set())
        for constant in held.constants:
            digest, file = constant.digest, self._files.get(constant.digest)
            if digest in given:
                continue
            if file is not None:
                given.add(digest)
                notice = Given(digest, constant.size, file.place)
            else:
                refusal = held.refusal or f"host {self._host} does not have it any more"
                notice = Given(digest, constant.size, None, refusal)
            worker.send(frames.GIVEN, encode(notice))

    # While they are needed

    async def beat(self, now: float) -> None:
        """Ask which constants are still needed, and drop those of dead dispatchers."""
        if self._files:
            # A process that was frozen could not hear answers.
            gap = now - self._checked
            if self._checked and gap > 2 * BEAT:
                self._heard = {inbox: at + gap for inbox, at in self._heard.items()}
            for inbox in [i for i, at in self._heard.items() if now - at > SILENCE]:
                logger.info("a caller is gone; the constants that only it needed are dropped")
                self._release(inbox, self._of(inbox))
            for inbox in list(self._heard):
                await self._ask(inbox, self._of(inbox))
        self._checked = now

    def _of(self, inbox: str) -> list[str]:
        return [digest for digest, inboxes in self._needed_by.items() if inbox in inboxes]

    async def _subscribe(self) -> None:
        async with self._subscribing:
            if self._subscription is None:
                self._subscription = await self._connection.subscribe(
                    self._inbox, self._on_answer, direct=True
                )

    async def _ask(self, inbox: str, digests: list[str]) -> None:
        ask = ConstantsAsk(self._inbox, digests)
        try:
            await self._connection.publish(f"{inbox}.constants", encode(ask))
        except JetmapError as error:
            logger.debug("not asked about constants, which the next beat does: %s", error)

    async def _on_answer(self, message: Message) -> None:
        answer = _answer(message.data)
        if answer.dispatcher in self._heard:
            self._heard[answer.dispatcher] = time.monotonic()
        for digest, place in answer.places.items():
            if (fetching := self._fetching.get(digest)) is not None:
                fetching[0].place = place
                fetching[0].answered.set()
        for digest in answer.unwanted:
            fetching = self._fetching.get(digest)
            if fetching is not None and fetching[0].inbox == answer.dispatcher:
                fetching[0].is_gone = True
                fetching[0].answered.set()
        self._release(answer.dispatcher, answer.unwanted)

    def _release(self, inbox: str, digests: Iterable[str]) -> None:
        """Note that a dispatcher does not need some constants; drop those that nobody needs."""
        for digest in digests:
            inboxes = self._needed_by.get(digest, set())
            inboxes.discard(inbox)
            if not inboxes and digest in self._files:
                self._drop(digest)
        if not self._of(inbox):
            self._heard.pop(inbox, None)

    def _drop(self, digest: str) -> None:
        self._files.pop(digest).close()
        self._needed_by.pop(digest, None)
        for worker, given in self._given.items():
            if digest in given:
                given.discard(digest)
                worker.send(frames.DROPPED, digest.encode())
