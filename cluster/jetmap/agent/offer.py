"""What an agent offers: its functions under one name, and where their chunks are found."""

from __future__ import annotations

import asyncio
import hashlib
import logging

import msgspec

from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker
from jetmap.wire import pool_streams
from jetmap.wire.messages import FunctionInfo, Presence, Ready
from jetmap.wire.versions import pickles

from .options import AgentOptions

logger = logging.getLogger(__name__)


def brief(presence: Presence) -> Presence:
    """An announcement without documents and schemas, for a broker with small messages."""
    functions = [
        msgspec.structs.replace(f, doc="", item={}, value={}, kwargs={}, untyped=[])
        for f in presence.functions
    ]
    failure = presence.failure[-1000:] if presence.failure else None
    return msgspec.structs.replace(
        presence, functions=functions, failure=failure, items=[], crashes=[]
    )


class Offer:
    """name: the digest that names the queue group; empty until a worker is ready. rank: orders
    offers by age. epoch: of the work stream."""

    def __init__(self, connection: Broker, options: AgentOptions) -> None:
        self.name = ""
        self.rank = 0
        self.epoch = ""
        self.version = options.version or ""
        self.functions: dict[str, FunctionInfo] = {}
        self._connection = connection
        self._options = options
        self._stream = pool_streams.StreamOptions(
            storage=options.work_storage,  # type: ignore[arg-type]
            replicas=options.work_replicas,
            max_messages=options.work_max_messages,
            max_bytes=options.work_max_bytes,
        )
        self._written = ("", "")  # Name and epoch that the bucket knows of.
        self._said = ""
        self._changing = asyncio.Lock()

    async def find_stream(self, patience: float = 0.0) -> None:
        """Makes the work stream if it is missing. Raises BrokerUnreachable, TopologyMismatch."""
        self.epoch = await pool_streams.ensure_stream(
            self._connection, self._options.pool, self._stream, patience=patience
        )

    async def find_consumers(self) -> None:
        """Makes what is missing of the stream and of this offer's consumers."""
        await self.find_stream()
        pool, local = self._options.pool, self._options.local
        await pool_streams.ensure_consumers(self._connection, pool, self.name, self.epoch)
        if local:
            await pool_streams.ensure_local_consumer(self._connection, pool, local, self.epoch)

    def take(self, ready: Ready) -> bool:
        """A worker has these functions. Returns whether the offer has another name now.

        An embedded offer grows, under one name; elsewhere a new version is another offer.
        """
        functions = {function.name: function for function in ready.functions}
        version = self._options.version or ready.source
        renamed = not self.name or (version != self.version and not self._options.embedded)
        known = len(self.functions)
        self.functions = functions if renamed else self.functions | functions
        if renamed:
            self.version = version
            self.name = self._digest()
        if renamed or len(self.functions) != known:
            self._written = ("", "")
        return renamed

    async def keep(self) -> bool:
        """Writes the offer down, unless the broker has it. Returns whether it had not."""
        if not self.name or self._written == (self.name, self.epoch):
            return False
        async with self._changing:
            await self._write()
        return True

    def _digest(self) -> str:
        if self._options.embedded:
            return "local"
        schemas = [self.functions[name] for name in sorted(self.functions)]
        content = msgspec.json.encode([self.version, schemas], order="sorted")
        if self._options.setup.trust:
            # Chunks that bring their function must reach no other, nor another Python.
            content += b"trusts" + pickles().encode()
        return hashlib.sha256(content).hexdigest()[:12]

    async def _write(self) -> None:
        functions, place = list(self.functions.values()), (self.name, self.epoch)
        try:
            self.rank = await pool_streams.remember(
                self._connection, self._options.pool, self.name, self.version, functions
            )
            self._written = place
        except JetmapError as error:
            log = logger.debug if self._said == str(error) else logger.warning
            log("the offer could not be written down: %s", error)
            self._said = str(error)
