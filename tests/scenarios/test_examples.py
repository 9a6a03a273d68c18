"""Every example runs as its first lines say, and does what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

from browser import CHROMIUM, Browser
from nodes import free_ports
from tools import need_tool
from waiting import PATIENCE, wait_until_sync

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
MARK = "EXAMPLES_TEST"


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
    """The example app under uvicorn. mark: what all its processes have inherited. runtime: its
    user's runtime directory."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, mark: str, runtime: Path
    ) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.mark = mark
        self.runtime = runtime

    def is_up(self) -> bool:
        assert self.process.poll() is None, f"uvicorn ended with {self.process.returncode}"
        try:
            return httpx.get(f"{self.url}/openapi.json").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(*options: str, port: int | None = None, **variables: str) -> Iterator[App]:
    port = port or free_ports(1)[0]
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi_app:app", "--port", str(port)]
    with tempfile.TemporaryDirectory() as runtime:  # a keeper of its own, shared with no other app
        environment = {**os.environ, MARK: mark, "XDG_RUNTIME_DIR": runtime, **variables}
        process = subprocess.Popen([*command, *options], cwd=ROOT, env=environment)
        app = App(process, port, mark, Path(runtime))
        try:
            wait_until_sync(app.is_up, "the example app answers")
            yield app
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()
            try:
                wait_until_sync(lambda: not marked(mark), "all its processes are gone")
            finally:
                for left in marked(mark):  # a test that fails leaves nothing either
                    with suppress(psutil.Error):
                        left.kill()


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with serving() as app:
        yield app


def test_primes() -> None:
    output = run("examples/primes.py", "10000", "100")
    assert "11 primes among 100 numbers from 10000 on" in output
    assert "the smallest is 10007, the largest is 10099" in output


@pytest.mark.slow
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


@pytest.mark.slow
def test_app_measures_known_files_only(app: App) -> None:
    with httpx.Client(
        base_url=app.url, timeout=PATIENCE
    ) as client:  # It looks at every file first.
        path = next(path for path in client.get("/files").json() if "/ast.py" in path)
        [metrics] = client.post("/metrics-of", json=[path]).json()
        assert metrics["classes"] > 10
        assert client.post("/metrics-of", json=["/etc/passwd"]).status_code == 422


def test_app_mounts_the_gateway(app: App) -> None:
    answer = httpx.post(f"{app.url}/jetmap/map/is_prime", json=[7, 8])
    assert answer.json() == [True, False]
    accept = {"Accept": "text/event-stream"}
    with httpx.stream("POST", f"{app.url}/jetmap/map/is_prime", json=[7, 8], headers=accept) as sse:
        kinds = re.findall(r"^event: ?(\w+)", sse.read().decode(), re.MULTILINE)
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert "results" in kinds


def answering(app: App) -> int:
    """Return the process of the app that answers a new connection."""
    with httpx.Client() as client:
        answer = client.post(f"{app.url}/primes", json=[97])
        assert answer.json() == [True]
        ours = answer.extensions["network_stream"].get_extra_info("client_addr")
        for child in psutil.Process(app.process.pid).children():
            if any(c.raddr == ours for c in child.net_connections("tcp")):
                return child.pid
    raise AssertionError("nobody holds the connection")


def connected_to(process: psutil.Process, ports: set[int]) -> bool:
    return any(c.raddr and c.raddr.port in ports for c in process.net_connections("tcp"))


@pytest.mark.slow
def test_four_uvicorn_workers_share_one_keeper_and_leave_nothing_when_killed() -> None:
    with serving("--workers", "4", "--log-level", "critical") as app:
        answered: set[int] = set()

        def all_answered() -> bool:
            with ThreadPoolExecutor(8) as threads:
                answered.update(threads.map(lambda _: answering(app), range(8)))
            return len(answered) == 4

        wait_until_sync(all_answered, "each of the four has answered")
        [broker] = [p for p in marked(app.mark) if p.name().startswith("nats-server")]
        keeper = broker.parent()
        assert keeper is not None and keeper.pid not in answered
        ports = {c.laddr.port for c in broker.net_connections("tcp") if c.status == "LISTEN"}
        assert all(connected_to(psutil.Process(pid), ports) for pid in answered)
        # One worker a core, and all of them its: four keepers would have four times as many.
        workers = [child for child in keeper.children() if child != broker]
        assert len(workers) == len(os.sched_getaffinity(0))
        assert any((app.runtime / "jetmap").iterdir())
        supervisor = psutil.Process(app.process.pid)
        assert {keeper, broker, *workers} < set(marked(app.mark))
        for process in [supervisor, *supervisor.children()]:
            process.kill()
        app.process.wait()
        wait_until_sync(lambda: not marked(app.mark), "keeper, broker and workers are gone")
        assert list((app.runtime / "jetmap").iterdir()) == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(need_tool(*CHROMIUM), tmp_path_factory.mktemp("browser"))
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


