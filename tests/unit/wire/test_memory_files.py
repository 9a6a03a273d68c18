"""Files without a name: written once, shared with other processes, gone with the last of them."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path

import msgspec
import pytest

from jetmap.wire import memory_files
from jetmap.wire.memory_files import MemoryFile

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")


def written(data: bytes) -> MemoryFile:
    file = MemoryFile.create(len(data))
    file.write(0, data[:3])
    file.write(3, memoryview(data)[3:])
    file.seal()
    return file


def other(file: MemoryFile) -> MemoryFile:
    """The same file, as another process opens it."""
    return MemoryFile.open(file.place, file.size)


def test_a_file_is_read_by_others_and_outlives_who_wrote_it() -> None:
    file = written(b"abcdefgh")
    there = other(file)
    file.close()
    assert bytes(there.view()) == b"abcdefgh"
    view = there.view()[2:4]
    there.close()
    assert bytes(view) == b"cd", "the mapping stays for as long as it is used"


def test_an_empty_file_can_be_read() -> None:
    assert bytes(written(b"").view()) == b""


@linux
def test_nobody_writes_to_a_sealed_file() -> None:
    file = written(b"abcd")
    assert file.view().readonly
    with pytest.raises(OSError, match="not permitted"):
        file.write(0, b"x")
    with pytest.raises(OSError, match="not permitted"):
        os.truncate(file._fd, 1)


@pytest.mark.parametrize("change", [{"inode": 1}, {"device": 0}])
def test_a_number_that_is_another_file_by_now_is_refused(change: dict[str, int]) -> None:
    file = written(b"abcd")
    with pytest.raises(ValueError, match="by now"):
        MemoryFile.open(msgspec.structs.replace(file.place, **change), file.size)
    with pytest.raises(ValueError, match="by now"):
        MemoryFile.open(file.place, 3)


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(memory_files, "free_memory", lambda: 10)
    monkeypatch.setattr(memory_files, "temporary_directory", lambda: str(tmp_path))
    return tmp_path


def test_a_file_is_on_disk_where_memory_is_short(short_of_memory: Path) -> None:
    file = written(b"a" * 5_000)
    assert bytes(other(file).view()) == b"a" * 5_000
    assert (os.fstat(file._fd).st_dev) == short_of_memory.stat().st_dev
    assert sys.platform != "linux" or not list(short_of_memory.iterdir()), "it has no name"
    file.close()
    assert not list(short_of_memory.iterdir())


def test_a_file_has_a_name_where_there_is_no_proc(
    short_of_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_files, "_HAS_PROC", False)
    file = written(b"a" * 5_000)
    assert bytes(other(file).view()) == b"a" * 5_000 and file.place.path
    file.close()
    assert not list(short_of_memory.iterdir())


@linux
def test_no_other_file_of_the_user_is_opened(tmp_path: Path) -> None:
    """Places come over the network."""
    other_file = tmp_path / "jetmap-secret"
    other_file.write_bytes(b"abcd")
    with other_file.open("rb") as opened:
        found = os.fstat(opened.fileno())
        mine = written(b"abcd").place
        place = msgspec.structs.replace(
            mine, fd=opened.fileno(), device=found.st_dev, inode=found.st_ino
        )
        with pytest.raises(PermissionError, match="another kind of file"):
            MemoryFile.open(place, 4)


@linux
def test_memory_that_is_promised_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_files, "free_memory", lambda: 10_000)
    monkeypatch.setattr(memory_files, "_disk_room", lambda: 0)
    before = MemoryFile.unwritten
    first = MemoryFile.create(8_000)
    with pytest.raises(OSError, match="neither memory"):
        MemoryFile.create(8_000)
    first.write(0, bytes(5_000))
    assert MemoryFile.unwritten - before == 3_000 and memory_files.room() == 6_000 - before
    first.close()
    assert MemoryFile.unwritten == before
    second = MemoryFile.create(8_000)
    second.write(0, bytes(8_000))
    second.seal()
    assert MemoryFile.unwritten == before


@pytest.mark.parametrize(("size", "shown"), [(0, 0), (15, 15), (99, 96), (1_000_000, 983_040)])
def test_small_changes_of_the_room_do_not_show(size: int, shown: int) -> None:
    assert memory_files.coarse(size) == shown


def test_a_host_without_room_says_so(
    short_of_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_files, "_disk_room", lambda: 100)
    assert memory_files.room() == 100
    with pytest.raises(OSError) as caught:
        MemoryFile.create(101)
    assert caught.value.errno == errno.ENOSPC
    MemoryFile.create(100).close()


def test_a_forked_child_leaves_the_name_of_a_file_to_its_parent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_files, "_HAS_PROC", False)
    monkeypatch.setattr(memory_files, "temporary_directory", lambda: tmp_path)
    file = MemoryFile.create(10)
    (path,) = tmp_path.iterdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside other threads.
        child = os.fork()
    if not child:
        file.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert path.exists()
    file.close()
    assert not path.exists()
