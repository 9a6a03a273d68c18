"""The files in config/ and compose.yaml, used for real as far as this machine can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jetmap.cli.app import build
from jetmap.errors import BrokerUnreachable
from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection
from jetmap.settings import FIELDS, PREFIX
from jetmap.wire.pool_streams import ensure_stream
from nodes import PASSWORD, START, Node, running, start_nodes
from waiting import PATIENCE, wait_until_sync

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "compose.yaml"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Callable[[int], list[Node]]]:
    with running() as started:

        def start(count: int) -> list[Node]:
            start_nodes(tmp_path, count, started)
            for node in started:
                wait_until_sync(lambda node=node: node.is_healthy, "a healthy server")
            return started

        yield start


def auth(password: str = PASSWORD) -> Auth:
    return Auth(user="jetmap", password=password)


@pytest.mark.anyio
async def test_a_single_server_asks_for_the_password(
    nodes: Callable[[int], list[Node]],
) -> None:
    [node] = nodes(1)
    c = await Connection.open([node.url], name="test", auth=auth(), timeout=PATIENCE)
    try:
        assert await ensure_stream(c, "default")
        info = await c.api("STREAM.INFO.JETMAP_WORK_default")
        assert info["config"]["num_replicas"] == 1
    finally:
        await c.close()
    with pytest.raises(BrokerUnreachable, match="credentials"):
        await Connection.open([node.url], name="test", auth=auth("wrong"), timeout=PATIENCE)


@pytest.mark.slow
@pytest.mark.anyio
async def test_three_servers_keep_three_copies(nodes: Callable[[int], list[Node]]) -> None:
    urls = [node.url for node in nodes(3)]
    c = await Connection.open(urls, name="test", auth=auth(), timeout=PATIENCE)
    try:
        assert await ensure_stream(c, "default")
        info = await c.api("STREAM.INFO.JETMAP_WORK_default")
        assert info["config"]["num_replicas"] == 3
        assert len(info["cluster"]["replicas"]) == 2
        assert info["cluster"]["name"] == "jetmap"
    finally:
        await c.close()


def test_a_server_without_a_password_does_not_start(tmp_path: Path) -> None:
    for environment, message in (
        ({}, "write a password into a file"),
        ({"NATS_PASSWORD": 'a"b'}, "letters, digits, - and _ only"),
    ):
        done = subprocess.run(
            ["sh", str(START)],
            env={"PATH": os.environ["PATH"]} | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.parametrize("name", ["single.conf", "cluster.conf"])
def test_configurations_notice_a_dead_peer_soon(name: str) -> None:
    text = (START.parent / name).read_text(encoding="utf-8")
    assert 'ping_interval: "2s"' in text or "include ./single.conf" in text
    # Without the space the server takes it for an unknown field and exits.
    assert not re.search(r"\w\{", re.sub("#.*", "", text))


# compose.yaml. There is no YAML parser among the dependencies; its own tool checks it whole
# where there is one, and what it cannot know is checked in the text.


def compose_tool() -> list[str] | None:
    for tool in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(tool[0]):
            done = subprocess.run([*tool, "version"], capture_output=True)
            if done.returncode == 0:
                return tool
    return None


def services() -> dict[str, str]:
    """The text of each service, and of each shared part that it takes over."""
    text = COMPOSE.read_text(encoding="utf-8")
    shared = {
        found["name"]: found["body"]
        for found in re.finditer(r"^x-\w+: &(?P<name>\w+)\n(?P<body>(?:[ #].*\n|\n)+)", text, re.M)
    }
    body = text.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    parts = re.split(r"^  ([\w-]+):\n", body, flags=re.M)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    for name, part in found.items():
        used = re.findall(r"<<: \*(\w+)", part)
        found[name] = part + "".join(shared[use] for use in used)
    return found


def test_compose_is_valid() -> None:
    tool = compose_tool()
    if tool is None:
        text = COMPOSE.read_text(encoding="utf-8")
        assert "\t" not in text
        assert set(re.findall(r"[:\[] ?\*(\w+)", text)) <= set(re.findall(r"&(\w+)", text))
        return
    done = subprocess.run(
        [*tool, "-f", str(COMPOSE), "config", "--services"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(services())


def test_compose_has_what_it_promises() -> None:
    found = services()
    assert list(found) == ["nats-1", "nats-2", "nats-3", "gateway", "worker"]
    for name, part in found.items():
        assert "healthcheck:" in part, name
        assert "nats_password" in part, name
        assert "restart: unless-stopped" in part, name
    # What scales has no name and no port of its own.
    assert not re.search(r"container_name|hostname|ports:", found["worker"])
    for name in ("nats-1", "nats-2", "nats-3"):
        assert "sh" in found[name] and "/etc/jetmap/start" in found[name]
        assert f"hostname: {name}" in found[name]
        assert f"{name}:6222" in found[name]


def test_compose_speaks_of_settings_and_variables_that_exist() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    settings = {f"{PREFIX}{name.upper()}" for name in FIELDS}
    assert set(re.findall(r"^ +(JETMAP_\w+):", text, re.M)) <= settings
    start = START.read_text(encoding="utf-8")
    for variable in re.findall(r"^ +(NATS_\w+):", text, re.M):
        assert f"#   {variable} " in start


def test_compose_mounts_what_is_there_and_declares_its_secrets() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    for path in re.findall(r"\"(\./[\w/]+):", text) + re.findall(r":-(\./\w+)\}:", text):
        assert (ROOT / path).is_dir(), path
    assert (ROOT / "examples" / re.findall(r"TASKS:-([\w.]+)\}", text)[0]).is_file()
    given = r"^  (\w+):\n    file: \$\{SECRETS_DIR:-\./secrets\}/\1$"
    declared = set(re.findall(given, text, re.M))
    used = set(re.findall(r"/run/secrets/(\w+)", text))
    assert declared == used == {"nats_password", "gateway_token"}


def test_compose_runs_commands_that_exist() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    commands = re.findall(r'^    command: \["(\w+)"\]', text, re.M)
    assert commands == ["api", "worker"]
    for arguments in [*([command] for command in commands), ["status", "--here"]]:
        command = [*arguments, "--help"]
        done = CliRunner().invoke(build(command), command)
        assert done.exit_code == 0, done.output


def test_the_image_holds_the_package_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (.+) \S+$", text, re.M)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for path in " ".join(copied).split():
        assert (ROOT / path).exists(), path
        assert f"!{path}\n" in ignored, path
    assert re.search(r"^USER (?!root)", text, re.M)
    assert 'ENTRYPOINT ["jetmap"]' in text
