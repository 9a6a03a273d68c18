"""Describe what one dispatcher does. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from jetmap.dispatch.costs import Cost
from jetmap.dispatch.failures import Failures
from jetmap.dispatch.gate import FUNCTION_PAUSE, POOL_PAUSE
from jetmap.dispatch.maps import OpenMaps
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.roster import Roster
from jetmap.dispatch.scheduler import Scheduler
from jetmap.dispatch.stats import Stats
from jetmap.jobs.record import Record
from jetmap.jobs.transitions import PAUSE
from jetmap.wire import subjects
from jetmap.wire.activity import Activity, FunctionActivity, MapActivity, MapDetails
from jetmap.wire.messages import ANNOUNCEMENT_BYTES, encode

PAUSES = (PAUSE, FUNCTION_PAUSE, POOL_PAUSE)
RATE_BEATS = 5  # Beats over which rates are taken.
MINUTE_BEATS = 30  # Beats of "the last minute".
ENDED_SECONDS = 600.0  # Seconds for which an ended map stays in the announcement.
LEAST_SECONDS = (
    2.0  # Seconds that a map must have taken to be listed after its end, if all is well.
)
MOST_ENDED = 200
MOST_FAILURES = 50


class Rate:
    """Items a second over the last beats."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque(maxlen=RATE_BEATS + 1)

    def sample(self, now: float, count: int) -> float:
        points = self._points
        if not points or now > points[-1][0]:
            points.append((now, count))
        (began, first), (_, last) = points[0], points[-1]
        return max(0, last - first) / (now - began) if now > began else 0.0


class Recent:
    """The growth of counters over the last minute."""

    def __init__(self) -> None:
        self._past: deque[dict[object, int]] = deque(maxlen=MINUTE_BEATS + 1)

    def sample(self, counts: Mapping[object, int]) -> dict[object, int]:
        self._past.append(dict(counts))
        before = self._past[0]
        grown = {key: count - before.get(key, 0) for key, count in counts.items()}
        return {key: count for key, count in grown.items() if count > 0}


@dataclass
class _SeenMap:
    """A map as earlier beats saw it."""

    rate: Rate = field(default_factory=Rate)
    cores: float = 0.0


@dataclass(frozen=True)
class Identity:
    """The dispatcher that is described."""

    dispatcher: str
    pool: str
    inbox: str
    owner: str
    host: str
    pid: int


