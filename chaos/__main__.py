"""``python -m chaos``: the stages, one after the other, and the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from tests.support.processes import MARK, described, kill_if_there, marked

from .checker import Checker
from .executions import Findings, hang_ups
from .faults import KILLED, LIMITS, OWNERS, STALL, Fault
from .injector import Injector
from .lag import stalls
from .network import Network
from .recovery import examine
from .report import report, slowest, violations
from .runs import AGENT, Notes
from .stage import Stage

ROOT = Path(__file__).parent.parent

AGENTS = 3


@dataclass(frozen=True)
class Setting:
    """share: of the time. nodes: nats-servers. spaced: faults come one at a time."""

    share: float
    nodes: int = 1
    jobs: bool = False
    spaced: bool = False


STAGES = {
    "1": Setting(0.12),
    "jobs": Setting(0.11, jobs=True),
    "3": Setting(0.12, nodes=3),
    "spaced": Setting(0.54, spaced=True),
    "spaced-jobs": Setting(0.11, jobs=True, spaced=True),
}
TO_END = 120.0  # Seconds that open maps have to end after the last fault.
TO_EMPTY = 45.0  # Seconds until nothing may be left in the streams.
TO_AUDIT = 120.0
TO_ORPHANS = 5.0  # Seconds until what a function started must be gone after its worker.
LINE_SECONDS = 10.0


@dataclass
class Soak:
    """seconds: of faults, in both stages together."""

    seconds: float
    seed: int
    place: Path
    network: Network | None
    callers_network: Network | None = None
    only: list[str] | None = None
    checker: Checker = field(default_factory=Checker)
    faults: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    callers_killed: set[str] = field(default_factory=set)
    unreached: list[str] = field(default_factory=list)
    orphans: int = 0

    async def run(self, stages: dict[str, float]) -> None:
        """stages: their names, and the share of the time."""
        self.start = time.monotonic()
        lag = self.place / "lag"
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "chaos.lag", str(lag)]
        environment = os.environ | {"PYTHONPATH": path}
        watching = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            for name, share in stages.items():
                await self._stage(name, share * self.seconds)
        finally:
            watching.kill()
            await watching.wait()
            self.faults += stalls(lag)

    async def _stage(self, name: str, seconds: float) -> None:
        setting = STAGES[name]
        jobs = setting.jobs
        stage = Stage(
            self.place / f"stage-{name}",
            self.seed,
            setting.nodes,
            self.network,
            name,
            2 if jobs else 1,
            self.callers_network,
            setting.spaced,
        )
        injector = Injector(
            stage, self.seed, self.checker, lambda: self._read(stage), self.only, jobs=jobs
        )
        telling = None
        try:
            await stage.start_broker()
            for number in range(AGENTS):
                stage.start_agent(far=number == 0)
            for number in range(stage.gateways_wanted):
                stage.start_gateway(number)
                await stage.gateway_ready(number)
            for number, kind in enumerate(callers_of(setting)):
                stage.start_caller(kind, far=number == 0)
            telling = asyncio.ensure_future(self._tell(stage, injector))
            await injector.run(seconds)
            await self._end_callers(stage)
            if jobs:
                await self._audit(stage)
            await self._empty(stage, *(("WORK", "INPUT", "OUTCOMES") if jobs else ("WORK",)))
            await self._look_for_orphans(stage, injector.faults)
        finally:
            if telling is not None:
                telling.cancel()
            await injector.end()
            await stage.close()
            _end_with_stage(injector.faults)
            self.faults += injector.faults
            self.problems += injector.problems
            self.unreached += injector.unreached
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
            caller.tell("!")
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

    async def _look_for_orphans(self, stage: Stage, faults: list[Fault]) -> None:
        """Check that processes which a function started have ended with their worker.

        They may outlive a worker whose agent was killed and could not end them; these are counted.
        """
        notes = Notes()
        notes.read(stage.data.glob("*.runs"))
        noted = {
            child: worker.agent for worker in notes.workers.values() for child in worker.children
        }
        excused = {fault.agent for fault in faults if "agent killed" in fault.kind}
        if any(fault.kind == "everything killed" for fault in faults):
            excused |= {worker.agent for worker in notes.workers.values()}
        deadline = time.monotonic() + TO_ORPHANS
        while True:
            agents = {p: whose(p, noted) for p in marked(os.environ[MARK])}
            left = [p for p, agent in agents.items() if agent is not None]
            wrong = [p for p in left if agents[p] not in excused]
            if not wrong or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        self.problems += [f"outlived its worker: {line}" for line in described(wrong)]
        self.orphans += len(left) - len(wrong)
        for process in left:
            kill_if_there(process)

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
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long there are faults")
    parser.add_argument("--seed", type=int, default=None, help="the choice of maps and faults")
    stages = ", ".join(STAGES)
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {stages}, by commas")
    parser.add_argument("--only", action="append", help="only faults whose name holds this")
    parser.add_argument("--keep", action="store_true", help="keep the records and logs")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    chosen = {name: STAGES[name].share for name in options.stages.split(",")}
    shares = {name: share / sum(chosen.values()) for name, share in chosen.items()}
    mark = os.environ[MARK] = secrets.token_hex(8)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    place = Path(tempfile.mkdtemp(prefix="jetmap-soak-"))
    networks = Network.make(0), Network.make(1)
    soak = Soak(options.seconds, seed, place, *networks, options.only)
    print(f"seed {seed}, {options.seconds:g} s, records in {place}", flush=True)
    try:
        asyncio.run(soak.run(shares))
    finally:
        left = marked(mark)
        lines = described(left)
        for process in left:
            kill_if_there(process)
        for network in networks:
            if network is not None:
                network.remove()
    ok = tell(soak, shares, lines)
    if options.keep or not ok:
        print(f"records and logs: {place}")
    else:
        shutil.rmtree(place)
    return 0 if ok else 1


def _end_with_stage(faults: list[Fault]) -> None:
    """Mark faults as over whose recovery nobody saw: their processes are gone, so the first fault
    of the next stage comes alone."""
    now = time.monotonic()
    for fault in faults:
        fault.over = now if fault.over is None else fault.over


def whose(process: psutil.Process, noted: dict[int, int]) -> int | None:
    """The agent whose item started it; None: an item did not start it, or it is gone."""
    try:
        agent = process.environ().get(AGENT)
    except psutil.Error:
        return None
    return int(agent) if agent is not None else noted.get(process.pid)


def callers_of(setting: Setting) -> tuple[str, ...]:
    """Their kinds. The first is where its network can be cut."""
    if setting.jobs:
        return ("jobs", "webjobs", "webjobs")
    return ("caller", "caller", "web")


def tell(soak: Soak, shares: dict[str, float], left: list[str]) -> bool:
    """Print the report; return whether all is well."""
    findings = soak.judge()
    told = [asdict(fault) for fault in soak.faults]
    (soak.place / "faults.json").write_text(json.dumps(told))
    cores = os.cpu_count()
    stages = ", ".join(f"{share * soak.seconds:.0f} s of {name}" for name, share in shares.items())
    title = (
        f"seed {soak.seed}: {stages}; {AGENTS} agents of {Stage.CORES} workers, 3 callers of 3 "
        f"maps or jobs open each, {cores} cores; networks "
        f"{'cut in namespaces' if soak.network else 'not cut: needs root and ip'}"
    )
    notes = [f"processes left: {len(left)}"]
    stood = [fault.ended - fault.began for fault in soak.faults if fault.kind == STALL]
    notes.append(
        f"the machine stood still {len(stood)} times for over 0.1 s, {sum(stood):.1f} s in all, at "
        f"most {max(stood, default=0.0):.1f} s; exactly that is taken off the times it falls into"
    )
    if soak.orphans:
        notes.append(f"processes of functions that outlived a killed agent: {soak.orphans}")
    if soak.unreached:
        notes.append(f"not reached in this time, one at a time: {', '.join(soak.unreached)}")
    spaced = {fault.kind for fault in soak.faults if fault.spaced}
    unchecked = sorted(
        kind
        for kind in spaced & {*LIMITS, *KILLED, *OWNERS}
        if not findings.checked[kind] and not findings.checked[OWNERS.get(kind, kind)]
    )
    soak.problems += [f"no limit was checked of: {kind}" for kind in unchecked]
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
