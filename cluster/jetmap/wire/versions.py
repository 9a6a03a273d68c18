"""Versions of Python and of packages, which decide whose pickles a process can read."""

from __future__ import annotations

import platform
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .presence import Presence

# Packages whose versions are announced: ours, and those that decide how values look.
PACKAGES = ("jetmap", "msgspec", "cloudpickle", "pydantic", "numpy", "pandas")


@cache
def python_version() -> str:
    """Return the version, as in "3.11.7"; with the name of an implementation other than CPython."""
    name = platform.python_implementation()
    return platform.python_version() if name == "CPython" else f"{name} {platform.python_version()}"


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    from importlib import metadata  # For those who announce them, as it is slow to import.

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def pickles() -> str:
    """Name the kind of pickled functions that this process writes and reads.

    They hold bytecode, which each minor version of Python changes; another one crashes on it.
    """
    return pickles_of(python_version(), package_versions())


def pickles_of(python: str, packages: Mapping[str, str]) -> str:
    """Name a kind of pickled functions: equal for processes that can read each other's."""
    return f"Python {_minor(python)}, cloudpickle {_minor(packages.get('cloudpickle', ''))}"


def versions_text(python: str, packages: Mapping[str, str]) -> str:
    """Describe the versions that matter to pickles, for people."""
    if not python:
        return "an older jetmap, which does not announce its Python"
    return f"Python {python} with cloudpickle {packages.get('cloudpickle', '(none)')}"


def differences(agents: Iterable[Presence]) -> list[str]:
    """Return a line for each version in which the hosts of a pool differ."""
    found: dict[str, dict[str, list[str]]] = {}
    for agent in agents:
        if not agent.python:
            continue
        versions = {"Python": agent.python, **{p: "none" for p in PACKAGES}, **agent.packages}
        for name, version in versions.items():
            hosts = found.setdefault(name, {}).setdefault(version, [])
            if agent.host not in hosts:
                hosts.append(agent.host)
    return [
        f"{name}: " + "; ".join(f"{v} on {', '.join(hosts)}" for v, hosts in sorted(each.items()))
        for name, each in found.items()
        if len(each) > 1
    ]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
