"""Values that are put: their limit, and hosts that have no room for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from announcements import presence
from jetmap import Cluster, HostsFull, TooLarge
from jetmap.client import putting
from jetmap.client.putting import check_protocol, check_room, open_large
from jetmap.dispatch.constants import KeptConstants
from jetmap.dispatch.map_spec import MapSpec
from jetmap.settings import Settings
from jetmap.wire.constants import unpack_kwargs
from jetmap.wire.memory_files import MemoryFile
from jetmap.wire.presence import Presence
from jetmap.wire.protocol import CONSTANTS_PROTOCOL

pytestmark = pytest.mark.anyio


def hosts(*rooms: int, machine: str = "elsewhere") -> list[Presence]:
    return [presence(host=f"h{room}", room=room, machine=machine) for room in rooms]


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ([], ""),
        (hosts(50, 100), ""),
        (hosts(50, -1), ""),
        (hosts(50, machine="here"), ""),
        (hosts(50, 99), r"no host has room for the value's 100 bytes.*h50: 50, h99: 99 bytes free"),
    ],
)
def test_a_value_needs_one_host_with_room(
    agents: list[Presence], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(putting, "boot_id", lambda: "here")
    if not message:
        check_room(100, agents)
        return
    with pytest.raises(HostsFull, match=message) as caught:
        check_room(100, agents)
    assert (caught.value.size, caught.value.room) == (100, 99)


def test_hosts_of_an_earlier_release_are_refused_by_name() -> None:
    known = presence(host="new", offer="o1", protocol=CONSTANTS_PROTOCOL)
    check_protocol([known])
    with pytest.raises(TypeError, match="host old runs an earlier release"):
        check_protocol([known, presence(host="old", offer="o2", protocol=4)])


async def test_a_value_over_the_limit_is_refused() -> None:
    async with Cluster(inline=True, settings=Settings(max_put_bytes=1_000)) as cluster:
        (await cluster.put(bytes(800))).close()
        with pytest.raises(TooLarge, match=r"the limit is 1,000 \(setting max_put_bytes\)"):
            await cluster.put(bytes(1_001))


async def test_a_value_that_this_host_has_no_room_for_is_refused(
    inline: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(size: int) -> MemoryFile:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(putting.MemoryFile, "create", create)
    with pytest.raises(HostsFull, match=r"this host has no room .*No space left"):
        await inline.put(1)


class Dispatcher:
    """A dispatcher of agents with these protocols; it notes what is opened."""

    def __init__(self, *protocols: int) -> None:
        self.constants = KeptConstants(None, "")
        agents = [presence(f"a{n}", protocol=protocol) for n, protocol in enumerate(protocols)]
        self.roster = SimpleNamespace(agents=agents)
        self.opened: list[MapSpec] = []
        self.content = b""

    async def open(self, spec: MapSpec, source: Any) -> None:
        self.opened.append(spec)
        for digest in spec.constants:
            self.content = bytes(self.constants.view(digest))


async def test_large_keyword_parameters_are_a_constant_of_their_map() -> None:
    dispatcher: Any = Dispatcher(CONSTANTS_PROTOCOL)
    spec = MapSpec(function="f", format="msgpack", kwargs=b"k" * 200_000)
    await open_large(dispatcher, spec, None, 1 << 20)  # type: ignore[arg-type]
    (opened,) = dispatcher.opened
    found = unpack_kwargs(opened.kwargs)
    assert found.rest == b"" and tuple(c.digest for c in found.constants.values()) == (
        opened.constants
    )
    assert dispatcher.content.endswith(b"k" * 200_000)
    assert opened.constants[0] in dispatcher.constants, "the next call may have the same"
    await dispatcher.constants.close()
    with pytest.raises(TooLarge, match="max_put_bytes"):
        await open_large(dispatcher, spec, None, 100_000)  # type: ignore[arg-type]


async def test_they_stay_in_the_chunks_where_a_host_does_not_know_constants() -> None:
    dispatcher: Any = Dispatcher(CONSTANTS_PROTOCOL, CONSTANTS_PROTOCOL - 1)
    spec = MapSpec(function="f", format="msgpack", kwargs=b"k" * 200_000)
    await open_large(dispatcher, spec, None, 1 << 20)  # type: ignore[arg-type]
    assert dispatcher.opened == [spec]


@pytest.mark.parametrize("value", [(n for n in ()), lambda: (yield)()], ids=["generator", "frame"])
async def test_a_value_that_cannot_travel_is_refused(inline: Cluster, value: Any) -> None:
    import threading

    with pytest.raises(TypeError, match="the value cannot be put"):
        await inline.put([value, threading.Lock()])
