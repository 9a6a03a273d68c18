"""One view of a pool, made of all announcements: snapshots of it, and their differences. No I/O.

Each thing is in it once, under its id: a host's agent, a map or job, a function, a cause of
failures. Every time is on the clock of whoever looks: announcements carry ages.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from jetmap.wire.activity import Activity, MapActivity
from jetmap.wire.controls import PoolControl
from jetmap.wire.presence import RESTING, Presence
from jetmap.wire.timing import GONE_AFTER

from .pool_rows import (
    Caller,
    Row,
    add,
    failure_row,
    is_newer,
    map_row,
    merged,
    new_function,
    quantile,
    rounded,
)

HISTORY = 120  # Points of each curve.
MOST_MAPS = 1000  # Maps that a view lists; the others are counted.
GONE_KEPT = 600.0  # Seconds for which an agent that fell silent stays in the view.
OUTER_SLOTS = 400  # Functions that have a mark of their own in the cells.

IDLE, STARTING, FAILED, DRAINING, UNKNOWN = ".", "~", "!", "-", "?"
MARKS = [{"starting": STARTING, "idle": IDLE, "failed": FAILED}[state] for state in RESTING]
DRAINING_MARKS = [mark if mark == FAILED else DRAINING for mark in MARKS]
FIRST_SLOT = 0x100  # A busy core is the character of its function's slot.

Document = dict[str, Any]
SECTIONS = ("functions", "hosts", "cells", "maps", "failures", "callers")


class PoolView:
    """Everything that a pool does, as one document.

    Args:
        pool: Name of the pool.
        epoch: Seconds since 1970 at time 0 of the clock, for showing times of day.

    Attributes:
        control: What is paused or limited.
    """

    def __init__(self, pool: str, epoch: float = 0.0) -> None:
        self.pool = pool
        self._epoch = epoch
        self._callers: dict[str, Caller] = {}
        self._agents: dict[str, Presence] = {}
        self._silent: dict[str, float] = {}  # When each silent agent was heard last.
        self._slots: dict[str, int] = {}
        self._cells: dict[str, tuple[Presence, str]] = {}
        self._rows: dict[str, tuple[Presence, Row]] = {}
        self._broker: Row = {}
        self.control = PoolControl()
        self._away: float | None = None
        self._history: deque[list[float]] = deque(maxlen=HISTORY)
        self._document: Document = {}
        self._version = 0

    # Announcements

    def on_activity(self, activity: Activity, now: float) -> None:
        """Process a dispatcher's announcement; late ones are ignored."""
        known = self._callers.get(activity.dispatcher)
        if activity.gone:
            self._callers.pop(activity.dispatcher, None)
        elif known is None:
            self._callers[activity.dispatcher] = Caller(activity, now)
        elif activity.sequence > known.activity.sequence:
            known.activity, known.heard = activity, now

    def on_agents(self, agents: Iterable[Presence], now: float) -> None:
        """Record the agents that are there; those that were and are not have gone or fallen
        silent.
        """
        present = {presence.agent: presence for presence in agents}
        for agent in [agent for agent in self._agents if agent not in present]:
            if self._agents[agent].draining:
                del self._agents[agent]
            else:
                self._silent.setdefault(agent, round(now - GONE_AFTER, 1))
        for agent in present:
            self._silent.pop(agent, None)
        self._agents.update(present)

    def on_broker(self, broker: Row) -> None:
        """Record what the broker says of its streams."""
        self._broker = broker

    def on_connection(self, connected: bool, since: float) -> None:
        """Record whether the broker can be reached, or when it was reached last."""
        if connected:
            self._away = None
        elif self._away is None:
            self._away = round(since, 2)

    def expire(self, now: float) -> None:
        """Forget who has been silent for too long; while the broker is away, nobody."""
        if self._away is not None:
            return
        for dispatcher in [d for d, c in self._callers.items() if now - c.heard > GONE_AFTER]:
            del self._callers[dispatcher]
        for agent in [a for a, at in self._silent.items() if now - at > GONE_KEPT]:
            del self._silent[agent]
            self._agents.pop(agent, None)
        for agent in [agent for agent in self._rows if agent not in self._agents]:
            del self._rows[agent]
            self._cells.pop(agent, None)

    # Asking

    @property
    def activities(self) -> list[Activity]:
        return [caller.activity for caller in self._callers.values()]

    @property
    def agents(self) -> list[Presence]:
        """The agents that are there."""
        return [p for agent, p in self._agents.items() if agent not in self._silent]

    def owner_of(self, map: str) -> str | None:
        """Return the inbox of the dispatcher that has this map or cause of failures."""
        for activity in sorted(self.activities, key=lambda a: -a.items):
            if any(m.id == map for m in activity.maps):
                return activity.inbox
            if any(f.key == map for f in activity.failures):
                return activity.inbox
        return None

    def kind_of(self, map: str) -> str | None:
        """Return whether an id is a map's or a job's; None: it is not known."""
        found = (m.kind for a in self.activities for m in a.maps if m.id == map)
        return next(found, None)

    def limits(self) -> dict[str, int]:
        """Return the limits of functions that have one: people's, else those of their code."""
        offers = {(p.offer or p.agent, p.version, p.rank): p for p in self.agents}
        infos = (
            info for _, p in sorted(offers.items(), key=lambda o: o[0][2]) for info in p.functions
        )
        declared = {info.name: info.max_parallel for info in infos}
        found = {name: limit for name, limit in declared.items() if limit is not None}
        return found | self.control.limits

    def refused(self) -> Counter[str]:
        """Return the maps refused in the last minute, by reason."""
        refused: Counter[str] = Counter()
        for activity in self.activities:
            refused.update(activity.refused)
        return refused

    # The document

    def snapshot(self) -> Document:
        """Return the whole document as the latest ``advance`` left it; ``whole`` comes last."""
        return {**self._document, "history": list(self._history), "whole": True}

    def advance(self, now: float) -> Document:
        """Make the document anew; return only what has changed since the last time.

        A changed row is there whole; a row that is gone is ``None``.
        """
        self.expire(now)
        before, self._version = self._document, self._version + 1
        self._document = document = self._make(now)
        totals = document["totals"]
        self._history.append([totals["rate"], totals["p50"], totals["p99"], totals["refused"]])
        changes: Document = {
            key: value
            for key, value in document.items()
            if key not in SECTIONS and (key not in before or before[key] != value)
        }
        for section in SECTIONS:
            old, new = before.get(section, {}), document[section]
            rows: Row = {key: row for key, row in new.items() if old.get(key) != row}
            rows.update({key: None for key in old if key not in new})
            if rows:
                changes[section] = rows
        return changes

    def _make(self, now: float) -> Document:
        for caller in self._callers.values():
            caller.begin_document()
        functions = self._functions()
        agents = self._sorted_agents()
        hosts = {agent: self._host(presence) for agent, presence in agents}
        cells = {agent: self._cells_of(presence) for agent, presence in agents}
        maps, more = self._maps(sum(p.cores for p in self.agents if not p.draining))
        return {
            "version": self._version,
            "now": round(now, 2),
            "epoch": self._epoch,
            "pool": self.pool,
            "away": self._away,
            "paused": self.control.paused,
            "functions": functions,
            "hosts": hosts,
            "cells": cells,
            "maps": maps,
            "more": more,
            "failures": self._failures(),
            "callers": {
                dispatcher: {"owner": caller.activity.owner, "pid": caller.activity.pid}
                for dispatcher, caller in sorted(self._callers.items())
            },
            "broker": self._broker,
            "totals": self._totals(),
        }

    def _sorted_agents(self) -> list[tuple[str, Presence]]:
        return sorted(self._agents.items(), key=lambda item: (item[1].host, item[0]))

    def _slot(self, function: str) -> int:
        """Return a function's slot, which it keeps for as long as it is in the view."""
        if function not in self._slots:
            taken = set(self._slots.values())
            free = (n for n in range(OUTER_SLOTS) if n not in taken)
            self._slots[function] = next(free, OUTER_SLOTS)
        return self._slots[function]

    def _host(self, presence: Presence) -> Row:
        silent = self._silent.get(presence.agent)
        known = self._rows.get(presence.agent)
        if known is not None and known[0] is presence and known[1]["seen"] == silent:
            return known[1]
        row = self._new_host(presence, silent)
        self._rows[presence.agent] = presence, row
        return row

    def _new_host(self, presence: Presence, silent: float | None) -> Row:
        state = "up"
        if silent is not None:
            state = "gone"
        elif presence.draining:
            state = "draining"
        elif not presence.ready:
            state = "failed" if presence.failure else "starting"
        crashes = Counter[str]()
        for _, cause, count in presence.crashes:
            crashes[cause] += count
        return {
            "host": presence.host,
            "pid": presence.pid,
            "state": state,
            "cores": presence.cores,
            "offer": presence.offer,
            "version": presence.packages.get("jetmap", ""),
            "code": presence.version,
            "python": presence.python,
            "seen": silent,
            "memory": rounded(presence.memory),
            "limit": presence.memory_limit,
            "crashes": dict(crashes),
            "kills": presence.memory_kills,
            "starts": presence.start_failures,
            "failure": (presence.failure or "")[-600:],
        }

    def _cells_of(self, presence: Presence) -> str:
        """Return one character a core."""
        if presence.agent in self._silent:
            return UNKNOWN * presence.cores
        known = self._cells.get(presence.agent)
        if known is not None and known[0] is presence:
            return known[1]
        resting = DRAINING_MARKS if presence.draining else MARKS
        slots = [chr(FIRST_SLOT + self._slot(function)) for function in presence.running]
        cells = presence.cells.decode("latin-1").translate([*resting, *slots])
        self._cells[presence.agent] = presence, cells
        return cells

    def _functions(self) -> Row:
        infos: dict[str, Row] = {}
        # Agents of one offer have the same functions; without an offer, each may have its own.
        offers = Counter((p.offer or p.agent, p.version, p.rank) for p in self.agents)
        examples = {(p.offer or p.agent, p.version, p.rank): p for p in self.agents}
        for key, hosts in sorted(offers.items(), key=lambda item: item[0][2]):
            _, version, rank = key
            for info in examples[key].functions:
                row = infos.setdefault(info.name, new_function(info.name))
                row["doc"] = info.doc.strip().partition("\n")[0]
                row["module"] = info.module
                row["limit"] = row["declared"] = info.max_parallel
                row["hosts"] += hosts
                known = next((v for v in row["versions"] if v[0] == version), None)
                if known is None:
                    row["versions"].append([version, hosts, rank])
                else:
                    known[1] += hosts
        for activity in self.activities:
            for function in activity.functions:
                row = infos.setdefault(function.name, new_function(function.name))
                add(row, function)
        for name, control in self.control.functions.items():
            row = infos.setdefault(name, new_function(name))
            row["paused"] = control.paused
            row["limit"] = control.max_parallel or row["limit"]
        for name in [name for name in self._slots if name not in infos]:
            del self._slots[name]
        # The busiest of those that are new get the first free slots, which have colours.
        for name in sorted(infos, key=lambda name: (-infos[name]["items"], name)):
            row = infos[name]
            row["slot"] = self._slot(name)
            row["rate"] = round(row["rate"], 1)
            bins = row["bins"]
            row["p50"], row["p95"], row["p99"] = (quantile(bins, q) for q in (0.5, 0.95, 0.99))
            if row["items"]:
                row["in"], row["out"] = row["in"] / row["items"], row["out"] / row["items"]
        return {name: infos[name] for name in sorted(infos)}

    def _maps(self, cores: int) -> tuple[Row, int]:
        found: dict[str, tuple[MapActivity, Caller]] = {}
        more = 0
        for caller in self._callers.values():
            more += caller.activity.more
            for activity in caller.activity.maps:
                known = found.get(activity.id)
                if known is None or is_newer(activity, known[0]):
                    found[activity.id] = activity, caller
        weights = sum(m.weight for m, _ in found.values() if m.state == "running")
        listed = sorted(found.values(), key=lambda pair: (pair[0].ended is not None, pair[0].age))
        rows = {
            activity.id: map_row(activity, caller, cores, weights)
            for activity, caller in listed[:MOST_MAPS]
        }
        return rows, more + max(0, len(listed) - MOST_MAPS)

    def _failures(self) -> Row:
        groups: dict[str, Row] = {}
        for caller in self._callers.values():
            for failure in caller.activity.failures:
                row = failure_row(failure, caller)
                known = groups.get(failure.key)
                groups[failure.key] = row if known is None else merged(known, row)
        return dict(sorted(groups.items(), key=lambda item: -item[1]["count"]))

    def _totals(self) -> Row:
        activities = self.activities
        bins: Counter[int] = Counter()
        for activity in activities:
            bins.update(activity.express)
        open_maps = [m for a in activities for m in a.maps if m.ended is None]
        refused = self.refused()
        agents = self.agents
        return {
            "cores": sum(p.cores for p in agents),
            "ready": sum(p.ready for p in agents),
            "busy": sum(p.busy for p in agents),
            "rate": round(sum(a.rate for a in activities), 1),
            "items": sum(a.items for a in activities),
            "p50": quantile(bins, 0.5),
            "p99": quantile(bins, 0.99),
            "waiting": sum(a.waiting for a in activities),
            "waiting_seconds": round(sum(a.waiting_seconds for a in activities), 2),
            "unknown": sum(a.unknown for a in activities),
            "open": len(open_maps) + sum(a.more for a in activities),
            "oldest": round(max((m.oldest for m in open_maps), default=0.0), 1),
            "refused": sum(refused.values()),
            "reasons": dict(refused),
        }
