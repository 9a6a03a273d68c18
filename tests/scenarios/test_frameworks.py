"""The examples for other web frameworks, each under the server that its first lines name."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from nodes import free_ports
from processes import nothing_left
from tools import skip_or_fail
from waiting import PATIENCE, wait_until_sync

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"^    (gunicorn|uvicorn) (examples\.\w+:app) --workers 4(.*)$", re.MULTILINE)
CURL = re.compile(r"^    curl --json '(.*)' http://127.0.0.1:8000(\S+)$", re.MULTILINE)


SLOW = pytest.mark.slow  # The others do the same as the first, and each takes a few seconds.


@pytest.mark.parametrize(
    "framework",
    ["flask", pytest.param("django", marks=SLOW), pytest.param("litestar", marks=SLOW)],
)
def test_an_example(framework: str, tmp_path: Path) -> None:
    text = (ROOT / "examples" / f"{framework}_app.py").read_text(encoding="utf-8")
    found, curl = COMMAND.search(text), CURL.search(text)
    assert found and curl
    for package in (framework, found[1]):
        if importlib.util.find_spec(package) is None:
            skip_or_fail(f"{package} is not installed")
    port = free_ports(1)[0]
    at = ["--bind", f"127.0.0.1:{port}"] if found[1] == "gunicorn" else ["--port", str(port)]
    log = tmp_path / "log"
    with nothing_left(), log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", found[1], found[2], "--workers", "2", *found[3].split(), *at],
            cwd=ROOT,
            env={**os.environ, "JETMAP_CORES": "1"},
            stdout=output,
            stderr=output,
        )

        def post(body: str) -> httpx.Response:
            url, headers = f"http://127.0.0.1:{port}{curl[2]}", {"Content-Type": "application/json"}
            return httpx.post(url, content=body, headers=headers, timeout=PATIENCE)

        def is_up() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return post(curl[1]).json() == [True, False, False]
            except httpx.TransportError:
                return False

        try:
            wait_until_sync(is_up, f"{framework} answers")
            assert [post(f"[{n}]").json() for n in range(4)] == [[False], [False], [True], [True]]
            assert post('["seven"]').status_code in (400, 422)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE)
        assert "Traceback" not in log.read_text()
