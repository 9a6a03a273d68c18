"""Hosts with a network of their own: namespaces on a bridge, whose cables can be pulled."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess


def reason_to_skip() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (iproute2)"
    name = f"jmt{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


class Net:
    """A bridge on this host, and hosts (network namespaces) that are plugged into it."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(3)
        # Of the documentation's networks: nobody routes them.
        self._subnet = f"198.18.{secrets.randbelow(256)}"
        self.address = f"{self._subnet}.1"
        self._bridge = f"jmb{self._id}"
        self._hosts: list[str] = []

    def __enter__(self) -> Net:
        ip("link", "add", self._bridge, "type", "bridge")
        ip("address", "add", f"{self.address}/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts:
            subprocess.run(["ip", "netns", "delete", host], check=False)
        subprocess.run(["ip", "link", "delete", self._bridge], check=False)

    def host(self) -> str:
        """A new host's name."""
        number = len(self._hosts) + 2
        name, ours, theirs = (f"jm{kind}{self._id}{number}" for kind in "hvw")
        ip("netns", "add", name)
        self._hosts.append(name)
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("link", "set", ours, "master", self._bridge, "up")
        ip("-n", name, "address", "add", f"{self._subnet}.{number}/24", "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def cut(self, host: str) -> None:
        """Pulls the host's cable."""
        ip("link", "set", host.replace("jmh", "jmv"), "down")

    def mend(self, host: str) -> None:
        ip("link", "set", host.replace("jmh", "jmv"), "up")


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def inside(host: str) -> tuple[str, ...]:
    """Return the command that runs another one on that host."""
    return ("ip", "netns", "exec", host)
