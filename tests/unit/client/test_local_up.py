"""The `jetmap up` of this directory: whether a cluster joins it, and what its workers run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import functions
from house import registered
from jetmap import Cluster, NotImportable
from jetmap.agent.code import Code
from jetmap.client.local_up import LocalUp, changed_files, is_offered, up_to_join
from jetmap.embedded.running import Running
from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.functions.source_files import file_digest
from jetmap.functions.task import find
from jetmap.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.py").touch()
    return tmp_path


@pytest.fixture
def up(place: Path) -> Iterator[Running]:
    registration = registered(place, tasks=["tasks.py"], pool="p", cores="2")
    yield registration.running
    registration.close()


def test_which_clusters_join(up: Running, caplog: pytest.LogCaptureFixture) -> None:
    for options in ({}, {"tasks": ["tasks.py"]}, {"tasks": ["./tasks.py"]}, {"tasks": ["tasks"]}):
        assert up_to_join(Settings.load(**options)) == up, options
    assert up_to_join(Settings.load(pool="p"), cores=2) == up
    assert not caplog.records
    assert up_to_join(Settings.load(join_up=False)) is None
    assert up_to_join(Settings.load(pool="another")) is None
    assert not caplog.records
    # These say why.
    assert up_to_join(Settings.load(tasks=["other.py", "tasks.py"])) is None
    assert "without other.py" in caplog.text
    assert up_to_join(Settings.load(), cores=1) is None
    assert "other cores (2, not 1)" in caplog.text


def test_one_of_another_version_is_an_error(place: Path) -> None:
    for more in ({"version": "0.0.1"}, {"key": "", "version": ""}):
        registration = registered(place, **more)
        with pytest.raises(ConfigurationError, match="restart it"):
            up_to_join(Settings.load())
        registration.close()
    assert up_to_join(Settings.load()) is None


async def test_one_of_another_python_runs_only_what_it_offers(place: Path) -> None:
    registration = registered(place, python="Python 3.1 in /elsewhere")
    with pytest.raises(NotImportable, match=r"Python 3\.1 in /elsewhere, not with Python"):
        await LocalUp(registration.running, 1.0).reference(find(functions.is_prime), session())
    registration.close()


def code_of(path: Path, **functions: str) -> Code:
    return Code(functions, {str(path): file_digest(str(path)) or ""})


def test_a_function_is_offered_from_its_own_file_only(tmp_path: Path) -> None:
    function = find(functions.is_prime)
    assert function is not None and function.file is not None
    code = code_of(Path(function.file), is_prime=function.module)
    assert is_offered(function, code)
    assert not is_offered(function, None)
    assert not is_offered(function, Code({"is_prime": "another"}, code.files))
    assert not is_offered(function, Code(code.functions, {str(tmp_path / "functions.py"): ""}))


def test_changed_files(tmp_path: Path) -> None:
    file = tmp_path / "tasks.py"
    file.write_text("n = 1\n")
    code = code_of(file)
    assert changed_files(None) == changed_files(code) == []
    file.write_text("n = 2\n")
    assert changed_files(code) == [str(file)]


@pytest.mark.parametrize("reload", [False, True])
async def test_older_code_is_not_run(place: Path, reload: bool) -> None:
    registration = registered(place, tasks=["tasks.py"], reload=reload)
    running = registration.running
    running.code_file.write_bytes(msgspec.json.encode(code_of(place / "tasks.py")))
    (place / "tasks.py").write_text("changed = True\n")
    local = LocalUp(running, 0.01)
    how = "still starting after 0.01 s" if reload else r"restart it \(jetmap up tasks.py\)"
    with pytest.raises(NotImportable, match=f"runs older code: tasks.py changed.*{how}"):
        await local.reference(find(functions.is_prime), session())
    registration.close()


async def test_jobs_need_a_function_that_is_offered(place: Path) -> None:
    registration = registered(place, tasks=["tasks.py"])
    local = LocalUp(registration.running, 1.0)
    with pytest.raises(NotImportable, match=r"a job outlives .*jetmap up tasks.py .*functions.py"):
        await local.require_offered(find(functions.is_prime), session())
    registration.close()


async def test_an_ended_one_says_how_to_go_on(place: Path) -> None:
    registration = registered(place, tasks=["tasks.py"])
    registration.close()
    local = LocalUp(registration.running, 1.0)
    with pytest.raises(BrokerUnreachable, match=r"has ended: start it again there \(jetmap up tas"):
        await local.reference(find(functions.is_prime), session(connected=False))


def session(*, connected: bool = True) -> Any:
    connection = type("Connection", (), {"connected": connected, "room": 1000})
    return type("Session", (), {"connection": connection})


def test_inline_and_an_address_do_not_look_for_one(
    up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("it looked for an `up`")

    monkeypatch.setattr("jetmap.client.session.up_to_join", never)
    with Cluster(inline=True).sync as cluster:
        assert cluster.map(functions.is_prime, [7]) == [True]

    async def away(*arguments: Any, **more: Any) -> None:
        raise BrokerUnreachable("nobody is there")

    monkeypatch.setattr("jetmap.nats.connection.Connection.open", away)
    with pytest.raises(BrokerUnreachable, match="nobody is there"):
        Cluster("nats://127.0.0.1:1").sync.__enter__()
    monkeypatch.setenv("JETMAP_NATS_URL", "nats://127.0.0.1:1")
    with pytest.raises(BrokerUnreachable, match="nobody is there"):
        Cluster().sync.__enter__()
