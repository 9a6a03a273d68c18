"""Signals in a worker: caught for itself, default for its children, restored after each item."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from jetmap.worker.dispositions import OURS, Dispositions


@pytest.fixture
def needed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    for name in ("signal", "alarm", "setitimer"):
        monkeypatch.setattr(signal, name, getattr(signal, name))  # Restored, whatever is set.
    return []


@pytest.fixture
def ours(needed: list[int]) -> Iterator[Dispositions]:
    before = {number: signal.getsignal(number) for number in (*OURS, signal.SIGALRM)}
    real = signal.signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield Dispositions(lambda: needed.append(1))
    for number, handler in before.items():
        real(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_a_worker_goes_on_after_signals(ours: Dispositions) -> None:
    ours.take()
    for number in OURS:
        signal.raise_signal(number)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_an_item_changes_is_restored_after_it(ours: Dispositions, needed: list[int]) -> None:
    ours.take()
    ours.watch()
    before = [signal.getsignal(number) for number in OURS]
    assert not ours.restore() and not needed
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.alarm(3600)
    assert len(needed) == 3, "it asks to be called when the item has ended"
    ours.restore()
    assert [signal.getsignal(number) for number in OURS] == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


def test_a_forked_child_has_the_defaults(ours: Dispositions) -> None:
    ours.take()
    ours.before_fork()
    assert set(OURS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ours.after_fork_in_child()
    handlers = [signal.getsignal(number) for number in OURS]
    assert handlers == [signal.SIG_DFL, signal.default_int_handler, signal.SIG_DFL]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_functions_own_handler_goes_on_in_its_child(ours: Dispositions) -> None:
    def own(number: int, frame: object) -> None: ...

    ours.take()
    signal.signal(signal.SIGTERM, own)
    ours.before_fork()
    ours.after_fork_in_parent()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ours.before_fork()
    ours.after_fork_in_child()
    assert signal.getsignal(signal.SIGTERM) is own
