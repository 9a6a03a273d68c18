"""Signals in a worker: which it ignores, what its children inherit, what a function may change.

The agent alone ends workers: one that obeyed a SIGTERM to its group would lose its chunk. What
its functions start must obey, though, so SIGTERM, SIGINT and SIGHUP are caught and not ignored:
``exec`` gives a caught signal its default back, and ``after_fork`` does so in a forked child.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What a function may set for itself, and is set back when its item has ended.
RESTORED = (*OURS, signal.SIGALRM)

_set_timer = signal.setitimer


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal by going on."""


class Dispositions:
    """What this process does on signals, from ``take`` on."""

    def __init__(self, needed: Callable[[], None]) -> None:
        self._needed = needed
        self._masks: dict[int, set[int | signal.Signals]] = {}
        self._baseline: dict[int, Any] = {}
        self._set = signal.signal
        self._changed = False

    def take(self) -> None:
        """Catch what would end the worker, and block nothing that whoever started us blocked."""
        for number in OURS:
            signal.signal(number, _nothing)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def watch(self) -> None:
        """From now on, what a function changes is set back when its item has ended."""
        self._baseline = {number: signal.getsignal(number) for number in RESTORED}
        for name in ("signal", "alarm", "setitimer"):
            setattr(signal, name, self._noticed(getattr(signal, name)))

    def restore(self) -> bool:
        """Set back what the item that ended has changed. (Handlers of other signals stay.)"""
        if self._changed:
            self._changed = False
            _set_timer(signal.ITIMER_REAL, 0)
            for number, handler in self._baseline.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    self._set(number, handler)
        return False

    def before_fork(self) -> None:
        """Hold signals back: one that came before the child has its defaults would be lost."""
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)

    def after_fork_in_parent(self) -> None:
        self._unblock()

    def after_fork_in_child(self) -> None:
        """Give a forked child the dispositions of an ordinary Python process."""
        ours = [number for number in OURS if signal.getsignal(number) is _nothing]
        for number in ours:
            self._set(number, signal.SIG_DFL)
        # What was held back takes effect now. KeyboardInterrupt comes after that: raised in here
        # it would be lost.
        self._unblock()
        self._masks.clear()
        if signal.SIGINT in ours:
            self._set(signal.SIGINT, signal.default_int_handler)

    def _unblock(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _noticed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def noticed(*arguments: Any) -> Any:
            self._changed = True
            self._needed()
            return call(*arguments)

        return noticed
