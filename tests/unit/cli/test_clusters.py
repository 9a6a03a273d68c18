"""The cluster that a command uses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from jetmap.cli import clusters
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The `up` of this directory that is found; none at first. Pools that were asked for follow."""
    found: list[object] = [None]

    def find(directory: Path, pool: str | None) -> object:
        found.append(pool)
        return found[0]

    monkeypatch.setattr(clusters, "find_running", find)
    return found


def test_the_broker_of_the_settings_comes_first(up: list[object]) -> None:
    settings = Settings.of({"nats_url": "nats://broker:4222"})
    assert clusters.with_broker(settings) is settings
    assert up == [None]


def test_the_running_up_is_found(up: list[object]) -> None:
    up[0] = SimpleNamespace(url="nats://127.0.0.1:1", user="u", password="p", pool="blue")
    settings = clusters.with_broker(Settings.of({}))
    assert (settings.broker.nats_url, settings.broker.pool) == ("nats://127.0.0.1:1", "blue")
    assert settings.broker.read_nats_password() == "p"
    clusters.running_up(Settings.of({"pool": "red"}))
    assert up[1:] == [None, "red"]


def test_without_a_broker_the_next_step_is_named(up: list[object]) -> None:
    with pytest.raises(ConfigurationError, match=r"give --nats URL .* or start `jetmap up TASKS`"):
        clusters.attached(Settings.of({}))
    with pytest.raises(ConfigurationError, match="no `jetmap up` of pool red runs in"):
        clusters.attached(Settings.of({"pool": "red"}))


def test_a_cluster_of_ones_own_joins_nobody(up: list[object]) -> None:
    up[0] = SimpleNamespace(url="nats://127.0.0.1:1", user="u", password="p", pool="blue")
    cluster = clusters.embedded(Settings.of({"nats_url": "nats://broker:4222"}), "tasks.py")
    settings = cluster.settings
    assert settings.broker.nats_url is None and not settings.broker.join_up
    assert settings.workers.tasks == ["tasks.py"]
