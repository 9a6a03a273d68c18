"""Every example runs as its first lines say, and does what they say."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
MARK = "JETMAP_EXAMPLES_TEST"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def wait_until(predicate: Callable[[], T], description: str, *, timeout: float = 20) -> T:
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {description}"
        time.sleep(0.02)
    return value


def run(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    return result.stdout


def marked(mark: str) -> list[psutil.Process]:
    """The processes that have inherited ``mark`` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # not ours, or gone since
            continue
    return found


class App:
    """The example app under uvicorn. mark: what all its processes have inherited."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, mark: str) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.mark = mark

    def is_up(self) -> bool:
        assert self.process.poll() is None, f"uvicorn ended with {self.process.returncode}"
        try:
            return httpx.get(f"{self.url}/openapi.json").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(*options: str) -> Iterator[App]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi_app:app", "--port", str(port)]
    with tempfile.TemporaryDirectory() as runtime:  # a keeper of its own, shared with no other app
        environment = {**os.environ, MARK: mark, "XDG_RUNTIME_DIR": runtime}
        process = subprocess.Popen([*command, *options], cwd=ROOT, env=environment)
        app = App(process, port, mark)
        try:
            wait_until(app.is_up, "the example app answers")
            yield app
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()
            wait_until(lambda: not marked(mark), "all its processes are gone")


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with serving() as app:
        yield app


def test_primes() -> None:
    output = run("examples/primes.py", "10000", "100")
    assert "11 primes among 100 numbers from 10000 on" in output
    assert "the smallest is 10007, the largest is 10099" in output


def test_source_metrics_are_those_of_one_core(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def f(:\n")
    arguments = ["examples/source_metrics.py", "examples", str(tmp_path)]
    parallel, serial = run(*arguments), run(*arguments, "--serial")
    assert parallel.rsplit("\n\n", 1)[0] == serial.rsplit("\n\n", 1)[0]
    assert re.search(r"broken\.py: SyntaxError: invalid syntax", parallel)


def test_app_maps_a_list(app: App) -> None:
    answer = httpx.post(f"{app.url}/primes", json=[7, 8, 9, 11])
    assert answer.json() == [True, False, False, True]
    assert httpx.get(f"{app.url}/primes/90?count=10").json() == {"primes": [97]}
    assert httpx.get(f"{app.url}/primes/90?count=0").status_code == 422


def test_app_measures_known_files_only(app: App) -> None:
    path = next(path for path in httpx.get(f"{app.url}/files").json() if "/ast.py" in path)
    [metrics] = httpx.post(f"{app.url}/metrics-of", json=[path]).json()
    assert metrics["classes"] > 10
    assert httpx.post(f"{app.url}/metrics-of", json=["/etc/passwd"]).status_code == 422


def test_app_mounts_the_gateway(app: App) -> None:
    answer = httpx.post(f"{app.url}/jetmap/map/is_prime", json=[7, 8])
    assert answer.json() == [True, False]
    accept = {"Accept": "text/event-stream"}
    with httpx.stream("POST", f"{app.url}/jetmap/map/is_prime", json=[7, 8], headers=accept) as sse:
        kinds = re.findall(r"^event: ?(\w+)", sse.read().decode(), re.MULTILINE)
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert "results" in kinds


def test_four_uvicorn_workers_share_one_keeper_and_leave_nothing_when_killed() -> None:
    with serving("--workers", "4", "--log-level", "critical") as app:
        for _ in range(20):  # a new connection each: all workers get some
            assert httpx.post(f"{app.url}/primes", json=[97]).json() == [True]
        brokers = [p for p in marked(app.mark) if p.name().startswith("nats-server")]
        assert len(brokers) == 1
        for process in [
            app.process.pid,
            *(c.pid for c in psutil.Process(app.process.pid).children()),
        ]:
            os.kill(process, signal.SIGKILL)
        app.process.wait()
        wait_until(lambda: not marked(app.mark), "keeper, broker and workers are gone")


class Browser:
    """Headless Chromium, spoken to over its debugging pipe (descriptors 3 and 4)."""

    LAUNCH = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
        "os.execv(sys.argv[3], sys.argv[3:])"
    )

    def __init__(self, chromium: str, profile: Path) -> None:
        commands, self._commands = self._pipe(reading=True)
        answers, self._answers = self._pipe(reading=False)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        launch = [sys.executable, "-c", self.LAUNCH, str(commands), str(answers), chromium]
        self._process = subprocess.Popen(
            [*launch, *options], pass_fds=(commands, answers), stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self._numbers, self._received = itertools.count(1), b""
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    @staticmethod
    def _pipe(*, reading: bool) -> tuple[int, int]:
        """Chromium's end, well above 3 and 4, and ours."""
        read, write = os.pipe()
        theirs, ours = (read, write) if reading else (write, read)
        high = fcntl.fcntl(theirs, fcntl.F_DUPFD, 20)
        os.close(theirs)
        return high, ours

    def call(self, method: str, **params: object) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            part = os.read(self._answers, 65536)
            assert part, "Chromium ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def evaluate(self, script: str) -> Any:
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def close(self) -> None:
        self.call("Browser.close")
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._commands)
            os.close(self._answers)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium binary is installed: the page is not tried in a browser")
    browser = Browser(CHROMIUM, tmp_path)
    yield browser
    browser.close()


WATCH = """
new Promise((resolve) => {
  const form = document.querySelector("#form"), seen = new Set();
  form.first.value = %d;
  form.count.value = %d;
  const look = () => {
    seen.add(document.querySelector("#bar").value);
    const state = document.body.dataset.state;
    if (state === "running") return requestAnimationFrame(look);
    const text = (id) => document.querySelector(id).textContent;
    resolve({ state, partial: [...seen].filter((share) => share > 0 && share < 1).length,
      done: text("#done"), hits: text("#hits"), failed: text("#failed"), detail: text("#detail") });
  };
  document.querySelector("#run").click();
  requestAnimationFrame(look);
})
"""


def test_page_shows_results_as_they_stream_in(app: App, browser: Browser) -> None:
    browser.call("Page.navigate", url=app.url)
    wait_until(
        lambda: (
            browser.evaluate("document.readyState + document.body?.dataset.state") == "completeidle"
        ),
        "the page is loaded",
    )
    shown = browser.evaluate(WATCH % (10**12, 4000))
    assert shown.pop("partial") > 2
    assert shown == {"state": "done", "done": "4,000", "hits": "138", "failed": "0", "detail": ""}


def test_page_tells_what_is_wrong(app: App, browser: Browser) -> None:
    browser.call("Page.navigate", url=f"{app.url}/?gateway=/nowhere")
    wait_until(
        lambda: (
            browser.evaluate("document.readyState + document.body?.dataset.state") == "completeidle"
        ),
        "the page is loaded",
    )
    shown = browser.evaluate(WATCH % (10**12, 100))
    assert shown["state"] == "failed"
    assert shown["detail"]
