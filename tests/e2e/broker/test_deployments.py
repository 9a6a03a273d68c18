"""NATS servers as people deploy them: jetmap works there, or says what to do.

Where it does not work, ``jetmap check`` says the same as the worker, and ends with the same code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nkeys
import pytest

import functions
from deployments import JETSTREAM, Deployment, Servers, credentials, deployed, jwt, key, settings
from house import House
from jetmap.cli import check
from jetmap.cli.exits import Exit, code_of
from jetmap.errors import ConfigurationError, JetmapError, JobsUnavailable
from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection
from jetmap.settings import Settings
from jetmap.wire import pool_streams
from nodes import free_ports
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

MiB = 2**20


@pytest.fixture
def servers() -> Iterator[Servers]:
    with deployed() as found:
        yield found


# Where it works


@pytest.mark.parametrize(
    ("config", "made"),
    [
        ('jetstream { store_dir: "STORE", max_mem: 300MB }', ("memory", 256 * MiB)),
        ('jetstream { store_dir: "STORE", max_mem: 0 }', ("file", 64 * MiB)),
    ],
    ids=["little-memory", "no-memory"],
)  # fmt: skip
async def test_a_single_server(servers: Servers, config: str, made: tuple[str, int] | None) -> None:
    url = servers.start(config)
    async with Deployment(settings(url)) as there:
        await there.maps()
        stream = await there.stream()
        assert stream["num_replicas"] == 1
        assert (stream["storage"], stream["max_bytes"]) == made
        await there.runs_jobs()


@pytest.mark.parametrize(
    "limits",
    [
        "memory_max_stream_bytes: 20MB, disk_max_stream_bytes: 100MB, max_bytes_required: true",
        "max_streams: 5, max_consumers: 2",
    ],
)
async def test_an_account_with_limits(servers: Servers, limits: str) -> None:
    url = servers.start(
        f"{JETSTREAM}\naccounts {{ A {{ users: [ {{ user: u, password: p }} ], "
        f"jetstream: {{ {limits} }} }} }}"
    )
    auth: dict[str, Any] = {"nats_user": "u", "nats_password": "p"}
    async with Deployment(settings(url, **auth)) as there:
        await there.maps()
        await there.runs_jobs()


@pytest.mark.slow
async def test_three_servers_hold_three_copies(servers: Servers) -> None:
    urls = servers.cluster(3)
    async with Deployment(settings(",".join(urls))) as there:
        await there.maps()
        await there.runs_jobs()
        for name in ("WORK", "JOBS", "INPUT", "OUTCOMES"):
            assert (await there.stream(f"JETMAP_{name}_default"))["num_replicas"] == 3


@pytest.mark.slow
async def test_a_leaf_node_with_a_jetstream_of_its_own(servers: Servers) -> None:
    """It says that it is of a cluster, as one of its name is; and cannot hold three copies."""
    leafs = free_ports(1)[0]
    servers.start(f"leafnodes {{ listen: '127.0.0.1:{leafs}' }}")
    remotes = f"remotes: [ {{ url: 'nats-leaf://127.0.0.1:{leafs}' }} ]"
    url = servers.start(f"{JETSTREAM}\nleafnodes {{ {remotes} }}")
    async with Deployment(settings(url)) as there:
        assert there.connection.clustered
        await there.maps()
        assert (await there.stream())["num_replicas"] == 1
        await there.runs_jobs()


@pytest.mark.parametrize("leaf_has_jetstream", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_workers_behind_a_leaf_node(servers: Servers, leaf_has_jetstream: bool) -> None:
    """The gateway is at the hub; and the other way round."""
    leafs = free_ports(1)[0]
    hub = servers.start(
        'jetstream { store_dir: "STORE", domain: hub }\n'
        f"leafnodes {{ listen: '127.0.0.1:{leafs}' }}"
    )
    own = 'jetstream { store_dir: "STORE", domain: edge }' if leaf_has_jetstream else ""
    leaf = servers.start(
        f"{own}\nleafnodes {{ remotes: [ {{ url: 'nats-leaf://127.0.0.1:{leafs}' }} ] }}"
    )
    behind, at_hub = settings(leaf, nats_js_domain="hub"), settings(hub)
    async with Deployment(behind, at_hub) as there:
        await there.maps()
        await there.runs_jobs()
    async with Deployment(at_hub, behind) as there:
        await there.maps()
        await there.runs_jobs()


@pytest.mark.parametrize("kib", [pytest.param(64, marks=pytest.mark.slow), 32])
async def test_small_messages(servers: Servers, kib: int) -> None:
    url = servers.start(f"{JETSTREAM}\nmax_payload: {kib * 1024}")
    async with Deployment(settings(url)) as there:
        await there.maps()
        sizes = [kib * 100, 10, kib * 2000, 20] * 5
        texts = ["x" * size for size in sizes]
        assert await there.cluster.map(functions.measure, texts) == sizes
        assert await (await there.cluster.submit(functions.measure, texts)) == sizes
        values = await (await there.cluster.submit(functions.zeros, sizes))
        assert [len(value) for value in values] == sizes
        values = await (await there.cluster.submit(functions.zeros, [kib * 200] * 20))
        assert [len(value) for value in values] == [kib * 200] * 20


# Who we are

CONNECTS: dict[str, Any] = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
    "wildcards": True,
}


async def test_an_nkey(servers: Servers, tmp_path: Path) -> None:
    seed, public = key(nkeys.PREFIX_BYTE_USER)
    file = private(tmp_path / "user.nk", f"# a comment\n{seed}\n")
    url = servers.start(f"{JETSTREAM}\nauthorization {{ users: [ {{ nkey: {public} }} ] }}")
    async with Deployment(settings(url, nats_nkey_file=str(file))) as there:
        await there.maps()


async def test_credentials(servers: Servers, tmp_path: Path) -> None:
    operator, operator_key = key(nkeys.PREFIX_BYTE_OPERATOR)
    account, account_key = key(nkeys.PREFIX_BYTE_ACCOUNT)
    user, user_key = key(nkeys.PREFIX_BYTE_USER)
    everything = CONNECTS | dict.fromkeys(
        ("mem_storage", "disk_storage", "streams", "consumer"), -1
    )
    its_operator = jwt(operator, operator_key, "O", {"type": "operator"})
    its_account = jwt(operator, account_key, "A", {"type": "account", "limits": everything})
    its_user = jwt(account, user_key, "U", {"type": "user", "subs": -1, "data": -1, "payload": -1})
    _, system_key = key(nkeys.PREFIX_BYTE_ACCOUNT)
    system = jwt(operator, system_key, "SYS", {"type": "account", "limits": CONNECTS})
    url = servers.start(
        f"{JETSTREAM}\noperator: {its_operator}\nsystem_account: {system_key}\n"
        f"resolver: MEMORY\nresolver_preload: {{ {account_key}: {its_account}, "
        f"{system_key}: {system} }}"
    )
    file = private(tmp_path / "u.creds", credentials(its_user, user))
    async with Deployment(settings(url, nats_creds=str(file))) as there:
        await there.maps()
        await there.runs_jobs()


def private(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("setting", "text", "said"),
    [
        ("nats_nkey_file", "nothing", "holds no user's nkey seed"),
        ("nats_nkey_file", "SU" + "A" * 56, "is damaged"),
        ("nats_creds", "{seed}", "name it in nats_nkey_file instead"),
        ("nats_creds", "nothing", "lacks the line BEGIN NATS USER JWT"),
        ("nats_creds", "-----BEGIN NATS USER JWT-----\nx\n", "lacks the line BEGIN USER NKEY"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, setting: str, text: str, said: str) -> None:
    seed, _ = key(nkeys.PREFIX_BYTE_USER)
    file = private(tmp_path / "secret", text.format(seed=seed))
    given = settings("nats://127.0.0.1:1", **{setting: str(file)})
    # As a worker connects, and as check looks at the file.
    for look in (
        lambda: asyncio.run(Connection.open(given.broker.servers(), name="w", auth=Auth.of(given))),
        lambda: dict(check.steps(given))["secrets"](),
    ):
        with pytest.raises(ConfigurationError, match=said):
            look()


def test_both_kinds_of_identity(tmp_path: Path) -> None:
    file = private(tmp_path / "f", "x")
    with pytest.raises(ConfigurationError, match="keep one of them"):
        Settings.load(nats_creds=str(file), nats_nkey_file=str(file))
    with pytest.raises(ConfigurationError, match="JetStream domain"):
        Settings.load(nats_js_domain="a.b")


# Where it does not work


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        ("", {}, "JetStream does not answer at"),
        (f"{JETSTREAM}\naccounts {{ A {{ users: [ {{ user: u, password: p }} ] }} }}",
         {"nats_user": "u"}, "enable JetStream for this account"),
        (f"{JETSTREAM}\naccounts {{ A {{ users: [ {{ user: u, password: p }} ], "
         "jetstream: { max_mem: 1MB, max_file: 1MB } } }",
         {"nats_user": "u"}, "raise max_memory_store"),
        (JETSTREAM, {"work_replicas": 3}, "set work_replicas to 1"),
        pytest.param(JETSTREAM, {"nats_js_domain": "elsewhere"},
                     "no JetStream of domain 'elsewhere'", marks=pytest.mark.slow),
        (f"{JETSTREAM}\naccounts {{ A {{ users: [ {{ user: u, password: p }} ], "
         "jetstream: { max_streams: 5, max_consumers: 1 } } }",
         {"nats_user": "u"}, "raise its max_consumers"),
    ],
    ids=["disabled", "account", "tiny", "replicas", "domain", "consumers"],
)  # fmt: skip
async def test_check_says_what_the_worker_says(
    servers: Servers, config: str, options: dict[str, Any], said: str
) -> None:
    given = settings(servers.start(config), nats_password="p", **options)
    with pytest.raises(JetmapError) as worker:
        async with Deployment(given) as there:
            await there.maps()
    with pytest.raises(JetmapError) as checked:
        await check.check_broker(given)
    for caught in (worker, checked):
        assert said in str(caught.value)
        assert code_of(caught.value) == Exit.BROKER


@pytest.mark.slow
def test_a_worker_ends_and_check_says_why(servers: Servers, house: House) -> None:
    url = servers.start("")
    said = "JetStream does not answer at"
    for command, where in (("check", "stdout"), ("worker", "stderr")):
        done = house.run(command, "tasks.py", "--nats", url)
        assert done.returncode == Exit.BROKER
        assert said in getattr(done, where)


async def test_an_account_that_may_have_one_stream(servers: Servers, house: House) -> None:
    """Maps work; check says what does not."""
    url = servers.start(
        f"{JETSTREAM}\naccounts {{ A {{ users: [ {{ user: u, password: p }} ], "
        "jetstream: { max_streams: 1 } } }"
    )
    auth: dict[str, Any] = {"nats_user": "u", "nats_password": "p"}
    async with Deployment(settings(url, **auth)) as there:
        await there.maps()
        with pytest.raises(JobsUnavailable, match="raise its max_streams"):
            await there.runs_jobs()
        arguments = ("check", "--nats", url, "--nats-user", "u")
        checked = await asyncio.to_thread(house.run, *arguments, JETMAP_NATS_PASSWORD="p")
    assert checked.returncode == Exit.OK
    assert (
        "maps work, but jobs do not" in checked.stdout and "raise its max_streams" in checked.stdout
    )


async def test_check_leaves_nothing(servers: Servers, house: House) -> None:
    url = servers.start(JETSTREAM)
    done = await asyncio.to_thread(house.run, "check", "tasks.py", "--nats", url)
    assert done.returncode == Exit.OK and "1 copy" in done.stdout
    assert "version 2." in done.stdout
    connection = await Connection.open([url], name="test", timeout=PATIENCE)
    assert (await connection.api("STREAM.NAMES"))["total"] == 0
    await connection.close()


async def test_those_who_race_for_the_last_memory(servers: Servers) -> None:
    """All make the stream at once, and there is room for one: each uses it."""
    url = servers.start('jetstream { store_dir: "STORE", max_mem: 1GB }')
    racing = [await Connection.open([url], name="test", timeout=20) for _ in range(16)]
    epochs = await asyncio.gather(*(pool_streams.ensure_stream(c, "default") for c in racing))
    assert len(set(epochs)) == 1
    info = await racing[0].api("STREAM.INFO.JETMAP_WORK_default")
    assert info["config"]["storage"] == "memory"
    for connection in racing:
        await connection.close()
