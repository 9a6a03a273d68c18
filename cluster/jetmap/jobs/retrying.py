"""Start the next run of a job: of its items that failed, or that have no outcome."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from jetmap.errors import BrokerUnreachable, JobEnded, JobNotRetryable

from . import transitions
from .catalogue import Catalogue
from .outcomes import StoredOutcomes
from .record import Record, check_readable
from .store import Conflict, Store


class Retrying:
    """Queue jobs again at their callers' request.

    Args:
        me: The dispatcher that will run them.
        get: Reads a job's record from the leader; raises UnknownJob.
        outcomes: Returns the reader of a job's outcomes.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        me: str,
        *,
        get: Callable[[str], Awaitable[Record]],
        outcomes: Callable[[Record], StoredOutcomes],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._me = me
        self._get = get
        self._outcomes = outcomes

    async def retry(self, id: str) -> Record:
        """Start the next run of a job that is over: of its items that failed or have no outcome.

        Raises UnknownJob, JobNotRetryable, JobEnded if it has expired, JobUnreadable.
        """
        while True:
            record = await self._get(id)
            check_readable(record)
            if record.state == "expired":
                raise JobEnded(f"job {id} has expired, with its input", state="expired")
            newest, seq = await self._store.read(id)
            if newest is None or newest.state == "deleted":
                continue
            if (refusal := transitions.retry_refusal(newest)) is not None:
                raise JobNotRetryable(refusal)
            outcomes = self._outcomes(newest)
            if not await outcomes.complete():
                raise BrokerUnreachable(f"a replica lacks outcomes of job {id}: try again")
            index = outcomes.index
            again = transitions.retried(
                newest,
                self._me,
                last=index.last,
                done=index.done,
                failed=index.failed,
                now=time.time(),
            )
            try:
                seq = await self._store.write(again, seq)
            except Conflict:
                continue
            self._catalogue.on_record(again, seq)
            return again
