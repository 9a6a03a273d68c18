"""The settings of the broker."""

from __future__ import annotations

from jetmap.settings import BrokerSettings


def test_the_servers_of_a_list() -> None:
    assert BrokerSettings(nats_url="nats://a:1, nats://b:2").servers() == [
        "nats://a:1",
        "nats://b:2",
    ]
    assert BrokerSettings().servers() == []
