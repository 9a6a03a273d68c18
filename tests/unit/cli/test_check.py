"""The checks of `jetmap check` that need no server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from jetmap.cli import check
from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.nats.memory import MemoryBroker
from jetmap.settings import Settings
from jetmap.wire import pool_streams


@pytest.fixture(autouse=True)
def _no_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "running_up", lambda settings: None)


def names(**given: object) -> list[str]:
    return [name for name, _ in check.steps(Settings.of(given))]


def fact(name: str, **given: object) -> object:
    return dict(check.steps(Settings.of(given)))[name]()


def test_each_part_has_its_check() -> None:
    assert names() == ["settings", "secrets", "cores", "gateway", "nats-server"]
    assert names(tasks=["tasks.py"], nats_url="nats://broker:4222")[2:] == [
        "tasks",
        "cores",
        "gateway",
        "broker",
    ]


def test_control_characters_of_a_broker_do_not_act(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    def steps(settings: Settings) -> Iterator[check.Step]:
        yield "one", lambda: check.Findings("fact \x1b[2J", ["doubt \x9b"])

        def fails() -> str:
            raise BrokerUnreachable("away \u202e\nfor long")

        yield "two", fails

    monkeypatch.setattr(check, "steps", steps)
    shown = invoke("check").stdout
    assert "one: fact \\x1b[2J\n" in shown and "one: doubt \\x9b\n" in shown
    assert "two: away \\u202e\nfor long\n" in shown


def test_a_secret_that_others_can_read(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("secret")
    secret.chmod(0o644)
    with pytest.raises(ConfigurationError, match=f"others may read {secret}: chmod 600"):
        fact("secrets", token_file=str(secret))
    secret.chmod(0o600)
    assert fact("secrets", token_file=str(secret)) == "token"
    assert fact("secrets") == "none"


def test_cores_that_this_machine_does_not_have() -> None:
    assert str(fact("cores", cores="1")).startswith("1")
    with pytest.raises(ConfigurationError, match="--cores: "):
        fact("cores", cores="0,4000")


def test_a_gateway_that_others_could_reach() -> None:
    with pytest.raises(ConfigurationError, match="--token-file token"):
        fact("gateway", host="0.0.0.0")
    assert fact("gateway", port=0) == "127.0.0.1:0 is free"


def test_tasks_that_cannot_be_imported(tmp_path: Path) -> None:
    file = tmp_path / "broken_tasks_of_check.py"
    file.write_text("def f(\n")
    with pytest.raises(ConfigurationError, match=r"broken_tasks_of_check\.py:1: '\(' was never"):
        fact("tasks", tasks=[str(file)])


def test_a_server_that_others_could_reach() -> None:
    with pytest.raises(ConfigurationError, match="--nats-password-file nats-password"):
        fact("nats-server", nats_host="0.0.0.0")
    assert str(fact("nats-server", nats_port=0)).endswith("nats-server, embedded")


@pytest.mark.anyio
async def test_shards_are_named_and_those_whose_server_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = MemoryBroker().connect()
    assert await check._shards(connection, Settings()) == ("", [])
    text, _ = await check._shards(connection, Settings(work_shards=2))
    assert text == "; the next worker spreads the chunks over 2 (work_shards)"
    await pool_streams.set_shards(connection, "default", 2)
    assert await check._shards(connection, Settings(work_shards=2)) == (
        ", and 2 shards, which take its chunks",
        [],
    )

    async def config(c: object, name: str) -> None:
        if name.endswith("=2"):
            raise BrokerUnreachable("no answer")

    monkeypatch.setattr(check, "_stream_config", config)
    _, doubts = await check._shards(connection, Settings())
    assert doubts == [
        "the server of stream JETMAP_WORK_default=2 is away; the other shards take its chunks"
    ]
