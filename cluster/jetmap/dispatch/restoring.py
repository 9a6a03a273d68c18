"""Carry out what ``Recovery`` decides: lost chunks go out again, and hopeless maps end."""

from __future__ import annotations

import logging
import time

from jetmap.background import Background
from jetmap.errors import JetmapError

from .agent_tracker import start_failed
from .ledger import Seen
from .maps import OpenMaps
from .open_map import OpenMap
from .outbox import Outbox
from .recovery import Actions, Recovery
from .sender import Sender
from .stats import Stats

logger = logging.getLogger(__name__)


class Restoring:
    """Restore the lost chunks of a dispatcher's maps."""

    def __init__(
        self,
        maps: OpenMaps,
        recovery: Recovery,
        outbox: Outbox,
        sender: Sender,
        stats: Stats,
        background: Background,
    ) -> None:
        self._maps = maps
        self._recovery = recovery
        self._outbox = outbox
        self._sender = sender
        self._stats = stats
        self._background = background

    async def check(self, *, connected: bool) -> bool:
        """Look for lost chunks, and restore them.

        Returns:
            False if this process was frozen or is cut off: nothing can be said of its chunks now.
        """
        now = time.monotonic()
        self._recovery.on_lost(self._maps.lost, now)
        self._maps.lost.clear()
        actions = self._recovery.check(self._maps, now, connected=connected)
        if actions is not None:
            await self._act(actions)
        return actions is not None

    async def _act(self, actions: Actions) -> None:
        for agent in actions.gone:
            self._stats.agents_lost += 1
            logger.warning(
                "agent %s on host %s, with %d cores, has gone silent: its chunks run elsewhere",
                agent.agent,
                agent.host,
                agent.cores,
            )
        await self._sender.send_again(actions.unconfirmed)
        await self._restore(actions)
        for run in actions.read_store:
            if (seen := run.ledger.seen) is not None:
                self._background.spawn(self._restore_job(run, seen), "read a job's store")
        for run, failure in actions.give_up:
            self._maps.end(run, "failed", start_failed(failure))

    async def _restore(self, actions: Actions) -> None:
        """Take chunks back, whose items are then sent anew, and publish the silent ones again."""
        for run, flight in actions.take_back:
            if flight.subject:
                await self._outbox.take_back(flight)
            self._maps.take_back(run, flight)
        now = time.monotonic()
        for _, flight in actions.silent:
            flight.heard = now
        self._stats.chunks_again["silent"] += len(actions.silent)
        await self._sender.send_again(actions.silent)

    async def _restore_job(self, run: OpenMap, seen: Seen) -> None:
        """Restore the silent chunks of a job, but for the items whose outcomes are in the store.

        An agent that fell silent with a chunk may have stored some of its outcomes before.
        """
        is_known = False
        try:
            await seen.read()
            is_known = True
        except JetmapError as error:
            # Nor could an agent store what it computes again: they wait.
            logger.debug("map %s: cannot read which outcomes are stored: %s", run.id, error)
        finally:
            self._recovery.on_store_read(run)
        if run not in self._maps:
            return
        for settlement in run.ledger.mark_seen(seen.ranges()):
            self._maps.settle(run, settlement)
        self._maps.check_end(run)
        if is_known and run in self._maps:
            await self._restore(self._recovery.resume(run, time.monotonic()))
        await self._sender.pump()
