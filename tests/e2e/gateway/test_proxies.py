"""The gateway behind real proxies, with the configurations that docs/proxies.md shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml

from fake_cluster import FakeCluster
from fake_jobs import FakeJobs
from jetmap.client.cluster import Cluster
from jetmap.settings import Settings
from jobs_over_http import until_over
from nodes import free_ports
from over_http import double, echo
from served import served
from tools import need_tool
from waiting import PATIENCE, wait_for, wait_until

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).resolve().parents[3] / "docs" / "proxies.md"
HOST = "jetmap.example.org"
TOKEN = "s3cret"
JSONL = "application/jsonl"


def shown(language: str) -> str:
    """The configuration in this language, as the page shows it."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(found) == 1
    return str(found[0])


def nginx(here: Path, port: int) -> list[str]:
    program = need_tool("nginx")
    site = shown("nginx").replace("listen 80;", f"listen 127.0.0.1:{port};")
    site = site.replace("/var/log/nginx", str(here))
    temporary = "".join(
        f"{name}_temp_path {here}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (here / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/error.log;\n"
        f"events {{}}\nhttp {{\n{temporary}{site}}}\n"
    )
    return [program, "-p", str(here), "-c", f"{here}/nginx.conf", "-e", f"{here}/error.log"]


def haproxy(here: Path, port: int) -> list[str]:
    program = need_tool("haproxy")
    (here / "haproxy.cfg").write_text(
        shown("haproxy").replace("bind :80", f"bind 127.0.0.1:{port}")
    )
    return [program, "-db", "-f", f"{here}/haproxy.cfg"]


def caddy(here: Path, port: int) -> list[str]:
    program = need_tool("caddy")
    site = shown("caddyfile").replace(f"{HOST}:80", f"{HOST}:{port}")
    (here / "Caddyfile").write_text(f"{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}}\n{site}")
    return [program, "run", "--adapter", "caddyfile", "--config", f"{here}/Caddyfile"]


PROXIES: dict[str, Callable[[Path, int], list[str]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}


def start(name: str, here: Path, port: int, upstream: int) -> subprocess.Popen[bytes]:
    """The proxy, in a directory of its own, in front of the gateway's port."""
    command = PROXIES[name](here, port)
    for file in here.iterdir():
        file.write_text(file.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{upstream}"))
    homes = {f"XDG_{kind}_HOME": str(here) for kind in ("DATA", "CONFIG")}
    with (here / "output").open("wb") as output:
        return subprocess.Popen(command, env={**os.environ, **homes}, stdout=output, stderr=output)


def logged(here: Path) -> str:
    """All that the proxy wrote."""
    return "".join(f.read_text(errors="replace") for f in here.iterdir() if f.is_file())


@dataclass
class Behind:
    """A proxy with a gateway behind it. port: where it listens. cluster: the gateway's."""

    port: int
    client: httpx.AsyncClient
    cluster: FakeCluster
    gate: asyncio.Event

    def running(self) -> int:
        """Items of the latest map that were begun."""
        return self.cluster.runs[-1].taken if self.cluster.runs else 0


@asynccontextmanager
async def behind(name: str, here: Path) -> AsyncIterator[Behind]:
    gate = asyncio.Event()

    async def gated(n: int) -> int:
        if n:
            await gate.wait()
        return n

    cluster = FakeCluster(double, echo, gated, chunk=1)
    FakeJobs(cluster)
    settings = Settings(token=cast(Any, TOKEN), allowed_hosts=[HOST])
    (port,) = free_ports(1)
    async with served(cast(Cluster, cluster), settings) as upstream:
        process = start(name, here, port, upstream)
        headers = {"host": HOST, "authorization": f"Bearer {TOKEN}"}
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}/jetmap", headers=headers, timeout=40
            ) as client:

                async def ready() -> bool:
                    assert process.poll() is None, logged(here)
                    try:
                        return (await client.head("/readyz")).status_code == 200
                    except httpx.TransportError:
                        return False

                await wait_for(ready, f"{name} has found the gateway")
                yield Behind(port, client, cluster, gate)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


async def check_events(proxy: Behind) -> None:
    """Events of a map come when they happen."""
    accept = {"accept": "text/event-stream"}
    async with proxy.client.stream("POST", "/map/gated", json=[0, 1], headers=accept) as response:
        assert response.status_code == 200
        text = ""
        async for part in response.aiter_text():
            text += part
            if '"values":[0]' in text:
                proxy.gate.set()  # not before: the rest waits for it
    assert '"values":[1]' in text and "event: done" in text


