"""Signal dispositions of a worker, of its children, and those that a function may change.

Only the agent ends workers: a worker that obeyed a SIGTERM to its group would lose its chunk. The
processes that its functions start must obey, though, so SIGTERM, SIGINT and SIGHUP are caught, not
ignored: ``exec`` resets a caught signal to its default, and a forked child does so itself.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Signals that a function may handle itself; they are restored when its item has ended.
RESTORED = (*OURS, signal.SIGALRM)

_set_timer = signal.setitimer


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal by going on."""


class Dispositions:
    """The signal dispositions of this process, from ``take`` on."""

    def __init__(self, needed: Callable[[], None]) -> None:
        self._needed = needed
        self._masks: dict[int, set[int | signal.Signals]] = {}
        self._baseline: dict[int, Any] = {}
        self._set = signal.signal
        self._changed = False

    def take(self) -> None:
        """Catch the signals that would end the worker, and unblock all that it inherited as
        blocked.
        """
        for number in OURS:
            signal.signal(number, _nothing)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def watch(self) -> None:
        """Restore, from now on, what a function changes, when its item has ended."""
        self._baseline = {number: signal.getsignal(number) for number in RESTORED}
        for name in ("signal", "alarm", "setitimer"):
            setattr(signal, name, self._noticed(getattr(signal, name)))

    def restore(self) -> bool:
        """Restore what the last item changed. Handlers of other signals stay."""
        if self._changed:
            self._changed = False
            _set_timer(signal.ITIMER_REAL, 0)
            for number, handler in self._baseline.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    self._set(number, handler)
        return False

    def before_fork(self) -> None:
        """Block signals: one that came before the child has its defaults would be lost."""
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)

    def after_fork_in_parent(self) -> None:
        self._unblock()

    def after_fork_in_child(self) -> None:
        """Give a forked child the dispositions of an ordinary Python process."""
        ours = [number for number in OURS if signal.getsignal(number) is _nothing]
        for number in ours:
            self._set(number, signal.SIG_DFL)
        # Blocked signals take effect now. KeyboardInterrupt is enabled after that: raised in here
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
