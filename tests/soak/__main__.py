"""``python -m tests.soak``: two stages, a single server and a cluster of three, and the report."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.marks import MARK, described, kill_if_there, marked

from .checker import Checker
from .executions import STALL, Fault, Findings, examine, hang_ups
from .injector import Injector
from .network import Network
from .report import report, slowest, violations
from .stage import Stage

AGENTS = 3
# Stages: one server; one whose store is kept, with jobs; three. Their shares of the time.
STAGES = {"1": 0.4, "jobs": 0.3, "3": 0.3}
NODES = {"1": 1, "jobs": 1, "3": 3}
TO_END = 120.0  # Seconds that open maps have to end after the last fault.
TO_EMPTY = 45.0  # Seconds until nothing may be left in the streams.
TO_AUDIT = 120.0
LINE_SECONDS = 10.0
STALL_SECONDS = 1.0


@dataclass
class Soak:
    """seconds: of faults, in both stages together."""

    seconds: float
    seed: int
    place: Path
    network: Network | None
    only: list[str] | None = None
    checker: Checker = field(default_factory=Checker)
    faults: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    callers_killed: set[str] = field(default_factory=set)

    async def run(self, stages: dict[str, float]) -> None:
        """stages: their names, and the share of the time."""
        self.start = time.monotonic()
        watching = asyncio.ensure_future(self._watch_machine())
        try:
            for name, share in stages.items():
                await self._stage(name, share * self.seconds)
        finally:
            watching.cancel()

    async def _watch_machine(self) -> None:
        """Where this process itself does not get to run, nobody does: virtual machines are paused
        for seconds now and then, and no time that was taken meanwhile means anything."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if now - before > STALL_SECONDS:
                self.faults.append(Fault(STALL, before, now))

    async def _stage(self, name: str, seconds: float) -> None:
        jobs = name == "jobs"
        place = self.place / f"stage-{name}"
        stage = Stage(place, self.seed, NODES[name], self.network, name, 2 if jobs else 1)
        injector = Injector(stage, random.Random(f"{self.seed} {name}"), self.only, jobs=jobs)
        telling = None
        try:
            await stage.start_broker()
            for number in range(AGENTS):
                stage.start_agent(far=number == 0)
            for number in range(stage.gateways_wanted):
                stage.start_gateway(number)
                await stage.gateway_ready(number)
            for kind in ("jobs", "webjobs", "webjobs") if jobs else ("caller", "caller", "web"):
                stage.start_caller(kind)
            telling = asyncio.ensure_future(self._tell(stage, injector))
            await injector.run(seconds)
            await self._end_callers(stage)
            if jobs:
                await self._audit(stage)
            await self._empty(stage, *(("WORK", "INPUT", "OUTCOMES") if jobs else ("WORK",)))
        finally:
            if telling is not None:
                telling.cancel()
            await stage.close()
            self.faults += injector.faults
            self.problems += injector.problems
            self.callers_killed |= injector.callers_killed
            self._read(stage)
            self._look_at_logs(stage)

    async def _tell(self, stage: Stage, injector: Injector) -> None:
        """A line now and then; callers that have ended by themselves are a problem."""
        while True:
            await asyncio.sleep(LINE_SECONDS)
            self._read(stage)
            checker = self.checker
            print(
                f"{time.monotonic() - self.start:6.1f} s: maps {len(checker.maps):,}, outcomes "
                f"{checker.outcomes:,}, faults {len(self.faults) + len(injector.faults)}, "
                f"violations {len(checker.violations)}",
                flush=True,
            )

    def _read(self, stage: Stage) -> None:
        self.checker.read(sorted(stage.data.glob("*.maps")))

    async def _end_callers(self, stage: Stage) -> None:
        """Callers start no more maps; those that are open must come to their end."""
        for caller in stage.callers:
            assert caller.process.stdin is not None
            with suppress(BrokenPipeError):  # one that is gone is reported below
                caller.process.stdin.write(b"!")
                caller.process.stdin.flush()
        deadline = time.monotonic() + TO_END
        for caller in stage.callers:
            code = await caller.ended(max(1.0, deadline - time.monotonic()))
            if code != 0:
                self.problems.append(f"{caller.name} ended with {code} in {TO_END:g} s")

    async def _audit(self, stage: Stage) -> None:
        """Every job is read once more, by a gateway, and removed."""
        auditor = stage.start_auditor()
        code = await auditor.ended(TO_AUDIT)
        if code != 0:
            self.problems.append(f"the auditor ended with {code} in {TO_AUDIT:g} s")
            auditor.signal(signal.SIGKILL)
            await auditor.ended(5)

    async def _empty(self, stage: Stage, *streams: str) -> None:
        """Nothing of any map may stay in the work stream, nothing of a removed job anywhere."""
        deadline = time.monotonic() + TO_EMPTY
        while left := await stage.waiting(*streams):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        if left:
            self.problems.append(f"{left} messages are left in {', '.join(streams)}")

    def _look_at_logs(self, stage: Stage) -> None:
        """No process of the library's may have failed in a way that nobody sees."""
        for log in sorted(stage.logs.glob("*.log")):
            text = log.read_text(errors="replace")
            if "Traceback" in text:
                where = text.index("Traceback")
                self.problems.append(f"{log.name}: {text[max(0, where - 300) : where + 2500]}")

    def judge(self) -> Findings:
        """Once all is over."""
        self.checker.close(self.callers_killed, time.monotonic())
        return examine(self.checker, self.faults, sorted(self.place.glob("*/data/*.runs")))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long there are faults")
    parser.add_argument("--seed", type=int, default=None, help="the choice of maps and faults")
    stages = ", ".join(STAGES)
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {stages}, by commas")
    parser.add_argument("--only", action="append", help="only faults whose name holds this")
    parser.add_argument("--keep", action="store_true", help="keep the records and logs")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    chosen = {name: STAGES[name] for name in options.stages.split(",")}
    shares = {name: share / sum(chosen.values()) for name, share in chosen.items()}
    mark = os.environ[MARK] = secrets.token_hex(8)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    place = Path(tempfile.mkdtemp(prefix="jetmap-soak-"))
    network = Network.make()
    soak = Soak(options.seconds, seed, place, network, options.only)
    print(f"seed {seed}, {options.seconds:g} s, records in {place}", flush=True)
    try:
        asyncio.run(soak.run(shares))
    finally:
        left = marked(mark)
        lines = described(left)
        for process in left:
            kill_if_there(process)
        if network is not None:
            network.remove()
    ok = tell(soak, shares, lines)
    if options.keep or not ok:
        print(f"records and logs: {place}")
    else:
        shutil.rmtree(place)
    return 0 if ok else 1


