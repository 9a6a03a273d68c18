"""Fixtures for what holds with either broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from brokers import Brokers, opened
from jetmap.nats.broker import Broker


@pytest.fixture(params=["nats-server", "memory"])
async def brokers(request: pytest.FixtureRequest) -> AsyncIterator[Brokers]:
    """A broker of each kind."""
    async with opened(request.param) as there:
        yield there


@pytest.fixture
async def c(brokers: Brokers) -> Broker:
    """A connection to a broker of each kind."""
    return await brokers.connect()
