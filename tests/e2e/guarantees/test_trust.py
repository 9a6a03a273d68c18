"""``--trust-pickle``: functions that no worker offers, brought by their caller; or not."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path

import msgspec
import pytest

import failing_functions
import functions
import typed_functions
from by_value_script import SCRIPT
from failing_functions import Differing, Plain, Refusing
from jetmap import Cluster, ItemRaised, UnknownFunction
from jetmap.client.call import Call
from jetmap.dispatch.map_spec import MapSpec
from jetmap.functions.task import find
from jetmap.wire.messages import FunctionRef
from processes import run_python
from servers import AgentProcess, Site, outcomes, presence

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def cluster(home: Site) -> Cluster:
    """A cluster with a worker that does not trust its callers."""
    cluster = await home.cluster()
    await home.agent(cluster, functions.__file__, cores=1)
    return cluster


@pytest.fixture(scope="module")
async def trusting(home: Site, cluster: Cluster) -> AgentProcess:
    return await home.agent(cluster, functions.__file__, "--trust-pickle", cores=1)


async def test_a_worker_that_was_not_told_to(place: Site, own: Cluster, tmp_path: Path) -> None:
    cluster = own
    await place.agent(cluster, functions.__file__, cores=1)
    assert not cluster.workers[0].trusts

    with pytest.raises(UnknownFunction):
        await cluster.map(typed_functions.root, [1])
    # Nor does it look at what a caller sends all the same.
    touched = tmp_path / "touched"
    evil = FunctionRef("__main__", "is_prime", value=pickle.dumps(_Touch(str(touched))), digest="e")
    call = Call.of(functions.is_prime, None)
    run = await cluster._session.dispatcher.open(
        MapSpec(function="is_prime", format="msgpack", ref=evil),
        call.source([7, 8], keep=False, max_item=1000),
    )
    batches = sorted([batch async for batch in run], key=lambda batch: batch.start)
    assert [v for b in batches for v in msgspec.msgpack.decode(b.values)] == [True, False]
    assert not touched.exists()


async def test_a_script_brings_its_function(
    home: Site, cluster: Cluster, trusting: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = presence(cluster, trusting)
    assert before is not None and before.trusts
    monkeypatch.setenv("JETMAP_NATS_URL", home.server.url)
    elsewhere = home.place / "elsewhere"  # Where no worker looks.
    elsewhere.mkdir()
    for _ in range(2):
        done = await asyncio.to_thread(run_python, SCRIPT, cwd=elsewhere)
        assert (done.returncode, done.stderr) == (0, "")
        values, primes, names = json.loads(done.stdout)
        # What is offered by name stays what it was, for everyone.
        assert (values, primes) == ([4, 7], [True, False])
        assert "is_prime" in names and "times" not in names
    await home.workers(cluster)
    after = presence(cluster, trusting)
    assert after is not None and (after.offer, after.version, after.rank) == (
        before.offer,
        before.version,
        before.rank,
    )
    assert after.functions == before.functions
    assert await cluster.map(functions.is_prime, [7]) == [True]
    await home.until_ready(cluster, trusting)


async def test_a_module_that_workers_have(cluster: Cluster, trusting: AgentProcess) -> None:
    ref = cluster._session.reference(find(typed_functions.root))
    assert ref is not None and (ref.module, ref.value) == ("typed_functions", None)
    assert await cluster.map(typed_functions.root, [4, 9]) == [2.0, 3.0]


async def test_both_in_one_pool(cluster: Cluster, trusting: AgentProcess) -> None:
    """Functions that a caller sends reach only workers that accept them."""
    assert len({p.offer for p in cluster.workers}) == 2
    found = await outcomes(cluster.stream(typed_functions.root, [n * n for n in range(200)]))
    assert [outcome.value for outcome in found] == list(range(200))


class _Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return open, (self._path, "w")


async def test_callers_load_pickles_by_their_own_choice_only(place: Site) -> None:
    """An agent that trusts its callers does not make them trust it."""
    careful = await place.cluster()
    await place.agent(careful, failing_functions.__file__, "--trust-pickle", cores=1)
    assert careful.workers[0].trusts and not careful.trusts
    failing_functions.REFUSED.clear()
    names = ["plain", "refusing", "differing"]
    trusting = await place.cluster(trust_pickle=True)
    for cluster, expected in (
        (careful, [ValueError, ValueError, KeyError]),
        (trusting, [Plain, Refusing, Differing]),
    ):
        values = await cluster.map(failing_functions.fail, names, return_exceptions=True)
        causes = [error.__cause__ for error in values if isinstance(error, ItemRaised)]
        assert [type(cause) for cause in causes] == expected
        assert bool(failing_functions.REFUSED) is (cluster is trusting)