def tell(soak: Soak, shares: dict[str, float], left: list[str]) -> bool:
    """Prints the report; returns whether all is well."""
    findings = soak.judge()
    cores = os.cpu_count()
    stages = " then ".join(
        f"{share * soak.seconds:g} s with "
        + ("jobs" if name == "jobs" else f"{name} nats-server{'s' if NODES[name] > 1 else ''}")
        for name, share in shares.items()
    )
    title = (
        f"seed {soak.seed}: {stages}; {AGENTS} agents of {Stage.CORES} workers, 2 callers and a "
        f"gateway with 3 maps open each (jobs: 3 callers, 2 gateways), {cores} cores; network "
        f"{'cut in a namespace' if soak.network else 'not cut: needs root and ip'}"
    )
    notes = [f"processes left: {len(left)}"]
    if stalls := [fault for fault in soak.faults if fault.kind == STALL]:
        seconds = sum(fault.ended - fault.began for fault in stalls)
        notes.append(
            f"the machine stood still {len(stalls)} times, {seconds:.1f} s in all; times that hold "
            "such a pause are left out"
        )
    print()
    left_early: Counter[str] = hang_ups(soak.checker)
    print(report(title, soak.checker, soak.faults, findings, left_early, notes))
    print("\nslowest recoveries:\n" + "\n".join(slowest(findings, soak.faults, soak.start)))
    bad = violations(soak.checker.violations, soak.faults, soak.start)
    bad += [f"PROBLEM {problem}" for problem in soak.problems]
    bad += [f"PROCESS LEFT {line}" for line in left]
    if bad:
        print("\nviolations:\n" + "\n".join(bad))
    return not bad


if __name__ == "__main__":
    sys.exit(main())
