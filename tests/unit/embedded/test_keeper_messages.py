"""The start message of a keeper, and its notices."""

from __future__ import annotations

import msgspec
import pytest

from jetmap.embedded.keeper_messages import Address, KeeperSpec, KeeperStart, Notice
from jetmap.settings import KEEPER_LOG_LEVEL, Settings


def test_a_spec_becomes_the_settings_of_the_keeper() -> None:
    spec = KeeperSpec(tasks=["t.py"], pool="p", settings={"grace": 3, "log_level": "debug"})
    settings = spec.to_settings()
    assert (settings.broker.pool, settings.workers.grace) == ("p", 3)
    assert list(settings.workers.tasks) == ["t.py"]
    assert spec.log_level == settings.logs.log_level == "debug"


def test_a_keeper_logs_less_than_its_functions_unless_it_is_asked_to() -> None:
    spec = KeeperSpec()
    assert spec.log_level == KEEPER_LOG_LEVEL
    assert spec.to_settings().logs.log_level == Settings().logs.log_level


@pytest.mark.parametrize(
    "notice", [Notice(Address("nats://127.0.0.1:4223", "u", "p", 5)), Notice(None, "no room")]
)
def test_messages_survive_the_way(notice: Notice) -> None:
    assert msgspec.json.decode(msgspec.json.encode(notice), type=Notice) == notice
    start = KeeperStart(KeeperSpec(main="m.py"), "x.lock", 3, 4, ["/a"], "/", notice.address)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(start)), KeeperStart) == start


def test_the_port_is_in_the_address() -> None:
    assert Address("nats://127.0.0.1:4223", "u", "p").port == 4223
