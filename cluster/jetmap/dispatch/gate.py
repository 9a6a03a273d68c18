"""The gate of a function that is paused or limited, or whose pool is paused. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable

from jetmap.wire.controls import FREE

FUNCTION_PAUSE, POOL_PAUSE = "a pause of its function", "a pause of the pool"


class Gate:
    """The limit of one function's chunks that are out, over all its maps here.

    Attributes:
        declared: Limit that the function's code says, which people's limit replaces.
        share: Chunks of a limited function that this dispatcher may have out.
        out: Chunks that are out.
        is_seated: Returns whether other dispatchers still take this one for alive; if not, they
            may use its share.
        on_free: Called when a chunk ends while others wait for its core.
    """

    def __init__(
        self,
        function: str,
        is_seated: Callable[[], bool] = lambda: True,
        on_free: Callable[[], None] = lambda: None,
    ) -> None:
        self.function = function
        self.pool_paused = False
        self.control = FREE
        self.declared: int | None = None
        self.share = 0
        self.out = 0
        self.is_yielding = False
        self._is_seated = is_seated
        self._on_free = on_free

    @property
    def is_paused(self) -> bool:
        return self.pool_paused or self.control.paused

    @property
    def limit(self) -> int | None:
        """Cores that the function may use at most, over the whole pool; None: any number."""
        wanted = self.control.max_parallel
        return self.declared if wanted is None else wanted

    @property
    def is_open(self) -> bool:
        """Return whether a chunk of the function may be sent."""
        if self.is_paused:
            return False
        if self.limit is None:
            return True
        return self.out < self.share and self._is_seated()

    @property
    def waits(self) -> str:
        """The thing that its maps wait for while it is closed, as announcements name it."""
        if self.is_paused:
            return POOL_PAUSE if self.pool_paused else FUNCTION_PAUSE
        return "a limit of its function"

    @property
    def reason(self) -> str:
        """Why nothing is sent while it is closed, for people."""
        if self.pool_paused:
            return "the pool is paused: `jetmap pool --resume` lets it go on"
        if self.control.paused:
            return (
                f"function {self.function!r} is paused: `jetmap function {self.function} --resume` "
                "lets it go on"
            )
        return f"function {self.function!r} has its limit of cores: {self.limit}"

    def on_landed(self) -> None:
        """Record that a chunk has ended."""
        self.out = max(0, self.out - 1)
        if self.is_yielding:
            self._on_free()
