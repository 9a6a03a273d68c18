"""``GET /metrics`` and ``GET /metrics/pool``: metrics of this process and of the pool.

Labels have few values: functions that agents offer (at most 200), kinds, reasons, status codes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse

from jetmap.dispatch.stats import REASONS
from jetmap.monitoring.families import by_function, counter, exposed, item_seconds, labelled
from jetmap.wire.counts import Names

from .access_log import Requests
from .admission import Admission
from .dependency import cluster_of
from .openapi_parts import NOT_CONNECTED

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.dispatch.stats import Histogram
    from jetmap.monitoring.pool_view import PoolView


router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Get the metrics of this gateway",
    response_class=PlainTextResponse,
    response_description="OpenMetrics if accepted.",
    responses=NOT_CONNECTED,
)
async def metrics(request: Request) -> Response:
    cluster = cluster_of(request)
    state = request.app.state
    return _exposed(
        request,
        ClusterCollector(lambda: cluster),
        _Admitted(state.admission),
        _Asked(state.requests),
    )


@router.get(
    "/metrics/pool",
    operation_id="pool_metrics",
    summary="Get the metrics of the pool",
    response_class=PlainTextResponse,
    response_description="OpenMetrics if accepted. Every gateway has the same: scrape one, or take "
    "the maximum.",
    responses=NOT_CONNECTED,
)
async def pool_metrics(request: Request) -> Response:
    cluster = cluster_of(request)
    view = await cluster.watch.view()
    return _exposed(request, PoolCollector(lambda: cluster), _Watched(view))


def _exposed(request: Request, *collectors: Collector) -> Response:
    text, content_type = exposed(request.headers.get("accept", ""), *collectors)
    return Response(text, headers={"content-type": content_type})


class ClusterCollector(Collector):
    """Collects ``Cluster.stats`` at every scrape, for a registry of your own."""

    def __init__(self, cluster: Callable[[], Cluster]) -> None:
        self._cluster = cluster

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _of_this_process(self._cluster())


class PoolCollector(Collector):
    """Collects what the agents of a pool announce, at every scrape.

    Every process of the pool has the same gauges, so only one should export them. Its counters
    begin with the agents' counts at its start.
    """

    def __init__(self, cluster: Callable[[], Cluster]) -> None:
        self._cluster = cluster

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _of_the_pool(self._cluster())


class _Watched(Collector):
    """Collects what all dispatchers of a pool announce."""

    def __init__(self, view: PoolView) -> None:
        self._view = view

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        document = self._view.snapshot()
        totals, broker = document["totals"], document["broker"]
        for name, text, value in (
            ("callers", "Processes that run maps.", len(document["callers"])),
            ("open_maps", "Maps and jobs that are open.", totals["open"]),
            ("waiting_items", "Items that wait, in maps and jobs.", totals["waiting"]),
            (
                "waiting_seconds",
                "Estimated compute time of the items that wait.",
                totals["waiting_seconds"],
            ),
            ("unknown_items", "Waiting items whose cost nobody knows.", totals["unknown"]),
            (
                "oldest_wait_seconds",
                "Time for which the oldest chunk has been out, or a map has waited to begin.",
                totals["oldest"],
            ),
            ("paused", "Whether the whole pool is paused.", int(document["paused"])),
        ):
            yield GaugeMetricFamily(f"jetmap_pool_{name}", text, value)
        text = "Maps refused in the last minute, by reason."
        refused = GaugeMetricFamily("jetmap_pool_maps_refused_recently", text, labels=["reason"])
        for reason, count in sorted((dict.fromkeys(REASONS, 0) | totals["reasons"]).items()):
            refused.add_metric([reason], count)
        yield refused
        control = self._view.control
        text = "Functions that are paused."
        paused = GaugeMetricFamily("jetmap_pool_function_paused", text, labels=["function"])
        text = "Cores that a function may use at most, if it is limited."
        limits = GaugeMetricFamily("jetmap_pool_function_max_cores", text, labels=["function"])
        for name, each in control.functions.items():
            if each.paused:
                paused.add_metric([name], 1)
        for name, row in document["functions"].items():
            if row["limit"] is not None:
                limits.add_metric([name], row["limit"])
        yield from (paused, limits)
        streams = broker.get("streams", [])
        if not streams:
            return  # Nobody has looked at the broker yet.
        store = broker["store"]
        for name, text, value in (
            ("store_bytes", "Bytes that jobs take in the store.", store["bytes"]),
            ("store_max_bytes", "The setting job_store_bytes; 0 without a store.", store["quota"]),
            (
                "streams_without_leader",
                "Streams of several copies that have no leader.",
                sum(s["copies"] > 1 and not s["leader"] for s in streams),
            ),
        ):
            yield GaugeMetricFamily(f"jetmap_pool_{name}", text, value)


class _Asked(Collector):
    """Collects the requests of one gateway."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        answered = {str(code): count for code, count in self._requests.answered.items() if code}
        yield labelled("jetmap_requests", "Requests answered, by status.", "code", answered)
        text = "Requests refused, by the end of the problem's type."
        refused = {"no-workers": 0, "too-many-maps": 0} | self._requests.refused
        yield labelled("jetmap_requests_refused", text, "reason", refused)


