"""An agent's offer: its functions under one name, and the consumers of their chunks."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Collection, Iterable

import msgspec

from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker
from jetmap.nats.errors import is_passing
from jetmap.nats.jetstream import RETRY_SECONDS
from jetmap.wire import pool_streams, subjects
from jetmap.wire.presence import FunctionInfo, offer_digest
from jetmap.wire.protocol import PICKLES_PROTOCOL
from jetmap.wire.versions import pickles
from jetmap.wire.worker_start import Ready

from .options import AgentOptions

logger = logging.getLogger(__name__)


class Offer:
    """The offer of one agent.

    Attributes:
        name: Digest that names the queue group; empty until a worker is ready.
        rank: Order of offers by age.
        shards: Number of work streams that its chunks are spread over.
        epoch: Epoch of the pool's work stream, which takes sealed chunks and those without shards.
        epochs: Epochs of the queues whose consumers are there.
        digest: Digest of the functions, for announcements.
    """

    def __init__(self, connection: Broker, options: AgentOptions) -> None:
        self.name = ""
        self.rank = 0
        self.shards = 1
        self.epoch = ""
        self.epochs: dict[str, str] = {}
        self._base = ""
        self._told = 0  # Times that the number of shards was set.
        self.version = options.workers.version or ""
        self.functions: dict[str, FunctionInfo] = {}
        self.digest = ""
        self._connection = connection
        self._options = options
        self._written = ("", "")  # Name and epoch as last written to the bucket.
        self._last_error = ""
        self._changing = asyncio.Lock()

    async def find_stream(self, patience: float = 0.0) -> None:
        """Create the work stream if it is missing. Raises BrokerUnreachable, TopologyMismatch."""
        self.epoch = await pool_streams.ensure_stream(
            self._connection, self._options.pool, self._options.settings.stream, patience=patience
        )

    async def find_shards(self, wanted: int = 0, patience: float = 0.0) -> bool:
        """Look up the pool's number of shards. Returns whether it was changed to ``wanted``.

        Args:
            wanted: The number that the pool is to have from now on; 0: the one that it has.
            patience: Seconds to keep asking while the broker does not answer.
        """
        if self._options.embedded:  # It has a server of its own.
            return False
        began = time.monotonic()
        while True:
            try:
                return await self._find_shards(wanted)
            except JetmapError as error:
                may_pass = is_passing(error, clustered=self._connection.clustered)
                if not may_pass or time.monotonic() - began >= patience:
                    log = logger.warning if wanted else logger.debug
                    log("the number of shards could not be read or set: %s", error)
                    return False
            await asyncio.sleep(RETRY_SECONDS)

    async def _find_shards(self, wanted: int) -> bool:
        c, pool, told = self._connection, self._options.pool, self._told
        there = await pool_streams.shards(c, pool)
        if self._told == told:  # Else another agent has set it meanwhile.
            self._spread(there)
        if wanted in (0, there):
            return False
        await pool_streams.set_shards(c, pool, wanted)
        self.follow(wanted)
        return True

    def follow(self, shards: int) -> bool:
        """Take over a number of shards that was set; return whether the offer has a new name."""
        self._told += 1
        return not self._options.embedded and self._spread(shards)

    def _spread(self, shards: int) -> bool:
        self.shards = shards
        return self._rename()

    async def find_consumers(self, missing: Collection[str] | None = None) -> None:
        """Create the work streams and this offer's consumers if they are missing.

        Args:
            missing: Queues that may lack theirs; None: all.

        Raises BrokerUnreachable or JetStreamError if one of the queues cannot be served; the
        others are in ``epochs``.
        """
        pool, local = self._options.pool, self._options.local
        if missing is None:
            await self.find_stream()
        if local and (missing is None or pool in missing):
            await pool_streams.ensure_local_consumer(self._connection, pool, local, self.epoch)
        queues = subjects.queues(pool, self.name)
        self.epochs = {
            queue: epoch
            for queue, epoch in self.epochs.items()
            if missing is not None and queue in queues and queue not in missing
        }
        sought = [queue for queue in queues if queue not in self.epochs]
        found = await asyncio.gather(*map(self._find_queue, sought), return_exceptions=True)
        for failure in found:
            if isinstance(failure, BaseException):
                raise failure

    async def _find_queue(self, queue: str) -> None:
        if self.shards > 1:
            options = self._options.settings.stream
            epoch = await pool_streams.ensure_stream(self._connection, queue, options)
        else:
            epoch = self.epoch
        await pool_streams.ensure_consumers(self._connection, queue, self.name, epoch)
        self.epochs[queue] = epoch

    def update(self, ready: Ready, broken: Iterable[str] = ()) -> bool:
        """Record the functions of a worker. Returns whether the offer has a new name.

        An embedded offer grows under one name; elsewhere a new version is another offer.

        Args:
            broken: What workers of this host cannot load. It makes another offer, so that chunks
                for hosts that can do not come here.
        """
        functions = {function.name: function for function in ready.functions}
        version = self._options.workers.version or ready.source
        renamed = not self.name or (version != self.version and not self._options.embedded)
        known = len(self.functions)
        for function in ready.functions:
            if function.refusal and function != self.functions.get(function.name):
                logger.warning("%s cannot be called: %s", function.name, function.refusal)
        self.functions = functions if renamed else self.functions | functions
        self.digest = offer_digest(self.functions)
        if renamed:
            self.version = version
            self._base = self._digest(sorted(broken))
            self._rename()
        if renamed or len(self.functions) != known:
            self._written = ("", "")
        return renamed

    @property
    def is_written(self) -> bool:
        """Return whether the broker has the offer, if there is one."""
        return not self.name or self._written == (self.name, self.epoch)

    async def keep(self) -> bool:
        """Write the offer to the broker unless it is there. Returns whether it was missing."""
        if self.is_written:
            return False
        async with self._changing:
            await self._write()
        return True

    def _rename(self) -> bool:
        """Name the offer; return whether it has a new name."""
        before = self.name
        self.name = self._base and subjects.sharded(self._base, self.shards)
        return self.name != before

    def _digest(self, broken: list[str]) -> str:
        if self._options.embedded:
            return "local"
        schemas = [self.functions[name] for name in sorted(self.functions)]
        content = msgspec.json.encode([self.version, schemas], order="sorted")
        if broken:
            content += msgspec.json.encode(broken)
        if self._options.setup.trust:
            # Chunks that bring their function must reach only agents that trust it, of this Python.
            content += b"trusts" + pickles().encode()
            # Nor may pickled items reach an agent that was upgraded to read them, and one that was
            # not, by the same name.
            content += b"%d" % PICKLES_PROTOCOL
        return hashlib.sha256(content).hexdigest()[:12]

    async def _write(self) -> None:
        functions, place = list(self.functions.values()), (self.name, self.epoch)
        try:
            self.rank = await pool_streams.remember(
                self._connection, self._options.pool, self.name, self.version, functions
            )
            self._written = place
        except JetmapError as error:
            log = logger.debug if self._last_error == str(error) else logger.warning
            log("the offer could not be written to the broker: %s", error)
            self._last_error = str(error)
