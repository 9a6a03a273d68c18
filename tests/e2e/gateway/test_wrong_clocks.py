"""Gateways and a worker whose clocks are a day wrong, beside processes whose clocks are right."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from browser import Browser, Tab
from house import House, Up
from jetmap.jobs.monitor import SWEEP_SECONDS
from waiting import PATIENCE, wait_until_sync
from wrong_clock import DAY, wrong_by

TOKEN = "a-token-of-twenty-characters"


class Gateway:
    """A ``jetmap api`` of its own, beside the one of ``jetmap up``."""

    def __init__(self, house: House, *options: str, **variables: str) -> None:
        self._process = house.start("api", "--port", "0", *options, **variables)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip().removesuffix("/docs")
        wait_until_sync(lambda: self.ask("GET", "/readyz")[0] == 200, "it is ready")

    def ask(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Return status and answer; of a login, the cookie; of what is not JSON, None."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE)
        try:
            given = {name.replace("_", "-"): text for name, text in headers.items()}
            if body is not None and "content-type" not in given:
                given["content-type"] = "application/json"
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            content = answer.read()
            if cookie := answer.getheader("set-cookie"):
                return answer.status, cookie.partition(";")[0]
            is_json = "json" in (answer.getheader("content-type") or "")
            return answer.status, json.loads(content) if is_json and content else None
        finally:
            connection.close()

    def log_in(self) -> str:
        """Return the cookie of a new login session."""
        form = "application/x-www-form-urlencoded"
        status, cookie = self.ask(
            "POST", "/login", f"token={TOKEN}", content_type=form, origin=self.url
        )
        assert status == 303
        return str(cookie)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Two cores and a gateway with a clock that is right, and a core that is a day behind."""
    house = House(tmp_path_factory.mktemp("clocks"))
    try:
        up = house.up()
        behind = wrong_by(house.directory / "clock", -DAY)
        house.start("worker", "tasks.py", "--cores", "1", **behind)
        wait_until_sync(lambda: up.ready == 3, "all cores are there")
        yield up
    finally:
        house.close()


def gateway(up: Up, seconds: float, *options: str) -> Gateway:
    return Gateway(up.house, *options, **wrong_by(up.house.directory / "clock", seconds))


@pytest.mark.slow
def test_cores_maps_and_times_left_are_shown_as_they_are(up: Up, browser: Browser) -> None:
    ahead = gateway(up, DAY)
    status = json.loads(up.house.call("status", "--json").stdout)
    assert [agent["state"] for agent in status["hosts"]] == ["ready", "ready"]
    job = ahead.ask("POST", "/jobs/slow", json.dumps([0.2] * 400))[1]["id"]

    def agents() -> list[dict[str, Any]]:
        return list(ahead.ask("GET", "/workers")[1])

    # Its offer is the newest, so the job is its alone.
    wait_until_sync(lambda: any((a["cores"], a["busy"]) == (1, 1) for a in agents()), "it works")
    times = [worker["seconds"] for agent in agents() for worker in agent["workers"]]
    assert all(0 <= seconds < 600 for seconds in times), "the state's time is the agent's own"

    def left() -> float | None:
        """Return the seconds to the job's end, once it is announced and known."""
        rows = {row["id"]: row for row in ahead.ask("GET", "/maps")[1]}
        return rows[job]["left"] if job in rows else None

    wait_until_sync(lambda: left() is not None, "its time left")
    assert 0 < (left() or 0.0) < 3600

    tab = Tab(browser)
    tab.size(1280)
    tab.open(f"{ahead.url}/ui#map/{job}")
    tab.says("Where the time of its chunks goes")
    since = tab.do(f"jetmap.world.now - jetmap.world.find('{job}').started")
    assert 0 <= since < 600
    tab.go("hosts")
    tab.until("document.querySelectorAll('[data-key=hosts] [data-name=heard]').length === 2")
    heard = "[...document.querySelectorAll('[data-name=heard]')].map(cell => cell.innerText)"
    assert all("now" in text for text in tab.do(heard)), "nobody is silent"
    hour = time.strftime("%H:", time.localtime(time.time() + DAY))
    tab.until(f"document.querySelector('#link').textContent.includes('live, {hour}')")
    assert ahead.ask("POST", f"/jobs/{job}/cancel")[0] == 202
    tab.go(f"map/{job}")
    tab.says("withdrawn")
    tab.open("about:blank")


@pytest.mark.slow
def test_a_job_stays_for_its_time_and_no_longer(up: Up) -> None:
    """Neither a gateway that is ahead removes it early, nor one that is behind keeps it."""
    gateways = [gateway(up, DAY), gateway(up, -DAY)]
    kept, short = (
        gateways[0].ask("POST", f"/jobs/double?ttl={seconds:.0f}", "[1, 13]")[1]["id"]
        for seconds in (3600, SWEEP_SECONDS + 5)
    )

    def state(asked: Gateway, job: str) -> str:
        status, answer = asked.ask("GET", f"/jobs/{job}")
        return str(answer["state"]) if status == 200 else str(status)

    for asked in gateways:
        wait_until_sync(lambda asked=asked: state(asked, kept) == "failed", "it has ended")
    for asked in gateways:
        wait_until_sync(lambda asked=asked: state(asked, short) == "expired", "it is over")
    for asked in gateways:
        document = asked.ask("GET", f"/jobs/{kept}")[1]
        assert document["state"] == "failed" and document["failed"] == 1
        page = asked.ask("GET", f"/jobs/{kept}/results")[1]
        assert page["values"] == [2, None] and page["errors"][0]["type"] == "ValueError"
        [found] = asked.ask("GET", f"/ui/jobs/{kept}/failures")[1]["causes"]
        assert 0 <= found["cause"]["first"] < 600, "by the broker's clock alone"


@pytest.mark.slow
def test_login_sessions_and_signed_addresses_count_where_they_were_made(up: Up) -> None:
    secret = up.house.directory / "token"
    secret.write_text(TOKEN, encoding="utf-8")
    secret.chmod(0o600)
    behind, right, ahead = (
        gateway(up, seconds, "--token-file", str(secret)) for seconds in (-DAY, 0.0, DAY)
    )
    authorised = {"authorization": f"Bearer {TOKEN}"}
    job = right.ask("POST", "/jobs/double", "[1, 2]", **authorised)[1]["id"]
    for asked in (behind, right, ahead):
        cookie = asked.log_in()
        assert asked.ask("GET", "/ui/session", cookie=cookie)[0] == 204
        assert asked.ask("GET", "/functions", **authorised)[0] == 200
        assert asked.ask("GET", "/functions")[0] == 401
        address = asked.ask("POST", f"/jobs/{job}/events/address", **authorised)[1]["url"]
        assert asked.ask("GET", address)[0] == 200
        # Elsewhere it counts until then by that clock: too late for one that is behind, ...
        status = right.ask("GET", "/ui/session", cookie=cookie, accept="application/json")[0]
        assert status == (401 if asked is behind else 204)
    # ... and never for longer than the clocks differ, and the session's own time.
    assert ahead.ask("GET", "/ui/session", cookie=right.log_in())[0] == 401
