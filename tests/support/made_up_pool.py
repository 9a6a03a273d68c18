"""A pool that is made up, from three hosts to a thousand: what its agents and callers announce.

It is the same in every run. Nothing is computed; the figures fit one another roughly.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator
from typing import Any, Literal

import anyio
import msgspec

from activities import activity, failure, map_of
from announcements import presence
from fake_watch import FakeWatch
from jetmap.monitoring.pool_view import PoolView
from jetmap.wire.activity import (
    Activity,
    ActivityAnswer,
    FailureActivity,
    FailureDetails,
    FunctionActivity,
    MapActivity,
    MapDetails,
    SlowItem,
)
from jetmap.wire.presence import FIRST_RUNNING, FunctionInfo, Presence

State = Literal["empty", "idle", "busy", "failing", "away"]
# Name, seconds of an item, what it does.
FUNCTIONS = (
    ("price_option", 0.012, "Price one option by Monte Carlo."),
    ("resize_image", 0.18, "Make the sizes of one picture that the shop shows."),
    ("score_lead", 0.0031, "Score one lead."),
    ("parse_invoice", 0.42, "Read an invoice's fields from its PDF."),
    ("embed_text", 0.065, "Embed one text."),
    ("simulate_portfolio", 8.0, "Simulate ten years of one portfolio."),
    ("ocr_page", 1.3, "Recognise one page."),
    ("geocode", 0.0009, "Find the place of one address."),
    ("dedupe", 0.026, "Compare one record with its neighbours."),
    ("constructor", 0.002, "Make <b>one</b> & only one."),
)
STEPS = 90  # Seconds of history.
FIRST = 1_000.0  # The clock when somebody begins to look.
EPOCH = 1_770_000_000.0  # Seconds since 1970 at its time 0.


class MadeUpPool:
    """Announcements of a pool at any second.

    Args:
        hosts: Agents.
        cores: Cores of each.
        state: What it does.
        maps: Maps and jobs that are open.
        total: Items of the largest job.

    Attributes:
        removed: A map that nobody announces any more.
        paused: Maps that are paused, besides one that always is.
        gone: Names of the functions and agents that have left.
        owner: The caller that has the largest job.
    """

    def __init__(
        self, hosts: int = 3, cores: int = 16, state: State = "busy", maps: int = 12,
        total: int = 10_000_000,
    ) -> None:  # fmt: skip
        self.state = state
        self._hosts = 0 if state == "empty" else hosts
        self._cores = cores
        self._maps = maps if state in ("busy", "failing", "away") else 0
        self._total = total
        self.removed = ""
        self.paused: set[str] = set()
        self.gone: set[str] = set()
        self.owner = "jetmap api on web-1"
        self._infos = [
            FunctionInfo(name, doc=doc, module="shop.tasks", max_parallel=8 if n == 6 else None)
            for n, (name, _, doc) in enumerate(FUNCTIONS)
        ]

    def agents(self, second: int) -> list[Presence]:
        found = [self._agent(n, second) for n in range(self._hosts)]
        return [presence for presence in found if presence.agent not in self.gone]

    def callers(self, second: int) -> list[Activity]:
        """A gateway, a program and a worker of jobs share the maps."""
        if self.state == "empty":
            return [activity("d0", second + 1, owner=self.owner)]
        owners = (self.owner, "jetmap api on web-2", "nightly.py on batch-1")
        return [self._caller(n, owner, second) for n, owner in enumerate(owners)]

    def details(self, id: str) -> MapDetails:
        draw = random.Random(id)
        bins = {n: round(4_000 * math.exp(-(((n - 41) / 3) ** 2))) for n in range(33, 50)}
        bins |= {50: 2, 51: 1, 53: 1}
        times = (0.22, 0.13, 0.11, 0.104, 0.098, 0.095)
        slow = [
            SlowItem(draw.randrange(9_000), seconds, f"r00-n{n:02}", attempt=1 + (n == 1))
            for n, seconds in enumerate(times)
        ]
        cores = self._cores_of(int(id[-4:]))
        parallel = [
            min(1.0, n / 6) * cores * (1 + 0.12 * math.sin(n / 5) + draw.random() / 10)
            for n in range(90)
        ]
        is_failing = self.state == "failing"
        found = self._failures(0.0)[:2] if is_failing else []
        again = 420.0 if is_failing else 12.0
        return MapDetails(
            id, 310.0, 2_600.0, again, 0.0, {k: v for k, v in bins.items() if v},
            slow, parallel, 2.0, found, 130.0,
        )  # fmt: skip

    # Inside

    def _agent(self, number: int, second: int) -> Presence:
        draw = random.Random(number * 100_003 + second // 2)
        cells = bytearray(b"\1" * self._cores)
        if self.state != "idle":
            for core in range(self._cores):
                if (number * self._cores + core + second // 2 * 7) % 100 < 88:
                    share = (number * 31 + core * 7 + second // 6) % 97 / 97
                    cells[core] = FIRST_RUNNING + int(9 * share * share)
        state: dict[str, Any] = {}
        if self.state == "failing":
            if number == 1:
                cells[:] = bytes([2] * self._cores)
                state = {
                    "ready": 0,
                    "failure": "Traceback (most recent call last):\n"
                    '  File "shop/tasks.py", line 3\n    import pdfium\n'
                    "ModuleNotFoundError: No module named 'pdfium'",
                }
            elif number % 40 == 0:
                state = {"crashes": [("ocr_page", "SIGSEGV", 41)], "memory_kills": 3}
        if number == 2 and self.state in ("busy", "failing"):
            state = {"draining": True}
        memory = (0.3 + 0.3 * draw.random()) * (256 << 30)
        return presence(
            f"agent-{number:04}", host=f"r{number // 40:02}-n{number % 40:02}", pid=4_000 + number,
            cores=self._cores, busy=sum(c >= FIRST_RUNNING for c in cells),
            functions=[info for info in self._infos if info.name not in self.gone],
            running=[name for name, *_ in FUNCTIONS[:9]], cells=bytes(cells),
            packages={"jetmap": "0.9.1" if number == 1 else "0.9.2"}, python="3.13.1",
            memory=round(memory), memory_limit=256 << 30, offer="8f3a9c21", version="71d0a4b9",
            **({"ready": self._cores} | state),
        )  # fmt: skip

    def _caller(self, number: int, owner: str, second: int) -> Activity:
        busy = self.state not in ("idle", "empty")
        wave = (1 + 0.2 * math.sin((second + 9 * number) / 11)) if busy else 0.0
        functions = [self._function(n, second, wave) for n in range(number, len(FUNCTIONS), 3)]
        functions = [function for function in functions if function.name not in self.gone]
        maps = [self._map(n, second) for n in range(number, self._maps, 3)]
        maps = [found for found in maps if found.id != self.removed]
        is_failing = self.state == "failing"
        waits = {n: round(900 * math.exp(-(((n - 37) / 4) ** 2))) for n in range(28, 52)}
        return activity(
            f"d{number}", second + 1, owner=owner, maps=maps, functions=functions,
            failures=self._failures(second) if is_failing and number == 0 else [],
            items=sum(f.items for f in functions), rate=sum(f.rate for f in functions),
            express={n: k for n, k in waits.items() if k} if busy else {},
            waiting=sum(f.waiting for f in functions),
            waiting_seconds=sum(f.waiting_seconds for f in functions),
            refused={"no-workers": 4, "too-many-maps": 2} if is_failing and number == 1 else {},
        )  # fmt: skip

    def _function(self, number: int, second: int, wave: float) -> FunctionActivity:
        name, seconds, _ = FUNCTIONS[number]
        rate = wave * self._hosts * self._cores * 0.1 / seconds
        items = round(9_000 / seconds + rate * second)
        center = round(60 + 10 * math.log10(seconds))
        shape = {center + n: math.exp(-((n / 2.2) ** 2)) for n in range(-5, 9)}
        total = sum(shape.values())
        bins = {n: round(items * share / total) for n, share in shape.items()}
        failed = round(items * 0.021) if self.state == "failing" and number in (3, 6) else 0
        waiting = round(wave * 12 / seconds)
        return FunctionActivity(
            name, items, items * seconds, rate, failed, {n: k for n, k in bins.items() if k},
            740.0 * (number + 1), 90.0 * (number + 1), waiting, waiting * seconds,
        )  # fmt: skip

    def _map(self, number: int, second: int) -> MapActivity:
        name, seconds, _ = FUNCTIONS[number % len(FUNCTIONS)]
        is_job = number % 4 == 0
        total = self._total if number == 0 else 2_000 * (number % 17 + 1)
        age = 40.0 + 37 * (number % 23) + second
        rate = total / (900 + 40 * (number % 11))
        done = min(total - 1, round(rate * age))
        changes: dict[str, Any] = {}
        if number == 2:
            changes = {"state": "paused", "waits": "a pause", "rate": 0.0, "left": None}
        elif number == 3:
            changes = {"limit": 4, "waits": "a limit", "cores": 4.0}
        elif number == 5:
            changes = {"total": None, "left": None, "waits": "its input"}
        elif number % 9 == 8:
            changes = {"ended": 20.0 + second, "outcome": "ok", "left": None, "waits": ""}
            done = total
        if self.state == "failing" and number in (0, 4, 7):
            changes |= {"failed": round(done * 0.02)}
        elif self.state == "failing" and number == 6:
            changes = {"state": "waiting", "waits": "workers", "cores": 0.0, "rate": 0.0}
            done, changes["left"] = 0, None
        id = f"0QK3ZM2T8V{number:04}"
        if id in self.paused:
            changes |= {"state": "paused", "waits": "a pause", "rate": 0.0, "left": None}
        fields: dict[str, Any] = {
            "function": name, "kind": "job" if is_job else "map", "total": total, "done": done,
            "rate": rate, "left": (total - done) / rate, "age": age, "oldest": seconds * 2,
            "cores": self._cores_of(number), "weight": 8.0 if number == 0 else 1.0,
            "labels": {"customer": str(number % 7)} if number % 3 else {}, "seconds": age,
        }  # fmt: skip
        return map_of(id, **(fields | changes))

    def _cores_of(self, number: int) -> float:
        """The largest job has about half of the cores."""
        cores = self._hosts * self._cores
        return cores * 0.46 if number == 0 else cores * 0.4 / max(1, self._maps - 1)

    def _failures(self, second: float) -> list[FailureActivity]:
        counts = [round(3 + 3 * math.sin(n / 3)) for n in range(30)]
        causes = (
            ("ocr_page", "lost", "WorkerLost", "its worker died: SIGSEGV (segmentation fault)"),
            ("parse_invoice", "raised", "ValueError", "page 7 has no <table> of items"),
            ("parse_invoice", "timeout", "ItemTimeout", "over its 30 s"),
            ("score_lead", "invalid", "ItemInvalid", "expected `int`, got `str` at `$.age`"),
        )
        return [
            failure(
                f"cause{n}", function=function, kind=kind, type=type, message=message,
                count=sum(counts) * (4 - n), first=3_000.0 - 400 * n + second, last=4.0 + 30 * n,
                counts=[k * (4 - n) for k in counts], hosts=["r00-n00", "r00-n01"][: 1 + n % 2],
                indexes=[17, 204, 9_311], job="0QK3ZM2T8V0004" if n == 1 else "",
            )
            for n, (function, kind, type, message) in enumerate(causes)
        ]  # fmt: skip


class PlayedWatch(FakeWatch):
    """A watch of a made-up pool: an announcement of each agent and caller every two seconds.

    Attributes:
        step_seconds: Seconds between two differences.
        streams: Readers of the differences.
        most_streams: The most that there were at a time.
    """

    def __init__(self, made_up: MadeUpPool) -> None:
        super().__init__()
        self.made_up = made_up
        self.step_seconds = 1.0
        self.streams = self.most_streams = 0
        self.pool = PoolView("default", EPOCH)
        self.second = 0
        self.is_watching = True
        stream = {"storage": "file", "copies": 3, "leader": "nats-1", "quota": -1}
        replicas = [{"name": f"nats-{n}", "current": True} for n in (2, 3)]
        names = (("JETMAP_WORK_default", 0.2), ("JETMAP_JOBS_default", 0.01))
        names += (("JETMAP_INPUT_default", 2.1), ("JETMAP_OUTCOMES_default", 4.6))
        streams = [
            {**stream, "name": n, "bytes": round(gb * 1e9), "messages": round(gb * 4e4),
             "replicas": replicas}
            for n, gb in names
        ]  # fmt: skip
        store = {"bytes": 6_710_000_000, "quota": 8_000_000_000 if failing(made_up) else 20 << 30}
        self.pool.on_broker({"server": "nats-1", "streams": streams, "store": store})
        for _ in range(STEPS):
            self.step()

    def step(self) -> dict[str, Any]:
        """Let one second pass, and return what has changed."""
        self.second += 1
        now = FIRST + self.second
        is_away = self.made_up.state == "away" and self.second > STEPS - 40
        self.pool.on_connection(not is_away, now)
        if self.second % 2 == 1 and not is_away:
            for caller in self.made_up.callers(self.second):
                self.pool.on_activity(caller, now)
            self.pool.on_agents(self.made_up.agents(self.second), now)
        return self.pool.advance(now)

    async def view(self) -> PoolView:
        return self.pool

    async def changes(self) -> AsyncGenerator[bytes, None]:
        self.streams += 1
        self.most_streams = max(self.most_streams, self.streams)
        try:
            yield msgspec.json.encode(self.pool.snapshot())
            while True:
                await anyio.sleep(self.step_seconds)
                yield msgspec.json.encode(self.step())
        finally:
            self.streams -= 1

    async def ask(self, what: str, id: str, value: int = 0) -> ActivityAnswer:
        self.asked.append((what, id, value))
        if what == "map":
            return ActivityAnswer(map=self.made_up.details(id))
        text = 'Traceback (most recent call last):\n  File "shop/tasks.py", line 41, in '
        return ActivityAnswer(
            failure=FailureDetails(id, f"{text}parse_invoice\nValueError: page 7", [id])
        )


def failing(made_up: MadeUpPool) -> bool:
    return made_up.state == "failing"
