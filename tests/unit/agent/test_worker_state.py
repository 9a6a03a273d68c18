"""The states of a worker: every event in every state, in any order."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jetmap.agent.worker_state import Death, State, WorkerEvent, after
from jetmap.wire.counts import signal_name

SERVES = (State.IDLE, State.BUSY)


class Life(RuleBasedStateMachine):
    """A worker's events, with the facts that its slot derives from the states."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.STARTING
        self.condemned = self.closed = False
        self.chunks = 0

    def enter(self, event: WorkerEvent) -> None:
        self.state = after(self.state, event)

    @precondition(lambda self: self.state is not State.IDLE and self.state is not State.BUSY)
    @rule()
    def ready(self) -> None:
        self.enter(WorkerEvent.READY)

    @precondition(lambda self: self.state is State.IDLE)
    @rule()
    def assigned(self) -> None:
        self.enter(WorkerEvent.ASSIGNED)
        self.chunks = 1

    @precondition(lambda self: self.chunks)
    @rule()
    def emptied(self) -> None:
        self.enter(WorkerEvent.EMPTIED)
        self.chunks = 0

    @rule()
    def killed(self) -> None:
        self.enter(WorkerEvent.CONDEMNED)
        self.condemned = True

    @rule()
    def died(self) -> None:
        self.enter(WorkerEvent.DIED)
        self.condemned, self.chunks = False, 0

    @rule()
    def is_closed(self) -> None:
        self.enter(WorkerEvent.CLOSED)
        self.closed = True

    @rule(event=st.sampled_from(WorkerEvent))
    def impossible(self, event: WorkerEvent) -> None:
        """An event that cannot happen changes nothing, and is named."""
        before = self.state
        try:
            after(before, event)
        except ValueError as error:
            assert before.value in str(error) and event.value in str(error)
        assert self.state is before

    @invariant()
    def nothing_is_given_to_the_dying(self) -> None:
        if self.condemned or self.closed:
            assert self.state not in SERVES
            with pytest.raises(ValueError, match="cannot be assigned"):
                after(self.state, WorkerEvent.ASSIGNED)

    @invariant()
    def closed_is_for_good(self) -> None:
        assert (self.state is State.CLOSED) == self.closed

    @invariant()
    def busy_with_chunks_only(self) -> None:
        if self.state in SERVES:
            assert (self.state is State.BUSY) == bool(self.chunks)


TestLife = Life.TestCase


@pytest.mark.parametrize("state", State)
def test_death_leads_to_the_next_start_unless_closed(state: State) -> None:
    expected = State.CLOSED if state is State.CLOSED else State.STARTING
    assert after(state, WorkerEvent.DIED) is expected
    assert after(state, WorkerEvent.CLOSED) is State.CLOSED


def test_a_death_is_described() -> None:
    assert str(Death(11, None, 0)) == "was killed by SIGSEGV"
    assert str(Death(None, 3, 0)) == "exited with code 3"
    assert "os.closerange" in str(Death(9, None, 0, has_closed=True))
    assert signal_name(250) == "signal 250"
