"""The cores of a host's workers, by setting, affinity mask and cgroup quota."""

from __future__ import annotations

import errno
import mmap
import os
import platform
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap import cgroups, machine
from jetmap.errors import ConfigurationError
from jetmap.machine import advice_for, working_directory

quick = examples(100)

masks = st.sets(st.integers(0, 31), min_size=1, max_size=8).map(sorted)
quotas = st.none() | st.floats(0.1, 40)


def choose(wanted: str | int | None, mask: list[int], quota: float | None) -> list[int | None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "allowed_cpus", lambda: mask)
        patch.setattr(cgroups, "quota", lambda: quota)
        return machine.choose_cores(wanted)


@quick
@given(masks, quotas)
def test_by_default_all_that_mask_and_quota_allow(mask: list[int], quota: float | None) -> None:
    cores = choose(None, mask, quota)
    if quota is None or quota >= len(mask):
        assert cores == mask
    else:
        # Under a quota the scheduler must be free to move them.
        assert cores == [None] * max(1, int(quota))


@quick
@given(masks, quotas, st.integers(1, 40), st.booleans())
def test_a_count_is_kept_and_pinned_where_that_is_sure(
    mask: list[int], quota: float | None, count: int, as_text: bool
) -> None:
    cores = choose(f" {count} " if as_text else count, mask, quota)
    assert len(cores) == count
    pinned = count <= len(mask) and (quota is None or quota >= len(mask))
    assert cores == (mask[:count] if pinned else [None] * count)


@quick
@given(masks, quotas, st.data())
def test_a_list_names_exactly_these_cores(
    mask: list[int], quota: float | None, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(mask), min_size=1, max_size=8))
    text = ",".join(f"{core}-{core}" for core in chosen)
    assert choose(text, mask, quota) == list(dict.fromkeys(chosen))
    if mask == list(range(mask[0], mask[-1] + 1)) and len(mask) > 1:
        assert choose(f"{mask[0]}-{mask[-1]}", mask, quota) == mask

    with pytest.raises(ConfigurationError, match="may use"):
        choose(f"{text},99", mask, quota)


@pytest.mark.parametrize("text", ["x", "1,", "-1", "0-x", "1.5", ",", "two", "1;2"])
def test_what_is_no_list_is_said_so(text: str) -> None:
    with pytest.raises(ConfigurationError, match="neither a count"):
        choose(text, [0, 1], None)


def test_advice_for_limits_of_the_system() -> None:
    assert advice_for(OSError(errno.EMFILE, "")) == ": raise the limit of open files (ulimit -n)"
    assert "disk" in advice_for(OSError(errno.ENOSPC, ""))
    assert advice_for(OSError(errno.EPERM, "")) == advice_for(ValueError()) == ""


def test_a_directory_that_is_gone_or_not_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(ConfigurationError, match=r"not UTF-8: '.*\\udcff'; rename it, or set"):
        working_directory()
    odd.rmdir()
    with pytest.raises(ConfigurationError, match="the current directory was removed"):
        working_directory()
    monkeypatch.chdir(tmp_path)
    assert working_directory() == tmp_path


def test_numeric_libraries_get_one_thread() -> None:
    environment = machine.one_thread()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert set(environment.values()) == {"1"}


def test_the_heap_is_kept_unless_the_user_tunes_it() -> None:
    assert machine.steady_heap({"PATH": "/bin"}) == machine.MALLOC_VARIABLES
    for variable in ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        assert machine.steady_heap({variable: "1"}) == {}


FREED = """
import resource, sys
from jetmap import machine
if sys.argv[1] == "keep":
    machine.keep_heap()
for _ in range(100):
    [b"x" * 300_000 for _ in range(10)]  # As the buffers of one chunk.
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_a_command_keeps_its_own_heap() -> None:
    """Memory that was freed is not faulted in again."""
    faults = {}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    for tuned in ({}, {"MALLOC_MMAP_THRESHOLD_": "100000"}):
        for how in ("keep", "not"):
            command = [sys.executable, "-c", FREED, how]
            found = subprocess.check_output(command, env=environment | tuned)
            faults[how, bool(tuned)] = int(found)
    chunk = 3_000_000 // mmap.PAGESIZE
    assert faults["keep", False] < faults["not", False] - 50 * chunk
    assert abs(faults["keep", True] - faults["not", True]) < chunk  # The user's own are kept.


def test_signals_that_the_starter_blocked_or_ignored_are_as_usual() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        machine.usual_signals()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGCHLD, before)


def test_a_process_may_need_more_files_than_it_can_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open() as free:
        used = free.fileno()
    machine.require_descriptors(8)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            machine.require_descriptors(8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with Path(os.devnull).open() as free:
        assert free.fileno() == used  # All were closed again.