class Observer:
    """Make a dispatcher's announcements, and the details of its maps.

    Args:
        waiting_jobs: Returns the jobs of this process that have no open map.
    """

    def __init__(
        self,
        identity: Identity,
        maps: OpenMaps,
        scheduler: Scheduler,
        roster: Roster,
        stats: Stats,
        clock: Callable[[], float],
        waiting_jobs: Callable[[], Iterable[Record]] = tuple,
    ) -> None:
        self._identity = identity
        self._maps = maps
        self._scheduler = scheduler
        self._roster = roster
        self._stats = stats
        self._clock = clock
        self._waiting_jobs = waiting_jobs
        self.failures = maps.failures = Failures(clock)
        maps.on_end = self._on_end
        self._sequence = 0
        self._watched: dict[str, _SeenMap] = {}
        self._parked_at: dict[str, float] = {}  # When each job without a map was first seen.
        self._ended: deque[tuple[float, MapActivity, MapDetails | None, str]] = deque(
            maxlen=MOST_ENDED
        )
        self._rate = Rate()
        self._rates: dict[str, Rate] = {}
        self._express, self._refused = Recent(), Recent()
        # The last minute begins with nothing.
        self._express.sample({})
        self._refused.sample({})

    def activity(self, *, gone: bool = False) -> Activity:
        """Describe everything, once a beat."""
        now = self._clock()
        self._sequence += 1
        open_maps = list(self._maps)
        maps = [self._open(run, now) for run in open_maps]
        maps += self._parked_jobs(now)
        maps += self._recently_ended(now)
        self._watched = {run.id: self._watched[run.id] for run in open_maps}
        functions, unknown = self._functions(open_maps, now)
        identity, stats = self._identity, self._stats
        return Activity(
            identity.dispatcher,
            identity.pool,
            self._sequence,
            identity.inbox,
            identity.owner,
            identity.host,
            identity.pid,
            maps,
            functions,
            [group.activity(now) for group in self.failures.recent()[:MOST_FAILURES]],
            0,
            0,
            0,
            stats.items_done,
            self._rate.sample(now, stats.items_done),
            self._express.sample(stats.express_wait.counts),  # type: ignore[arg-type]
            sum(f.waiting for f in functions),
            sum(f.waiting_seconds for f in functions),
            unknown,
            self._refused.sample(stats.maps_refused),  # type: ignore[arg-type]
            gone,
        )

    def details(self, id: str) -> MapDetails | None:
        """Return where the time of a map goes, and its failures; None: it is not here."""
        for run in self._maps:
            if public_id(run.id) == id:
                return self._details(run)
        for _, ended, details, map in reversed(self._ended):  # A job may have ended more than once.
            if ended.id == id:
                return details or self._failures_only(map)
        return None

    def find(self, id: str) -> OpenMap | None:
        """Return the open map of this public id."""
        return next((run for run in self._maps if public_id(run.id) == id), None)

    # Inside

    def _details(self, run: OpenMap) -> MapDetails:
        now = self._clock()
        if run.profile is None:
            return self._failures_only(run.id)
        details = run.profile.details(public_id(run.id), now)
        details.failures = self.failures.of_map(run.id)
        return details

    def _failures_only(self, map: str) -> MapDetails:
        """Describe a map of one chunk, which has no profile."""
        details = MapDetails(public_id(map), 0.0, 0.0, 0.0, 0.0, {}, [], [], 0.0)
        details.failures = self.failures.of_map(map)
        return details

    def _open(self, run: OpenMap, now: float) -> MapActivity:
        watched = self._watched.setdefault(run.id, _SeenMap())
        rate = watched.rate.sample(now, run.done)
        cores = 0.0
        if run.profile is not None:
            cores = run.profile.sample(now, is_sent=run.is_sent)
        claimed = sum(bool(flight.claims) for flight in run.ledger.flights.values())
        watched.cores = max(cores, float(claimed))
        has_workers = self._roster.offer(run.spec.function, run.spec.ref) is not None
        waits = waits_for(run, has_workers=has_workers)
        flights = run.ledger.flights.values()
        state = "running"
        if run.is_held:
            state = "paused"
        elif waits == "workers" or not (flights or run.done):
            state = "waiting"
        has_begun = run.done > 0 or state != "waiting"
        oldest = min((f.first for f in flights), default=now if has_begun else run.opened)
        left = None
        if run.total is not None and rate > 0 and state == "running":
            left = (run.total - run.done) / rate
        return MapActivity(
            public_id(run.id),
            run.spec.function,
            kind_of(run.id),
            state,
            run.total,
            run.done,
            run.ledger.failed,
            rate,
            left,
            watched.cores,
            run.spec.weight,
            run.max_parallel,
            waits,
            now - run.opened,
            now - oldest,
            run.spec.labels or {},
        )

    def _parked_jobs(self, now: float) -> list[MapActivity]:
        records = list(self._waiting_jobs())
        before = self._parked_at
        self._parked_at = {record.id: before.get(record.id, now) for record in records}
        return [self._parked(record, now - self._parked_at[record.id]) for record in records]

    def _parked(self, record: Record, age: float) -> MapActivity:
        waits = PAUSE if record.paused else record.waiting_for or "workers"
        is_paused = waits in PAUSES
        return MapActivity(
            record.id,
            record.function,
            "job",
            "paused" if is_paused else "waiting",
            record.total,
            record.done,
            record.failed,
            0.0,
            None,
            0.0,
            1.0,
            record.max_parallel,
            waits,
            age,
            0.0 if is_paused else age,
            record.labels,
        )

    def _on_end(self, run: OpenMap, outcome: str) -> None:
        now = self._clock()
        seconds = now - run.opened
        if seconds < LEAST_SECONDS and not run.ledger.failed:
            return
        if outcome == "ok" and run.ledger.failed:
            outcome = "failed"
        ended = MapActivity(
            public_id(run.id),
            run.spec.function,
            kind_of(run.id),
            "ended",
            run.total,
            run.done,
            run.ledger.failed,
            run.done / seconds if seconds > 0 else 0.0,
            None,
            0.0,
            run.spec.weight,
            run.max_parallel,
            "",
            seconds,
            0.0,
            run.spec.labels or {},
            0.0,
            outcome,
            seconds,
        )
        details = self._details(run) if run.profile is not None else None
        self._ended.append((now, ended, details, run.id))

    def _recently_ended(self, now: float) -> list[MapActivity]:
        while self._ended and now - self._ended[0][0] > ENDED_SECONDS:
            self._ended.popleft()
        for at, activity, *_ in self._ended:
            activity.ended = now - at
            activity.age = activity.seconds + activity.ended
        return [activity for _, activity, *_ in self._ended]

    def _functions(
        self, open_maps: list[OpenMap], now: float
    ) -> tuple[list[FunctionActivity], int]:
        """Describe each function; return also the waiting items of unknown cost."""
        waiting: Counter[str] = Counter()
        for record in self._waiting_jobs():
            waiting[record.function] += (record.total or 0) - record.done
        for run in open_maps:
            has_workers = self._roster.offer(run.spec.function, run.spec.ref) is not None
            waiting[run.spec.function] += run.backlog_items(has_workers=has_workers)
        found, unknown = [], 0
        costs = self._scheduler.costs
        for name in {*costs, *waiting}:
            cost = costs.get(name) or Cost()
            if not cost.items_done and not waiting[name] and not cost.items_failed:
                continue
            rate = self._rates.setdefault(name, Rate()).sample(now, cost.items_done)
            unknown += 0 if cost.is_known else waiting[name]
            found.append(
                FunctionActivity(
                    name,
                    cost.items_done,
                    cost.seconds_done,
                    rate,
                    cost.items_failed,
                    dict(cost.bins.counts),
                    cost.item_bytes,
                    cost.value_bytes,
                    waiting[name],
                    waiting[name] * self._scheduler.cutting.estimate(cost),
                    cost.is_known,
                )
            )
        found.sort(key=lambda function: -function.items)
        return found, unknown