def opened(browser: Browser, url: str, state: str = "idle") -> None:
    browser.call("Page.navigate", url=url)
    wait_until_sync(
        lambda: (
            browser.evaluate("document.readyState + document.body?.dataset.state")
            == f"complete{state}"
        ),
        "the page is loaded",
        20,
    )


def test_page_shows_results_as_they_stream_in(app: App, browser: Browser) -> None:
    opened(browser, app.url)
    shown = browser.evaluate(WATCH % (10**12, 4000))
    assert shown.pop("partial") > 2
    assert shown == {"state": "done", "done": "4,000", "hits": "138", "failed": "0", "detail": ""}


def test_page_tells_what_is_wrong(app: App, browser: Browser) -> None:
    opened(browser, f"{app.url}/?gateway=/nowhere")
    shown = browser.evaluate(WATCH % (10**12, 100))
    assert shown["state"] == "failed"
    assert shown["detail"]


def choose(browser: Browser, kind: str) -> None:
    browser.evaluate(f'document.querySelector("[name=kind][value={kind}]").click()')


NONE = "\N{EN DASH}"
CLEARED = """({
  figures: ["done", "rate", "elapsed", "first-result", "hits", "failed"].map(
    (id) => document.getElementById(id).textContent).join(" "),
  total: document.querySelector("#total").textContent,
  bar: document.querySelector("#bar").value,
})"""


@pytest.mark.slow
def test_page_shows_nothing_of_what_was_chosen_before(app: App, browser: Browser) -> None:
    nothing = {"figures": " ".join(["0", *[NONE] * 5]), "bar": 0}
    opened(browser, app.url)
    assert browser.evaluate(CLEARED) == {**nothing, "total": "22,500"}
    hover = """
    document.querySelector("#grid").dispatchEvent(
      new PointerEvent("pointermove", { clientX: innerWidth / 2, clientY: innerHeight / 2 }));
    document.querySelector("#detail").textContent
    """
    assert browser.evaluate(hover) == ""
    assert browser.evaluate(WATCH % (10**12, 400))["done"] == "400"
    choose(browser, "sources")
    assert browser.evaluate(CLEARED) == {**nothing, "total": NONE}
    assert browser.evaluate('document.querySelector("#grid").width') == 0
    choose(browser, "primes")
    # Also while something runs: what it still says is of no interest.
    browser.evaluate(
        """document.querySelector("#form").count.value = 100000;
           document.querySelector("#run").click()"""
    )
    wait_until_sync(lambda: number(shown(browser)["#done"]) > 0, "the map makes progress")
    choose(browser, "sources")
    wait_until_sync(lambda: shown(browser)["state"] == "stopped", "the map is stopped")
    assert browser.evaluate(CLEARED) == {**nothing, "total": NONE}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """``jetmap up`` with a store: what an app needs to know to use it."""
    place = tmp_path_factory.mktemp("up")
    [port] = free_ports(1)
    (place / "password").write_text(uuid.uuid4().hex)
    (place / "password").chmod(0o600)
    command = [sys.executable, "-m", "jetmap.cli", "up", "examples/primes.py"]
    command += ["--store", str(place / "store"), "--port", "0", "--nats-port", str(port)]
    variables = {"JETMAP_NATS_USER": "jetmap", "JETMAP_NATS_PASSWORD_FILE": f"{place}/password"}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **variables, "XDG_RUNTIME_DIR": str(place)},
            stdout=log,
            stderr=log,
        )
    try:
        # One that has not begun yet knows no SIGTERM, and not all tests wait for it.
        wait_until_sync(lambda: "broker" in (place / "log").read_text(), "it is up")
        yield {**variables, "JETMAP_NATS_URL": f"nats://127.0.0.1:{port}"}
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, (place / "log").read_text()


