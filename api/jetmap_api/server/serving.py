"""uvicorn's server, with the gateway's connections, limits and signals."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import uvicorn

from jetmap.settings import LimitSettings

from .connection import HttpConnection
from .guard import Guard, OnRefusal, connections_allowed


class GatewayServer(uvicorn.Server):
    """The server of one application.

    grace: seconds for open requests when it stops. most: connections open at once; None for as many
    as descriptors allow. on_refusal: see ``Guard``. Signals are left to the caller, because
    uvicorn's own handling would end the process by the signal.
    """

    def __init__(
        self,
        app: Any,
        limits: LimitSettings,
        *,
        most: int | None,
        grace: int,
        on_refusal: OnRefusal = lambda client, problem: None,
    ) -> None:
        self.guard = Guard(limits, connections_allowed(most), on_refusal)
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",  # the gateway has its own
                loop="none",
                http=functools.partial(HttpConnection, self.guard),  # type: ignore[arg-type]
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=grace,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Guard the connections while uvicorn serves; it does so in this context."""
        self.guard.start()
        try:
            yield
        finally:
            self.guard.stop()