def waits_for(run: OpenMap, *, has_workers: bool) -> str:
    """Return what a map waits for; empty: nothing, all its items are out."""
    if run.is_paused:
        return PAUSE
    if (gate := run.gate) is not None and gate.is_paused:
        return gate.waits
    if not has_workers:
        return "workers"
    if run.limit is not None and len(run.ledger.flights) >= run.limit:
        return "a limit"
    if gate is not None and not gate.is_open:
        return gate.waits
    if run.stalled or not run.has_room:
        return "its reader"
    if run.source.total is None and not run.source.has_items and not run.ledger.has_returned:
        return "its input"
    return "cores" if run.source.has_items or run.ledger.has_returned else ""


def public_id(map: str) -> str:
    """Return the id by which people know a map: a job's map has the job's."""
    return subjects.job_of(map) or map


def kind_of(map: str) -> str:
    return "map" if subjects.job_of(map) is None else "job"


def fitted(activity: Activity, limit: int = ANNOUNCEMENT_BYTES) -> bytes:
    """Encode an announcement in at most ``limit`` bytes: what is too much becomes sums.

    Ended maps go first, then the open ones with the fewest items left, then functions and causes.
    """
    data = encode(activity)
    if len(data) <= limit:
        return data
    maps = sorted(activity.maps, key=_weight, reverse=True)
    keep = len(maps)
    activity.failures = activity.failures[:10]
    while len(data) > limit and (keep or activity.functions or activity.failures):
        if not keep:
            activity.failures = activity.failures[: len(activity.failures) // 2]
            activity.functions = activity.functions[: len(activity.functions) // 2]
        keep = min(keep // 2, keep * limit // len(data)) if keep else 0
        activity.maps, cut = maps[:keep], maps[keep:]
        open_ones = [m for m in cut if m.ended is None]
        activity.more = len(open_ones)
        activity.more_done = sum(m.done for m in open_ones)
        activity.more_total = sum(m.total if m.total is not None else m.done for m in open_ones)
        data = encode(activity)
    return data


def _weight(activity: MapActivity) -> tuple[bool, int]:
    left = 1 << 62 if activity.total is None else activity.total - activity.done
    return activity.ended is None, left
