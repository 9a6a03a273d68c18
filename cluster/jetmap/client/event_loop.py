"""The event loop that a cluster starts in, which must be that of asyncio."""

from __future__ import annotations

import asyncio
import sys

from jetmap.errors import ClusterClosed


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop. Raises ClusterClosed where there is none, as under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    if (other := _other_library()) is not None:
        raise ClusterClosed(
            f"a Cluster runs on asyncio, and this is {other}: use 'with Cluster().sync as cluster' "
            f"and call it in a thread ({other}.to_thread.run_sync for trio), or run this program "
            "with asyncio (anyio: backend='asyncio')"
        )
    raise ClusterClosed(
        "a Cluster starts in a running event loop of asyncio: use 'async with Cluster()' in a "
        "coroutine, or 'with Cluster().sync as cluster' in code that is not async"
    )


def _other_library() -> str | None:
    """Return the name of the asynchronous library that runs here; None if there is none."""
    sniffio = sys.modules.get("sniffio")
    try:
        return str(sniffio.current_async_library()) if sniffio is not None else None
    except RuntimeError:  # Its error for no library at all.
        return None
