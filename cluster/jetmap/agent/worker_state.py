"""The states of the worker on one core, and the events that change them. No I/O and no clock.

::

                  ready            assigned
    starting ─────────────> idle ────────────> busy
      ▲    │                 │ ▲                │ │
      │    │                 │ └────emptied─────┘ │
      │    │ condemned       │ condemned          │ condemned
      │    ▼                 ▼                    ▼
      └─died─────────────── dying: killed, or about to be; it gets no more chunks

    closed: from any state, for good

``died`` leads back to ``starting`` from every state but ``closed``. A worker that dies while it
starts is started again after pauses that grow until its source changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jetmap.wire.counts import signal_name


class State(StrEnum):
    """The state of the worker on one core."""

    STARTING = "starting"  # There is no worker that is ready.
    IDLE = "idle"
    BUSY = "busy"
    DYING = "dying"  # Killed, or about to be; it may still end chunks.
    CLOSED = "closed"  # No worker is started any more.


class WorkerEvent(StrEnum):
    """A step in the life of a worker."""

    READY = "ready"  # Its imports are done.
    ASSIGNED = "assigned"  # It was given chunks.
    EMPTIED = "emptied"  # It has ended the last of its chunks.
    CONDEMNED = "condemned"  # It was killed, or will go by itself.
    DIED = "died"
    CLOSED = "closed"


_NEXT: dict[State, dict[WorkerEvent, State]] = {
    State.STARTING: {WorkerEvent.READY: State.IDLE, WorkerEvent.CONDEMNED: State.DYING},
    State.IDLE: {WorkerEvent.ASSIGNED: State.BUSY, WorkerEvent.CONDEMNED: State.DYING},
    State.BUSY: {WorkerEvent.EMPTIED: State.IDLE, WorkerEvent.CONDEMNED: State.DYING},
    # What a dying worker had sent may still arrive.
    State.DYING: dict.fromkeys(
        (WorkerEvent.READY, WorkerEvent.EMPTIED, WorkerEvent.CONDEMNED), State.DYING
    ),
    State.CLOSED: dict.fromkeys(set(WorkerEvent) - {WorkerEvent.ASSIGNED}, State.CLOSED),
}
for _state, _row in _NEXT.items():
    if _state is not State.CLOSED:
        _row |= {WorkerEvent.DIED: State.STARTING, WorkerEvent.CLOSED: State.CLOSED}


def after(state: State, event: WorkerEvent) -> State:
    """Return the state that follows. Raises ValueError if the event cannot happen in this state."""
    try:
        return _NEXT[state][event]
    except KeyError:
        raise ValueError(f"a worker that is {state.value} cannot be {event.value}") from None


@dataclass(frozen=True)
class Death:
    """The end of a worker process: by a signal, or with an exit code.

    Attributes:
        peak_memory: Bytes.
        has_closed: Whether the agent killed it because it had closed its pipe and lived on.
    """

    signal: int | None
    exit_code: int | None
    peak_memory: int
    has_closed: bool = False

    def __str__(self) -> str:
        if self.has_closed:
            return (
                "closed a file descriptor of jetmap's, perhaps with os.closerange, and was killed"
            )
        if self.signal is not None:
            return f"was killed by {signal_name(self.signal)}"
        return f"exited with code {self.exit_code}"
