"""Cores of a machine, shared by several agents of one pool."""

from __future__ import annotations

from pathlib import Path

from jetmap.cli.shared_cores import share, taken_of
from jetmap.machine import boot_id
from jetmap.wire.presence import CoreStatus, Presence


def test_cores_that_are_taken() -> None:
    taken = {0: 11, 1: 11}
    assert share(None, {}, [0, 1]) == share(None, {}, [])
    assert share(None, {}, [0, 1]).cores is None
    # The free ones, where nothing else was asked for.
    free = share(None, taken, [0, 1, 2, 3])
    assert (free.cores, "process 11" in str(free.warning)) == ("2,3", True)
    assert (share(2, taken, [0, 1, 2, 3]).cores, share(2, taken, [0, 1, 2, 3]).warning) == (
        "2,3",
        None,
    )
    # What was asked for, with a warning, where it is more than there is.
    some = share("3", taken, [0, 1, 2, 3])
    assert some.cores == "2,3,0" and "core 0 of this machine" in str(some.warning)
    every = share(None, taken, [0, 1])
    assert every.cores is None and "core 0,1 of this machine" in str(every.warning)
    assert "counts twice" in str(share(8, taken, [0, 1]).warning)


def test_only_agents_of_this_machine_take_its_cores() -> None:
    def agent(machine: str, *cpus: int | None) -> Presence:
        cores = [CoreStatus(1, cpu, "idle") for cpu in cpus]
        found = Presence("a", "h", 7, "p", "o", "", 1, 2, 2, 0, False, False, [], cores)
        return Presence(
            **{f: getattr(found, f) for f in found.__struct_fields__} | {"machine": machine}
        )

    agents = [agent("here", 0, None), agent("there", 1), agent("", 2)]
    assert taken_of(agents, "here") == {0: 7}
    assert taken_of(agents, "") == {}
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