class _Admitted(Collector):
    """Collects what one gateway has taken in."""

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
            ("max_memory_bytes", "The setting.", admission.memory_budget),
            ("max_total_spool_bytes", "The setting.", limits.max_total_spool_bytes),
        ):
            yield GaugeMetricFamily(f"jetmap_{name}", text, value)


def _of_this_process(cluster: Cluster) -> Iterator[Metric]:
    stats = cluster.stats
    yield counter("jetmap_maps_started", "Maps begun here.", stats.maps_started)
    outcomes = dict.fromkeys(("ok", "failed", "withdrawn", "timeout"), 0) | stats.maps_ended
    yield labelled("jetmap_maps_ended", "Maps ended here.", "outcome", outcomes)
    text = "Maps that could not begin here; jobs wait instead, and are in the backlog."
    refused = dict.fromkeys(REASONS, 0) | stats.maps_refused
    yield labelled("jetmap_maps_refused", text, "reason", refused)
    yield GaugeMetricFamily("jetmap_maps_open", "Maps open here.", stats.maps_open)
    memory = "Bytes that are held for maps: bodies, lists, unread results."
    yield GaugeMetricFamily("jetmap_memory_bytes", memory, cluster.memory.used)
    yield counter("jetmap_items", "Items that have an outcome.", stats.items_done)
    kinds = ("raised", "invalid", "timeout", "lost", "unencodable")
    failed = dict.fromkeys(kinds, 0) | stats.errors
    yield labelled("jetmap_item_errors", "Items that failed.", "kind", failed)
    yield counter("jetmap_chunks_sent", "Chunks cut here and sent once.", stats.chunks_sent)
    yield counter("jetmap_chunks", "Chunks that workers have answered.", stats.chunks)
    text = (
        "Chunks sent once more: lost (taken back from workers that are gone), refused (the work "
        "stream was full), silent (there was no sign of them), or raised (an item is tried again)."
    )
    again = dict.fromkeys(("lost", "refused", "silent", "raised"), 0) | stats.chunks_again
    yield labelled("jetmap_chunks_retried", text, "reason", again)
    yield by_function(
        "jetmap_crashes",
        "Workers that died with an item of a map of this process, by signal or cause.",
        stats.crashes,
    )
    yield counter("jetmap_agents_lost", "Agents that went silent.", stats.agents_lost)
    yield counter("jetmap_compute_seconds", "Seconds that items computed.", stats.compute_seconds)
    yield item_seconds(
        "jetmap_item_seconds",
        ((name, cost.bins, cost.seconds_done) for name, cost in cluster.costs.items()),
    )
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
    agents = cluster.workers
    for name, text, value in (
        ("agents", "Agents, one a host.", len(agents)),
        ("cores", "Cores that the agents offer.", sum(p.cores for p in agents)),
        ("ready_cores", "Cores whose worker is up.", sum(p.ready for p in agents)),
        ("busy_cores", "Cores that compute.", sum(p.busy for p in agents)),
        (
            "draining_cores",
            "Cores of agents that take no more chunks.",
            sum(p.cores for p in agents if p.draining),
        ),
    ):
        yield GaugeMetricFamily(f"jetmap_pool_{name}", text, value)
    text = "Cores that take chunks of a function."
    cores = GaugeMetricFamily("jetmap_pool_function_cores", text, labels=["function"])
    names = Names()
    cores_of: Counter[str] = Counter()
    for status in cluster.functions:
        cores_of[names.of(status.info.name)] += status.cores
    for name, count in cores_of.items():
        cores.add_metric([name], count)
    yield cores
    counts = cluster.pool_counts
    text = "Items computed for any caller, by outcome: ok, or the kind of the error."
    yield by_function("jetmap_pool_items", text, counts.items)
    text = "Workers that died with an item, by signal or cause."
    yield by_function("jetmap_pool_crashes", text, counts.crashes)
    recycled = counts.workers["recycled"]
    yield counter("jetmap_pool_workers_recycled", "Worn workers replaced.", recycled)
    text = "Starts of workers that failed."
    yield counter("jetmap_pool_worker_start_failures", text, counts.workers["start_failures"])


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    """Turn counts of buckets, the last above all bounds, into Prometheus' running sums."""
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip(histogram.buckets, histogram.counts, strict=False):
        running += count
        buckets.append((str(float(bound)), running))
    buckets.append(("+Inf", histogram.count))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