def begin(browser: Browser, first: int, count: int) -> None:
    """Begin it as a job, which the page proposes where jobs are possible."""
    browser.evaluate(
        f"""{{
          const form = document.querySelector("#form");
          if (!form.job.checked) throw new Error("the page knows of no jobs");
          form.first.value = {first};
          form.count.value = {count};
          document.querySelector("#run").click();
        }}"""
    )


def shown(browser: Browser) -> dict[str, str]:
    """Return the page's text, its state and its address."""
    found: dict[str, str] = browser.evaluate(
        """({
          ...document.body?.dataset, hash: location.hash,
          ...Object.fromEntries(["done", "hits", "failed", "detail", "state"].map(
            (id) => ["#" + id, document.getElementById(id)?.textContent])),
        })"""
    )
    return found


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.mark.slow
def test_page_follows_a_job_over_a_reload_and_a_gateways_death(
    lasting: dict[str, str], browser: Browser
) -> None:
    first, count, [port] = 10**12, 12_000, free_ports(1)

    def has_done(least: int) -> Callable[[], bool]:
        return lambda: number(shown(browser)["#done"]) >= least

    with serving(port=port, **lasting) as gateway:
        opened(browser, gateway.url)
        begin(browser, first, count)
        wait_until_sync(has_done(1000), "the job makes progress")
        [job] = re.findall(r"job=([\w-]+)", shown(browser)["hash"])
        browser.call("Page.reload")
        # The address is what it was, and so everything is on the page again.
        wait_until_sync(
            lambda: shown(browser).get("link") == "open", "the page has found its job", 20
        )
        wait_until_sync(has_done(2000), "the page follows the job")
        assert shown(browser)["state"] == "running"
        for process in marked(gateway.mark):
            process.kill()
        gateway.process.wait()
        wait_until_sync(lambda: shown(browser)["link"] == "lost", "the page misses the gateway")
        assert "away" in shown(browser)["#state"]
    with serving(port=port, **lasting) as gateway:
        wait_until_sync(lambda: shown(browser)["link"] == "open", "the page is connected again")
        assert "behind event" in shown(browser)["#state"]
        wait_until_sync(
            lambda: shown(browser)["state"] != "running", "the job is over", timeout=120
        )
        lines = httpx.get(
            f"{gateway.url}/jetmap/jobs/{job}/results", headers={"Accept": "application/jsonl"}
        ).text.splitlines()
        found = [json.loads(line) for line in lines[:-1]]
        primes = sum(line["value"] == first + line["index"] for line in found)
        end = shown(browser)
        assert (end["state"], end["breaks"], end["#failed"]) == ("done", "1", "0")
        # Hits are added up as results come: a repeat or a gap would show.
        assert (
            (number(end["#done"]), number(end["#hits"])) == (len(found), primes) == (count, primes)
        )
        assert "succeeded" in end["#state"]


@pytest.mark.slow
def test_page_logs_in_and_cancels_a_job(lasting: dict[str, str], browser: Browser) -> None:
    with serving(JETMAP_TOKEN="s3cret", **lasting) as gateway:
        browser.call("Page.navigate", url=f"{gateway.url}/?gateway=/jetmap#a=b")

        def at_login() -> bool:
            place = browser.evaluate("location.pathname + document.readyState")
            return bool(place == "/jetmap/logincomplete")

        wait_until_sync(at_login, "the page leads to the login")
        browser.evaluate(
            "document.querySelector('[name=token]').value = 's3cret';"
            "document.querySelector('form button').click()"
        )

        def back() -> bool:
            place = browser.evaluate("location.pathname + location.search + location.hash")
            ready = browser.evaluate("document.readyState + document.body?.dataset.state")
            return bool(place == "/?gateway=/jetmap#a=b" and ready == "completeidle")

        wait_until_sync(back, "the login leads back")
        begin(browser, 10**12, 200_000)
        wait_until_sync(lambda: number(shown(browser)["#done"]) > 0, "the job makes progress")
        browser.evaluate('document.querySelector("#run").click()')
        wait_until_sync(lambda: shown(browser)["state"] != "running", "the page has stopped")
        end = shown(browser)
        assert end["state"] == "stopped"
        [job] = re.findall(r"job=([\w-]+)", end["hash"])
        token = {"authorization": "Bearer s3cret"}
        status = httpx.get(f"{gateway.url}/jetmap/jobs/{job}", headers=token).json()
        assert status["state"] == "cancelled"
        assert status["done"] < status["total"]
