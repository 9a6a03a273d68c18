"""No body is lost: whatever a client offers, it is read whole or the answer is an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fake_cluster import FakeCluster
from jetmap import Cluster
from jetmap.settings import Settings
from jetmap_api import create_app
from jobs_over_http import site as fake_site
from over_http import double
from served import gateway, served
from tools import need_tool
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

ITEMS = list(range(40))
DOUBLED = [n * 2 for n in ITEMS]
LINES = "".join(f"{n}\n" for n in ITEMS)

JAVA = """
import java.net.URI;
import java.net.http.*;

public class Post {
    public static void main(String[] given) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int i = 1; i < given.length; i += 3) {
            var publisher = HttpRequest.BodyPublishers.ofString(given[i + 2]);
            var body = given[i].equals("chunked")
                ? HttpRequest.BodyPublishers.fromPublisher(publisher) : publisher;
            var request = HttpRequest.newBuilder(URI.create(given[0]))
                .header("Content-Type", given[i + 1]).POST(body).build();
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body().strip());
        }
    }
}
"""


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}  # As in ``jetmap api``.


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    async with gateway_of(FakeCluster(double)) as port:
        yield port


@asynccontextmanager
async def gateway_of(cluster: Any, **settings: Any) -> AsyncIterator[int]:
    chosen = Settings(**settings)
    async with gateway(create_app(cast(Cluster, cluster), chosen), chosen) as (_, port):
        yield port


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def raw(port: int, data: bytes, *, end: bool = False) -> bytes:
    """All that is answered until the connection ends. end: the client ends its side first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()


def head(
    *more: str, path: str = "/map/double", method: str = "POST", media: str = "application/json"
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {media}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")


# The real clients


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_curl_that_offers_http2_is_answered(port: int, framing: str) -> None:
    command = [need_tool("curl"), "-sS", "--http2", "--data-binary", json.dumps(ITEMS)]
    command += ["-H", "Content-Type: application/json"]
    if framing == "chunked":
        command += ["-H", "Transfer-Encoding: chunked"]
    url = f"http://127.0.0.1:{port}/map/double"
    # The second request goes over the same connection, and offers nothing.
    answers = await output(*command, url, "--next", *command[1:], url)
    assert answers.count("78") == 2
    assert json.loads(answers[: len(answers) // 2]) == DOUBLED


@pytest.mark.slow
async def test_javas_http_client_is_answered(port: int, tmp_path: Path) -> None:
    java = need_tool("java")
    need_tool("javac")
    source = tmp_path / "Post.java"
    source.write_text(JAVA)
    url = f"http://127.0.0.1:{port}/map/double"
    bodies = (("application/json", json.dumps(ITEMS)), ("application/jsonl", LINES))
    requests = [part for f in ("length", "chunked") for body in bodies for part in (f, *body)]
    answers = await output(java, "-Xshare:auto", str(source), url, *requests, *requests)
    found = [line.split(" ", 1) for line in answers.splitlines()]
    assert [(status, json.loads(body)) for status, body in found] == [("200", DOUBLED)] * 8


# By hand


async def test_a_job_whose_request_offers_an_upgrade_is_stored_whole() -> None:
    cluster, jobs = fake_site()
    async with gateway_of(cluster) as port:
        body = json.dumps(ITEMS).encode()
        start = head(*H2C, f"Content-Length: {len(body)}", path="/jobs/double")
        answers = await raw(port, start + body, end=True)
    assert answers.startswith(b"HTTP/1.1 202")
    assert [len(upload.items) for upload in jobs.uploads] == [len(ITEMS)]


@pytest.mark.parametrize("media", ["application/json", "application/jsonl"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_is_cut_short_is_no_success(port: int, media: str, framing: str) -> None:
    """The client ends its side within the body, and waits for an answer."""
    if framing == "length":
        data = head("Content-Length: 100", media=media) + b"[1]\n[2]\n"
    else:
        data = head("Transfer-Encoding: chunked", media=media) + b"4\r\n[1]\n\r\n"
    answer = await raw(port, data, end=True)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request") or answer == b"", answer
    assert b"done" not in answer


async def test_lines_that_break_off_within_a_stream_have_no_last_line(port: int) -> None:
    start = head("Content-Length: 100", "Accept: application/jsonl", media="application/jsonl")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start + b"1\n")
    begun = await asyncio.wait_for(reader.readuntil(b"}\n"), PATIENCE)  # the first outcome
    writer.write_eof()
    with pytest.raises(ConnectionResetError):
        begun += await asyncio.wait_for(reader.read(), PATIENCE)
        raise ConnectionResetError if not begun.endswith(b"0\r\n\r\n") else AssertionError(begun)
    writer.close()
    assert b"done" not in begun


async def test_100_continue_is_sent_once_the_body_is_wanted(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("Content-Length: 3", "Expect: 100-continue", "Connection: close"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"[1]")
    assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_who_is_refused_before_100_continue_sends_nothing_on_that_connection(
    port: int,
) -> None:
    """Otherwise nobody could tell whether the next bytes are the body or another request."""
    answer = await raw(
        port, head("Content-Length: 3", "Expect: 100-continue", "Accept: text/plain")
    )
    assert answer.startswith(b"HTTP/1.1 406") and b"connection: close" in answer


@pytest.mark.parametrize("path", ["/functions", "/healthz", "/workers"])
async def test_a_body_that_no_endpoint_wants_is_read_first(port: int, path: str) -> None:
    whole = head("Content-Length: 5", method="GET", path=path) + b"12345"
    last = head("Connection: close", method="GET", path="/healthz")
    assert (await raw(port, whole + last)).count(b"HTTP/1.1 200 OK") == 2
    short = await raw(port, whole[:-1], end=True)
    assert short.startswith(b"HTTP/1.1 400")
    start = head("Content-Length: 70000", "Connection: close", method="GET", path=path)
    large = await raw(port, start + b"x" * 70000)
    assert large.startswith(b"HTTP/1.1 413")


# In an application of the user's, under a server of the user's


@pytest.mark.parametrize("middleware", [False, True])
async def test_under_httptools_a_lost_body_is_no_success(middleware: bool) -> None:
    cluster, jobs = fake_site()
    body = LINES.encode()
    framings = {
        f"Content-Length: {len(body)}": body,
        "Transfer-Encoding: chunked": b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    }
    async with served(cast(Cluster, cluster), middleware=middleware, plain="httptools") as port:
        for path in ("/map/double", "/jobs/double"):
            for media in ("application/json", "application/jsonl"):
                for framing, sent in framings.items():
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(head(*H2C, framing, path=path, media=media) + sent)
                    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
                    writer.close()
                    assert answer.startswith(b"HTTP/1.1 400"), (path, media, framing, answer)
    assert all(upload.state == "aborted" for upload in jobs.uploads)
