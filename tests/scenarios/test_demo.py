"""``jetmap demo``, over less input."""

from __future__ import annotations

import asyncio
import email
import re
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from rich.console import Console

from house import House
from jetmap.cli import demo
from jetmap.settings import Settings
from waiting import PATIENCE, wait_for


@pytest.fixture
def settings(house: House, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The demo's settings, in a directory of its own and with less to do."""
    part = str(Path(email.__file__).parent)  # the whole installation takes long to read
    paths = {name: part for name in ("stdlib", "purelib", "platlib")}
    monkeypatch.setattr("jetmap.demo.work.sysconfig", SimpleNamespace(get_paths=lambda: paths))
    monkeypatch.setattr("jetmap.demo.work.PRIMES_PER_CORE", 20)
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, house.environment[name])
    monkeypatch.chdir(house.directory)
    return demo.own(Settings.load(cores="2"))


def test_demo_runs_whole_and_leaves_nothing(
    house: House, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real demonstration, over less input."""
    asyncio.run(demo._work(settings, Console(width=120, highlight=False)))
    assert not (house.directory / "state").exists()
    said = capsys.readouterr().out
    assert re.search(r"workers on 2 cores: ready in \d+\.\d s", said)
    assert re.search(r"dashboard: http://127.0.0.1:\d+/ui\ntoken: +\S+", said)
    assert "the largest found is 100,039,000," in said
    for title in ("source metrics", "prime search"):
        assert re.search(rf"{title} +\d+\.\d\d s +\d+\.\d\d s +\d+\.\d\d +\d+%", said), said
    house.nothing_is_left()


@pytest.mark.slow
def test_demo_stays_with_maps_and_jobs_also_when_somebody_cancels_them(
    house: House, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ""

    async def scenario() -> None:
        nonlocal said
        reported = asyncio.Event()
        console = Console(width=120, highlight=False)
        chosen = settings.replace(store=str(house.directory / "store"))
        staying = asyncio.create_task(demo._work(chosen, console, reported))
        told = asyncio.create_task(reported.wait())
        await asyncio.wait([staying, told], return_when=asyncio.FIRST_COMPLETED)
        assert not staying.done(), staying.result()
        said += capsys.readouterr().out
        url, token = re.findall(r"dashboard: (http://\S+)/ui\ntoken: +(\S+)", said)[0]
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as client:

            async def ended(state: str) -> bool:
                answer = await client.get("/jobs", params={"state": state})
                assert answer.status_code == 200, answer.text
                found = answer.json()["jobs"]
                return any(job["labels"]["team"] == "demo" for job in found)

            async def cancelled() -> bool:
                for row in (await client.get("/maps", params={"function": "measure"})).json():
                    if row["kind"] == "map":
                        answer = await client.post(f"/maps/{row['id']}/cancel")
                        return answer.status_code == 204
                return False

            await wait_for(lambda: ended("succeeded"), "a job has ended")
            assert (await client.post("/functions/measure/pause")).status_code == 200
            await wait_for(cancelled, "a map is cancelled, which waits for its function")
            assert (await client.post("/functions/measure/resume")).status_code == 200
            done = len((await client.get("/jobs")).json()["jobs"])

            async def next_job() -> bool:
                return len((await client.get("/jobs")).json()["jobs"]) > done

            await wait_for(next_job, "the next job has begun")
        assert not staying.done(), "it goes on"
        staying.cancel()
        with suppress(asyncio.CancelledError):
            await staying

    asyncio.run(scenario())
    said += capsys.readouterr().out
    assert "the cluster stays and its work goes on" in said
    house.nothing_is_left()
