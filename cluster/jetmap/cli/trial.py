"""Trying whether an account may make what jetmap needs, without leaving anything behind."""

from __future__ import annotations

from typing import Any

from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker
from jetmap.nats.errors import Forbidden, JetStreamError, advised
from jetmap.nats.provision import STREAM_NOT_FOUND, Wish, described, make
from jetmap.wire import subjects
from jetmap.wire.pool_streams import consumer_config


async def is_there(c: Broker, name: str) -> dict[str, Any] | None:
    """A stream's configuration, or None if there is no such stream."""
    try:
        found: dict[str, Any] = (await c.api(f"STREAM.INFO.{name}"))["config"]
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return None
    return found


async def try_stream(c: Broker, wish: Wish, *, consumers: int = 0) -> str | None:
    """Make a stream like this one under another name, and consumers of it, and remove it.

    Returns how it was made; None where this account may not remove the trial, so that nothing
    was made. Raises JetStreamError, with advice, if JetStream refuses.
    """
    name = f"JETMAP_CHECK_{subjects.new_id().replace('.', '_')}"
    if not await _may_remove(c, name):
        return None
    subject = f"jetmap.check.{name}"
    config = {key: value for key, value in wish.config.items() if key != "republish"}
    trial = Wish(
        config | {"name": name, "subjects": [f"{subject}.*"]},
        wish.copies,
        wish.places,
        wish.setting,
    )
    try:
        info = await make(c, name, trial, wait_for_peers=False)
        for number in range(consumers):
            request = consumer_config(name, f"check-{number}", f"{subject}.{number}")
            await c.api(f"CONSUMER.CREATE.{name}.check-{number}", request)
    except JetStreamError as error:
        raise error if error.advice else advised(error, f"a consumer of stream {name}") from error
    finally:
        await _remove(c, name)
    return described(str(wish.config["name"]), info["config"])


async def _may_remove(c: Broker, name: str) -> bool:
    try:
        await c.api(f"STREAM.DELETE.{name}")
    except Forbidden:
        return False
    except JetStreamError as error:
        return error.err_code == STREAM_NOT_FOUND
    return True


async def _remove(c: Broker, name: str) -> None:
    try:
        await c.api(f"STREAM.DELETE.{name}")
    except JetmapError:
        pass  # It was not made, or what went wrong is being raised.
