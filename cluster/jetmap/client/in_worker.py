"""A cluster inside a worker, whose core would wait for itself."""

from __future__ import annotations

import sys

from jetmap.errors import ClusterClosed


def refuse_in_worker(*, starting: bool = False) -> None:
    """Raise ClusterClosed inside an item, and in a worker that would start a cluster.

    A module that workers import may make a Cluster, for its application to start.
    """
    process = sys.modules.get("jetmap.worker.main")
    if process is None:
        return
    if process.in_item:
        raise ClusterClosed(
            "a Cluster cannot be used inside a worker: its core would wait for itself (what a "
            'script starts goes under if __name__ == "__main__":)'
        )
    if starting and process.in_worker:
        raise ClusterClosed(
            "a Cluster cannot be started inside a worker, which imports this module to find its "
            'functions: put what starts one under if __name__ == "__main__":, or into the '
            "lifespan of your application"
        )
