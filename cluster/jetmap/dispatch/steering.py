"""Let a dispatcher do what people want of functions and of the pool: pause, resume, limit.

The controls are in the pool's bucket, so that they survive every process. A notice brings a change
to all dispatchers at once; they read it again now and then, too, in case a notice was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from jetmap.background import Background
from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import pool_streams, subjects
from jetmap.wire.controls import (
    FREE,
    KEEP,
    PoolControl,
    Seats,
    Steer,
    read_control,
    read_seats,
    read_steer,
    write_json,
)
from jetmap.wire.messages import encode
from jetmap.wire.timing import BEAT, SILENCE

from . import seats
from .gate import Gate
from .maps import OpenMaps
from .open_map import OpenMap

logger = logging.getLogger(__name__)

CONTROL = "control"  # The key of the controls.
READ_SECONDS = 5 * BEAT  # Seconds between two readings of the controls.
TURN_SECONDS = BEAT  # Seconds for which a dispatcher keeps cores that others want, too.
SETTLE_SECONDS = 0.25  # Seconds between two looks at cores that are wanted or to be given up.
# Seconds without a notice after which a dispatcher's cores are free: by then, agents have stopped
# its chunks, whose claims nobody answers.
SEATS_KEPT = SILENCE + 2 * BEAT
CLOSE_SECONDS = 1.0  # Seconds for giving up cores when closing.


@dataclass
class _Table:
    """The seats of a limited function, as this dispatcher knows them.

    Attributes:
        is_stale: Whether the document may have changed.
        began: When this dispatcher took seats last.
    """

    rows: dict[str, Seats] = field(default_factory=dict)
    revision: int = 0
    is_stale: bool = True
    began: float = 0.0


class Steering:
    """Keep the controls of the pool, and the gates of the functions that are steered.

    Args:
        me: The dispatcher.
        on_limited: Called with each open map that has a gate now, and had none.
        on_change: Called when more may be sent.
        on_other: Called with each other dispatcher that sends a notice.
    """

    def __init__(
        self,
        connection: Broker,
        pool: str,
        me: str,
        maps: OpenMaps,
        *,
        on_limited: Callable[[OpenMap], None],
        on_change: Callable[[], None],
        on_other: Callable[[str], None],
    ) -> None:
        self.control = PoolControl()
        self.is_active = False  # Whether anything is paused or limited.
        self._connection = connection
        self._pool = pool
        self._me = me
        self._maps = maps
        self._on_limited = on_limited
        self._on_change = on_change
        self._on_other = on_other
        self._gates: dict[str, Gate] = {}
        self._tables: dict[str, _Table] = {}
        self._heard: dict[str, float] = {}
        self._began = time.monotonic()
        self._read_at = -READ_SECONDS
        self._spoke_at = -SEATS_KEPT
        self._woken = asyncio.Event()
        self._background = Background("steering")
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Read the controls, and keep them up to date."""
        subscribe = self._connection.subscribe
        self._subscription = await subscribe(subjects.steer(self._pool), self._on_steer)
        self._connection.on_reconnect(self._on_reconnect)
        self._began = time.monotonic()
        await self._read()
        self._background.spawn(self._run(), "steer")

    async def close(self) -> None:
        """Give up all cores of limited functions, so that others have them at once."""
        await self._background.close()
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        held = [name for name, table in self._tables.items() if self._me in table.rows]
        if held and self._connection.connected:
            with contextlib.suppress(JetmapError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    for function in held:
                        await self._leave(function)

    # What the dispatcher asks

    def gate(self, function: str, declared: int | None) -> Gate | None:
        """Return the gate for a map that begins, if its function or the pool is steered.

        Args:
            declared: Limit that the function's code says.
        """
        gate = self._gate(function, declared)
        if gate is not None and gate.limit is not None and gate.share < gate.limit:
            self._woken.set()
        return gate

    def _gate(self, function: str, declared: int | None = None) -> Gate | None:
        control, gate = self.control.of(function), self._gates.get(function)
        if declared is None and gate is not None:
            declared = gate.declared
        if control == FREE and not self.control.paused and declared is None:
            return None
        if gate is None:
            gate = self._gates[function] = Gate(function, self._is_seated, self._woken.set)
        gate.control, gate.pool_paused, gate.declared = control, self.control.paused, declared
        return gate

    def hold(self, function: str) -> Gate | None:
        """Return the gate of a function that is paused, or whose pool is; None: it is not."""
        if not self.is_active:
            return None
        gate = self._gate(function)
        return gate if gate is not None and gate.is_paused else None

    # What people want

    async def change(
        self, function: str | None, *, paused: bool | None = None, max_parallel: int | None = KEEP
    ) -> PoolControl:
        """Pause, resume or limit a function, or the pool; return all controls.

        A change that was made before raises nothing.

        Args:
            function: None: the whole pool.
            paused: None: as it is.
            max_parallel: None: no limit but that of its code; KEEP: as it is.

        Raises:
            BrokerUnreachable: The broker does not answer, or forbids it.
        """
        while True:
            before, revision = await self._stored()
            after = before.steered(function, paused=paused, max_parallel=max_parallel)
            if after == before:
                break
            data = write_json(after)
            if await pool_streams.write_key(self._connection, self._pool, CONTROL, data, revision):
                await self.speak(CONTROL)
                break
        self._apply(after)
        return after

    # Inside

    async def _on_steer(self, message: Message) -> None:
        try:
            steer = read_steer(message.data)
        except msgspec.MsgspecError as error:
            logger.debug("a notice cannot be read: %s", error)
            return
        if steer.dispatcher == self._me:
            return
        self._heard[steer.dispatcher] = time.monotonic()
        self._on_other(steer.dispatcher)
        if steer.key == CONTROL:
            self._read_at = -READ_SECONDS
        else:
            for function, table in self._tables.items():
                if steer.key == pool_streams.seats_key(function):
                    table.is_stale = True
        if steer.key:
            self._woken.set()

    async def _on_reconnect(self) -> None:
        self._began = time.monotonic()  # Others may not have been heard meanwhile.
        self._heard.clear()
        self._read_at = -READ_SECONDS
        for table in self._tables.values():
            table.is_stale = True
        self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                if time.monotonic() - self._read_at >= READ_SECONDS:
                    await self._read()
                await self._settle()
            except Exception:
                # The controls stay as they are; maps go on.
                logger.exception("the controls of the pool could not be followed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._woken.wait()

    def _pause(self) -> float:
        """Seconds until the next look, if nothing wakes this up."""
        if not self._tables:
            return max(BEAT, self._read_at + READ_SECONDS - time.monotonic())
        is_shared = any(set(table.rows) - {self._me} for table in self._tables.values())
        return SETTLE_SECONDS if is_shared else BEAT

    async def _read(self) -> None:
        try:
            control, _ = await self._stored()
        except JetmapError as error:
            logger.debug("the controls of the pool cannot be read yet: %s", error)
            return
        self._read_at = time.monotonic()
        self._apply(control)

    async def _stored(self) -> tuple[PoolControl, int]:
        data, revision = await pool_streams.read_key(self._connection, self._pool, CONTROL)
        try:
            return read_control(data) if data else PoolControl(), revision
        except msgspec.MsgspecError as error:
            logger.warning("the controls of pool %s cannot be read: %s", self._pool, error)
            return PoolControl(), revision

    def _apply(self, control: PoolControl) -> None:
        """Open and close gates as the controls say."""
        if control == self.control:
            return
        self.control = control
        self.is_active = control != PoolControl()
        for run in self._maps:
            had, run.gate = run.gate, self._gate(run.spec.function, run.spec.together)
            if run.gate is not None and had is None:
                self._on_limited(run)
        for function in list(self._gates):
            if self._gate(function) is None:
                del self._gates[function]
        limited = {name for name, gate in self._gates.items() if gate.limit is not None}
        for name in self._tables.keys() - limited:
            del self._tables[name]
        self._count()
        self._woken.set()
        self._on_change()

    def _count(self) -> None:
        for gate in self._gates.values():
            gate.out = 0
        for run in self._maps:
            if run.gate is not None:
                run.gate.out += len(run.ledger.flights)

    # Sharing a limit with other dispatchers

    async def _settle(self) -> None:
        """Take and give up cores of limited functions."""
        self._heard = {name: at for name, at in self._heard.items() if self._is_alive(name)}
        if all(gate.limit is None for gate in self._gates.values()):
            return
        was_seated = self._is_seated()
        if not was_seated:  # Others may have taken its cores.
            for table in self._tables.values():
                table.is_stale = True
        self._count()
        useful: dict[str, int] = {}
        for run in self._maps:
            if run.gate is not None and run.gate.limit is not None:
                function = run.spec.function
                useful[function] = useful.get(function, 0) + run.useful_chunks
        for function, gate in list(self._gates.items()):
            if gate.limit is not None and (useful.get(function) or function in self._tables):
                table = self._tables.setdefault(function, _Table())
                try:
                    await self._sit(gate, table, useful.get(function, 0))
                except JetmapError as error:
                    table.is_stale = True
                    logger.debug("the cores of %s cannot be shared yet: %s", function, error)
        has_seats = any(self._me in table.rows for table in self._tables.values())
        if has_seats and time.monotonic() - self._spoke_at >= BEAT:
            await self.speak()
        if not was_seated and self._is_seated():
            self._on_change()

    def _is_seated(self) -> bool:
        """Return whether others must have had a notice, so that its cores are its own."""
        return time.monotonic() - self._spoke_at < SEATS_KEPT - BEAT

    async def _sit(self, gate: Gate, table: _Table, useful: int) -> None:
        """Take or give up a function's cores, until nothing is left to write."""
        key = pool_streams.seats_key(gate.function)
        while (limit := gate.limit) is not None:
            if table.is_stale:
                data, table.revision = await pool_streams.read_key(
                    self._connection, self._pool, key
                )
                table.rows, table.is_stale = _rows(data), False
            now = time.monotonic()
            before = table.rows.get(self._me, seats.NONE)
            then = seats.step(
                table.rows,
                self._me,
                limit,
                useful=0 if gate.is_paused else useful,
                out=gate.out,
                may_keep=now - table.began < TURN_SECONDS,
                is_alive=self._is_alive,
            )
            share = then.share
            if then.rows != table.rows:
                gate.share = min(gate.share, share)
                data = write_json(then.rows)
                revision = await pool_streams.write_key(
                    self._connection, self._pool, key, data, table.revision
                )
                if revision is None:
                    table.is_stale = True
                    continue
                table.rows, table.revision = then.rows, revision
                if then.rows.get(self._me, seats.NONE).held > before.held:
                    table.began = now
                await self.speak(key)
            held = then.rows.get(self._me, seats.NONE).held
            grown = share > gate.share
            gate.share, gate.is_yielding = share, share < held
            if grown:
                self._on_change()
            return

    def _is_alive(self, dispatcher: str) -> bool:
        return time.monotonic() - self._heard.get(dispatcher, self._began) < SEATS_KEPT

    async def _leave(self, function: str) -> None:
        key = pool_streams.seats_key(function)
        data, revision = await pool_streams.read_key(self._connection, self._pool, key)
        rows = _rows(data)
        if self._me in rows:
            data = write_json(seats.without(rows, self._me))
            await pool_streams.write_key(self._connection, self._pool, key, data, revision)
            await self.speak(key)

    async def speak(self, key: str = "") -> None:
        """Publish a notice: that this dispatcher is alive, and perhaps that it wrote a key."""
        if self._connection.connected:
            self._spoke_at = time.monotonic()
        try:
            await self._connection.publish(subjects.steer(self._pool), encode(Steer(self._me, key)))
        except JetmapError as error:
            logger.debug("a notice is lost, others read again soon: %s", error)


def _rows(data: bytes) -> dict[str, Seats]:
    try:
        return read_seats(data) if data else {}
    except msgspec.MsgspecError as error:
        logger.warning("the shares of a limited function cannot be read: %s", error)
        return {}
