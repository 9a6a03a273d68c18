"""Fixtures that tests of more than one file use.

Servers and agents: ``place`` is a site of the test's own, ``home`` one that the tests of a module
share and hurt no more than its workers; ``wide`` one that other hosts reach, which ``net`` makes.
Embedded clusters: ``shared`` and ``inline``. The command line: ``house`` and ``shared_up``.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from house import House, Up
from hypotheses import use_share
from imported import reachable
from jetmap import Cluster
from jetmap.functions import task as task_module
from net import Net, reason_to_skip
from processes import marked, nothing_left
from servers import CORES, FUNCTIONS, AgentProcess, Site, site
from tools import skip_or_fail
from waiting import wait_until

pytest_plugins = ["at_once"]

# Where pytest's processes are started without a file, as by xdist, they look like a notebook, and
# a notebook shares no keeper.
_main = sys.modules["__main__"]
if not hasattr(_main, "__file__"):
    _main.__file__ = __file__

use_share()

# A program that is started in the background of a script ignores Ctrl-C, and so does whatever it
# starts. Tests send it to programs that are not ours and do not change that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Under nohup, all of them would ignore a terminal that closes.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests first: those take long, and whoever runs one last runs it alone."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is imported and collected: a test that collects
    looks at its own objects only, not for seconds at those of all tests."""
    gc.collect()
    gc.freeze()


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Change back what a test leaves behind for the others and for the programs that they start.

    A command that runs in this process ends with its signals ignored and another log level, and
    hypothesis may leave a higher limit of recursion.
    """
    limit, directory = sys.getrecursionlimit(), Path.cwd()
    level = logging.getLogger().level
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    sys.setrecursionlimit(limit)
    logging.getLogger().setLevel(level)
    os.chdir(directory)
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.fixture(scope="module", autouse=True)
def its_functions(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave only the functions that this process would have if it ran this file alone.

    The workers of an embedded cluster import the modules of all functions that its user has.
    """
    every = task_module._names
    with_it = reachable(sys.modules[__name__], request.module)
    known = {name: found for name, found in every.items() if found.module in with_it}
    with patch.object(task_module, "_names", known):
        yield
    for name, function in known.items():
        every.setdefault(name, function)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory with a short path: a long one is not used, and the user's own one is."""
    with tempfile.TemporaryDirectory(prefix="jm-", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


# Servers and agents


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    """A site of the test's own."""
    async with site(tmp_path) as there:
        yield there


@pytest.fixture
async def own(place: Site) -> Cluster:
    """A cluster at ``place``."""
    return await place.cluster()


@pytest.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One for tests that hurt no more than workers."""
    async with site(tmp_path_factory.mktemp("home")) as there:
        yield there


@pytest.fixture(scope="module")
async def home_cluster(home: Site) -> Cluster:
    return await home.cluster()


@pytest.fixture(scope="module")
async def home_agent(home: Site, home_cluster: Cluster) -> AgentProcess:
    # Once for each function, an item that hangs has this on top of its timeout.
    return await home.agent(home_cluster, FUNCTIONS, "--start-timeout", "8")


@pytest.fixture
async def agent(
    home: Site, home_cluster: Cluster, home_agent: AgentProcess
) -> AsyncIterator[AgentProcess]:
    """The agent at home; afterwards there must be it and its workers, and nothing else."""
    await home.until_ready(home_cluster, home_agent)
    yield home_agent
    await home.until_ready(home_cluster, home_agent)
    await home.until_busy(home_cluster, 0)
    its_own = {home.server.pid, home_agent.pid}

    def nothing_else() -> bool:
        return {p.pid for p in marked(home.mark)} == its_own | {w.pid for w in home_agent.workers}

    await wait_until(nothing_else, "nothing else is left")
    assert len(home_agent.workers) == CORES and home_cluster.stats.maps_open == 0


# Hosts with a network of their own


@pytest.fixture(scope="session")
def net_ability() -> None:
    if reason := reason_to_skip():
        skip_or_fail(reason)


@pytest.fixture
def net(net_ability: None) -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.fixture
async def wide(net: Net, tmp_path: Path) -> AsyncIterator[Site]:
    """A server that other hosts reach."""
    async with site(tmp_path, host=net.address) as there:
        yield there


# Embedded clusters


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """The mark of the module's embedded clusters."""
    with nothing_left() as mark:
        yield mark


@pytest.fixture(scope="module")
async def shared(mark: str) -> AsyncIterator[Cluster]:
    """An embedded cluster that the tests of a module share."""
    async with Cluster(tasks=FUNCTIONS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def inline() -> AsyncIterator[Cluster]:
    async with Cluster(inline=True) as cluster:
        yield cluster


@pytest.fixture(params=["embedded", "inline"])
def cluster(request: pytest.FixtureRequest, shared: Cluster, inline: Cluster) -> Cluster:
    """Both: inline gives the same as the cluster."""
    return shared if request.param == "embedded" else inline


# The command line


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An ``up`` that tests use and do not harm."""
    made = House(tmp_path_factory.mktemp("shared"))
    try:
        yield made.up()
    finally:
        made.close()