async def check_upload(proxy: Behind) -> None:
    """Outcomes are streamed while the body arrives, also if both exceed the buffers."""
    item = json.dumps("x" * 10_000).encode() + b"\n"
    more = 1500  # 15 MB

    async def body() -> AsyncIterator[bytes]:
        yield item * 3
        await wait_until(lambda: proxy.running() == 3, "the first items run")
        for _ in range(more // 100):
            yield item * 100

    headers = {"content-type": JSONL, "accept": JSONL}
    response = await proxy.client.post("/map/echo", content=body(), headers=headers)
    assert response.status_code == 200
    lines = response.text.splitlines()
    assert json.loads(lines[-1]) == {"done": more + 3, "failed": 0}
    assert sorted(json.loads(line)["index"] for line in lines[:-1]) == [*range(more + 3)]
    submitted = await proxy.client.post(
        "/jobs/echo", content=item * 100, headers={"content-type": JSONL}
    )
    assert submitted.json()["total"] == 100


async def check_both_ways(proxy: Behind) -> None:
    """haproxy passes both directions at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(
        f"POST /jetmap/map/double HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {JSONL}\r\n"
        f"Accept: {JSONL}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    got = b""
    for number in range(5):
        line = b"%d\n" % number
        writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        while b'"index":%d,' % number not in got:
            got += await asyncio.wait_for(reader.read(65536), PATIENCE)
    writer.write(b"0\r\n\r\n")
    while b'"done":5' not in got:
        got += await asyncio.wait_for(reader.read(65536), PATIENCE)
    writer.close()


# The others take the same way as the first.
@pytest.mark.parametrize(
    "name",
    [
        "nginx",
        pytest.param("haproxy", marks=pytest.mark.slow),
        pytest.param("caddy", marks=pytest.mark.slow),
    ],
)
async def test_maps_jobs_events_and_pages_pass(name: str, tmp_path: Path) -> None:
    async with behind(name, tmp_path) as proxy:
        await check_events(proxy)
        await check_upload(proxy)
        if name == "haproxy":
            await check_both_ways(proxy)
        client = proxy.client
        assert (await client.post("/map/double", json=[1, 2, 3])).json() == [2, 4, 6]
        assert (await client.get("/nothing")).json()["type"] == "urn:jetmap:not-found"
        assert (await client.options("/jobs/x")).headers["allow"].startswith("GET, HEAD, POST")

        # A job, by the addresses in its answers.
        submitted = await client.post("/jobs/double", json=[1, 2, 3])
        assert submitted.status_code == 202
        assert submitted.headers["location"].startswith("/jetmap/jobs/")
        root = f"http://127.0.0.1:{proxy.port}"
        job = (await client.get(root + submitted.headers["location"])).json()
        await until_over(client, job["id"])
        page = await client.get(root + job["links"]["results"] + "?limit=2")
        following = page.headers["link"].split(">")[0][1:]
        assert (await client.get(root + following)).json()["values"] == [6]
        assert (await client.head(root + job["links"]["events"])).status_code == 200

        # Events by a signed address, which no log holds.
        made = (await client.post(f"/jobs/{job['id']}/events/address")).json()
        bare = httpx.AsyncClient(headers={"host": HOST})
        async with bare:
            events = await bare.get(root + made["url"])
            assert events.status_code == 200 and "event: done" in events.text
            # A browser that logs in.
            navigating = {"accept": "text/html", "sec-fetch-mode": "navigate"}
            turned = await bare.get(f"{root}/jetmap/docs", headers=navigating)
            assert turned.headers["location"] == "/jetmap/login?next=/jetmap/docs"
            kept = await bare.post(
                f"{root}/jetmap/login",
                data={"token": TOKEN, "next": "/jetmap/docs"},
                headers={"origin": f"http://{HOST}"},
            )
            assert (kept.status_code, kept.headers["location"]) == (303, "/jetmap/docs")
            cookie = kept.headers["set-cookie"]
            assert "; Path=/jetmap;" in cookie
            shown_page = await bare.get(
                f"{root}/jetmap/docs", headers={"cookie": cookie.split(";")[0]}
            )
            assert 'data-url="/jetmap/openapi.json"' in shown_page.text
    signature = made["url"].partition("signature=")[2]
    assert signature and signature not in logged(tmp_path)


def test_traefiks_configuration_can_be_read() -> None:
    parts = yaml.safe_load(shown("yaml"))["http"]
    router = parts["routers"]["jetmap"]
    assert set(router["middlewares"]) == set(parts["middlewares"])
    assert router["service"] in parts["services"]
    balancer = parts["services"]["jetmap"]["loadBalancer"]
    assert balancer["healthCheck"]["method"] == "HEAD"
