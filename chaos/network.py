"""A network of its own for one process, which can be cut: a namespace and a pair of veths."""

from __future__ import annotations

import os
import shutil
import subprocess


class Network:
    """number: 0 or 1. near: this machine's address in it. command: what runs a program at the far
    end, from where all addresses of this machine can be reached."""

    def __init__(self, number: int) -> None:
        key = os.getpid() % 100_000
        self._name = f"jm-soak-{key}-{number}"
        self._near_end, self._far_end = f"jmn{key}-{number}", f"jmf{key}-{number}"
        # 198.18.0.0/15: for tests (RFC 2544)
        third, fourth = key // 60 % 250, key % 60 * 4
        net = f"198.{18 + number}.{third}"
        self.near, self._far = f"{net}.{fourth + 1}", f"{net}.{fourth + 2}"
        self.command = ["ip", "netns", "exec", self._name]

    @classmethod
    def make(cls, number: int = 0) -> Network | None:
        """None where this is not allowed, or not possible."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return None
        network = cls(number)
        near, far, name = network._near_end, network._far_end, network._name
        try:
            _ip("netns", "add", name)
            _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
            _ip("addr", "add", f"{network.near}/30", "dev", near)
            _ip("link", "set", near, "up")
            _ip("-n", name, "addr", "add", f"{network._far}/30", "dev", far)
            network.mend()
        except subprocess.CalledProcessError:
            network.remove()
            return None
        return network

    def cut(self) -> None:
        _ip("-n", self._name, "link", "set", self._far_end, "down")

    def mend(self) -> None:
        _ip("-n", self._name, "link", "set", self._far_end, "up")
        _ip("-n", self._name, "route", "replace", "default", "via", self.near)

    def remove(self) -> None:
        """Delete the namespace, and with it both ends of the link."""
        for arguments in (["link", "del", self._near_end], ["netns", "del", self._name]):
            subprocess.run(["ip", *arguments], stderr=subprocess.DEVNULL, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
