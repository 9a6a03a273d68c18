"""Arguments of ``Cluster`` beat variables and file; the rest comes from these."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap import Cluster
from jetmap.embedded.keeper_messages import KeeperSpec
from jetmap.embedded.membership import _key
from jetmap.settings import Settings
from processes import nothing_left, run_python
from waiting import PATIENCE

SLOW = "import time\ntime.sleep(600)  # An import that takes long.\n"
USER = """
from jetmap import Cluster
if __name__ == "__main__":
    with Cluster(tasks="slow.py", cores=1, start_timeout=30).sync:
        pass
"""


def test_start_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.setenv("JETMAP_START_TIMEOUT", "40")
    with nothing_left():
        done = run_python(USER, cwd=tmp_path, timeout=PATIENCE)
    assert "WorkerStartFailed: no worker was ready after 30 s" in done.stderr


def test_a_default_that_is_given_beats_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_POOL", "other")
    monkeypatch.setenv("JETMAP_START_TIMEOUT", "7")
    assert Cluster().settings.broker.pool == "other"
    assert Cluster(pool="default").settings.broker.pool == "default"
    assert Cluster().settings.workers.start_timeout == 7
    assert Cluster(start_timeout=60).settings.workers.start_timeout == 60
    assert Cluster(settings=Settings.load()).settings.workers.start_timeout == 7
    assert Cluster(settings=Settings.load(), start_timeout=60).settings.workers.start_timeout == 60


CHANGING = """
import time
from pathlib import Path
from jetmap import Cluster
file = Path("changing.py")
source = "from jetmap import task\\n@task\\ndef f(n: int) -> int:\\n    return {}\\n"
file.write_text(source.format(1))
if __name__ == "__main__":
    with Cluster(tasks="changing.py", cores=1).sync as cluster:
        assert cluster.map("f", [7]) == [1]
        file.write_text(source.format(2) + "# changed")
        deadline = time.monotonic() + 120
        while cluster.map("f", [7]) != [2] and time.monotonic() < deadline:
            time.sleep(0.1)  # Until the workers are new ones.
"""


@pytest.mark.slow
def test_the_keeper_logs_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_LOG_LEVEL", "info")
    with nothing_left():
        said = run_python(CHANGING, cwd=tmp_path).stderr
    assert "jetmap keeper: INFO: " in said and "the workers are replaced" in said


def test_users_that_log_differently_share_a_keeper() -> None:
    keys = {_key(KeeperSpec(settings={"log_level": level}), "/") for level in ("debug", "error")}
    assert keys == {_key(KeeperSpec(), "/")}
    assert _key(KeeperSpec(settings={"grace": 1.0}), "/") not in keys


def test_other_work_has_another_keeper() -> None:
    specs = [
        KeeperSpec(),
        KeeperSpec(tasks=["a.py"]),
        KeeperSpec(pool="other"),
        KeeperSpec(cores=1),
        KeeperSpec(settings={"nice": 1}),
    ]
    assert len({_key(spec, "/") for spec in specs} | {_key(KeeperSpec(), "/elsewhere")}) == 6
