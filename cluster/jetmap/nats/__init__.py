"""The broker: nats-py behind a protocol of ours, JetStream's API, nats-server as a child."""

from .deferred import defer

defer()
