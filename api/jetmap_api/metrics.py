"""``GET /metrics``: what an autoscaler and an operator need, read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from .admission import Admission
from .dependency import cluster_of

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.dispatch.stats import Histogram


async def metrics(request: Request) -> Response:
    """This gateway's counters and the pool's gauges, as Prometheus or OpenMetrics text."""
    cluster = cluster_of(request)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ClusterCollector(lambda: cluster))
    registry.register(_Admitted(request.app.state.admission))
    try:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # An Accept that names a version which is not a number.
        encode, content_type = choose_encoder("")
    return Response(encode(registry), headers={"content-type": content_type})


class ClusterCollector(Collector):
    """Reads ``Cluster.stats`` and ``Cluster.workers`` at every scrape; register it in your own
    registry if your application has one."""

    def __init__(self, cluster: Callable[[], Cluster]) -> None:
        self._cluster = cluster

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        cluster = self._cluster()
        yield from _of_this_process(cluster)
        yield from _of_the_pool(cluster)


class _Admitted(Collector):
    """What one gateway has taken in."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        admission, limits = self._admission, self._admission.limits
        for name, text, value in (
            ("maps_arriving", "Requests whose map is not open yet.", admission.arriving),
            ("items_open", "Items of the lists of open requests.", admission.items),
            ("spool_bytes", "Bytes of unread results and bodies in files.", admission.spooled),
            ("max_open_maps", "The setting.", limits.max_open_maps),
            ("max_items", "The setting.", limits.max_items),
            ("max_memory_bytes", "The setting.", limits.max_memory_bytes),
            ("max_total_spool_bytes", "The setting.", limits.max_total_spool_bytes),
        ):
            yield GaugeMetricFamily(f"jetmap_{name}", text, value)


def _of_this_process(cluster: Cluster) -> Iterator[Metric]:
    stats = cluster.stats
    yield _counter("jetmap_maps_started", "Maps begun here.", stats.maps_started)
    ended = CounterMetricFamily("jetmap_maps_ended", "Maps ended here.", labels=["outcome"])
    for outcome in sorted({"ok", "failed", "withdrawn", "timeout"} | set(stats.maps_ended)):
        ended.add_metric([outcome], stats.maps_ended.get(outcome, 0))
    yield ended
    yield GaugeMetricFamily("jetmap_maps_open", "Maps open here.", stats.maps_open)
    memory = "Bytes that are held for maps: bodies, lists, unread results."
    yield GaugeMetricFamily("jetmap_memory_bytes", memory, cluster.memory.used)
    yield _counter("jetmap_items", "Items that have an outcome.", stats.items_done)
    errors = CounterMetricFamily("jetmap_item_errors", "Items that failed.", labels=["kind"])
    kinds = {"raised", "invalid", "timeout", "lost", "unencodable"}
    for kind in sorted(kinds | set(stats.errors)):
        errors.add_metric([kind], stats.errors.get(kind, 0))
    yield errors
    yield _counter("jetmap_chunks", "Chunks that workers have answered.", stats.chunks)
    yield _counter("jetmap_compute_seconds", "Seconds that items computed.", stats.compute_seconds)
    yield _histogram(
        "jetmap_queue_wait_seconds", "Seconds a chunk waited for a worker.", stats.queue_wait
    )
    yield GaugeMetricFamily(
        "jetmap_chunks_in_flight", "Chunks published and not answered.", stats.in_flight
    )
    yield GaugeMetricFamily(
        "jetmap_backlog_items",
        "Items that wait here, in open maps and in jobs, those without workers included.",
        stats.backlog_items,
    )
    yield GaugeMetricFamily(
        "jetmap_backlog_seconds",
        "Estimated compute time of the items that wait here; above 0 while any waits. Divide by "
        "the cores for a waiting time.",
        stats.backlog_seconds,
    )
    yield GaugeMetricFamily(
        "jetmap_broker_connected", "1 while the broker answers.", float(cluster.connected)
    )


def _of_the_pool(cluster: Cluster) -> Iterator[Metric]:
    labels = ["pool", "host", "agent"]
    cores = GaugeMetricFamily("jetmap_cores", "Cores an agent offers.", labels=labels)
    ready = GaugeMetricFamily("jetmap_ready_cores", "Cores whose worker is up.", labels=labels)
    busy = GaugeMetricFamily("jetmap_busy_cores", "Cores that compute.", labels=labels)
    draining = GaugeMetricFamily("jetmap_draining", "1 while an agent drains.", labels=labels)
    for presence in cluster.workers:
        where = [presence.pool, presence.host, presence.agent]
        cores.add_metric(where, presence.cores)
        ready.add_metric(where, presence.ready)
        busy.add_metric(where, presence.busy)
        draining.add_metric(where, float(presence.draining))
    yield from (cores, ready, busy, draining)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    """From counts of each bucket, the last one above all bounds, to Prometheus' running sums."""
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip(histogram.buckets, histogram.counts, strict=False):
        running += count
        buckets.append((str(float(bound)), running))
    buckets.append(("+Inf", histogram.count))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
