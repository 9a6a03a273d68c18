"""Limits of control groups, in a directory that stands for the root of a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap import cgroups, machine

NONE = 9223372036854771712  # Bytes that version 1 gives as the limit where there is none.


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that stands for the host's root."""
    monkeypatch.setattr(cgroups, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_groups_nothing_is_limited(host: Path) -> None:
    assert cgroups.quota() is None
    assert cgroups.memory_limits() == cgroups.free_memory() == []
    assert cgroups.memory_kills() is None


@pytest.mark.parametrize(
    ("own", "inner", "outer", "expected"),
    [
        ("/a/b", "150000 100000", "max 100000", 1.5),
        ("/a/b", "max 100000", "50000 100000", 0.5),
        ("/a/b", "400000 100000", "200000 100000", 2.0),
        ("/a/b", "max 100000", "max 100000", None),
        ("/", "", "300000 100000", 3.0),
        ("/a/b", "what is this", "300000 100000", 3.0),
        ("/a/b", "100000 0", "300000 100000", 3.0),
    ],
)
def test_the_tightest_quota_of_all_parents_holds(
    host: Path, own: str, inner: str, outer: str, expected: float | None
) -> None:
    write(host, "/proc/self/cgroup", f"1:name=systemd:/x\n0::{own}\n")
    if inner:
        write(host, f"/sys/fs/cgroup{own}/cpu.max", inner + "\n")
    write(host, "/sys/fs/cgroup/cpu.max", outer + "\n")
    assert cgroups.quota() == expected


@pytest.mark.parametrize(
    ("at", "quota", "expected"),
    [
        # A container sees its own group as the root; a service of the host does not.
        ("", "250000", 2.5),
        ("", "-1", None),
        ("", "", None),
        ("/a", "150000", 1.5),
        ("/a/b", "50000", 0.5),
        ("/other", "50000", None),
    ],
)
def test_quotas_of_version_one(host: Path, at: str, quota: str, expected: float | None) -> None:
    write(host, "/proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/a/b\n1:name=systemd:/x\n0::/\n")
    write(host, f"/sys/fs/cgroup/cpu{at}/cpu.cfs_quota_us", quota)
    write(host, f"/sys/fs/cgroup/cpu{at}/cpu.cfs_period_us", "100000")
    assert cgroups.quota() == expected


def test_memory_of_version_two(host: Path) -> None:
    write(host, "/proc/self/cgroup", "0::/a/b\n")
    for place, limit, used in (("/a", "1000", "100"), ("/a/b", "max", "90"), ("/a/c", "5", "1")):
        write(host, f"/sys/fs/cgroup{place}/memory.max", limit)
        write(host, f"/sys/fs/cgroup{place}/memory.current", used)
    write(host, "/sys/fs/cgroup/a/memory.stat", "anon 80\ninactive_file 20\n")
    write(host, "/sys/fs/cgroup/a/memory.events", "oom 1\noom_kill 7\n")
    assert cgroups.memory_limits() == [1000]
    assert cgroups.free_memory() == [920]
    assert cgroups.memory_kills() == 7


def test_memory_of_version_one(host: Path) -> None:
    write(host, "/proc/self/cgroup", "5:memory:/a/b\n4:cpu:/x\n")
    for place, limit, used in (
        ("", NONE, 900),
        ("/a", 1000, 100),
        ("/a/b", NONE, 90),
        ("/x", 5, 1),
    ):
        write(host, f"/sys/fs/cgroup/memory{place}/memory.limit_in_bytes", str(limit))
        write(host, f"/sys/fs/cgroup/memory{place}/memory.usage_in_bytes", str(used))
    write(host, "/sys/fs/cgroup/memory/a/memory.stat", "inactive_file 5\ntotal_inactive_file 20\n")
    write(host, "/sys/fs/cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill 3\n")
    assert sorted(cgroups.memory_limits()) == [1000, NONE, NONE]
    assert min(cgroups.free_memory()) == 920
    assert cgroups.memory_kills() == 3
    assert machine.memory() == 1000 and machine.free_memory() == 920


def test_the_machines_own_memory_counts_where_there_are_no_groups(host: Path) -> None:
    assert machine.memory() > machine.free_memory() > 0
    assert machine.memory_kills() >= 0
