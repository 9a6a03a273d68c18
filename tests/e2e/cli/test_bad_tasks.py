"""Tasks files that cannot be imported: each command says why, in the user's words, and no more."""

from __future__ import annotations

import re

import pytest

from house import House
from jetmap.cli.exits import Exit

TASK = "from jetmap import task\n"
TWICE = f"{TASK}@task\ndef twice(n: int) -> int:\n    return 2 * n\n"
STARTING = f"{TWICE}from jetmap import Cluster\nwith Cluster(cores=1).sync:\n    pass\n"
FILES = {
    "syntax": ("def f(:\n    pass\n", "bad.py:1: invalid syntax"),
    "none": ("import os\n", "bad.py has no @task function"),
    "two of one name": (
        f"{TASK}@task(name='twice')\ndef a(n: int): ...\n@task(name='twice')\ndef b(n: int): ...\n",
        "two functions are named 'twice': bad.a and bad.b",
    ),
    "async": (f"{TASK}@task\nasync def f(n: int): ...\n", "is not async"),
    "two parameters": (f"{TASK}@task\ndef f(a, b): ...\n", "keyword-only"),
    "raises": ("1 / 0\n", "ZeroDivisionError"),
    "nested": ("def wrong():\n    return 1 / 0\nwrong()\n", "ZeroDivisionError"),
    "no such module": ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
    "exits": ("raise SystemExit(5)\n", "SystemExit: 5"),
    "a type of no name": (f'{TASK}@task\ndef f(n: "Nope"): ...\n', "name 'Nope' is not defined"),
    "starts a cluster": (STARTING, "a Cluster cannot be started inside a worker"),
}
# Files whose own lines tell where it went wrong.
FRAMED = {
    "raises": [1],
    "nested": [3, 2],
    "no such module": [1],
    "exits": [1],
    "two parameters": [2],
    "async": [2],
    "starts a cluster": [6],
}


@pytest.fixture(params=list(FILES))
def bad(request: pytest.FixtureRequest, house: House) -> tuple[str, str]:
    name: str = request.param
    source, said = FILES[name]
    (house.directory / "bad.py").write_text(source, encoding="utf-8")
    return name, said


def test_check(house: House, bad: tuple[str, str]) -> None:
    done = house.run("check", "bad.py", "--nats", "nats://127.0.0.1:1")
    assert done.returncode == Exit.USAGE, done.stdout
    _is_to_the_point(house, done.stdout, *bad)
    assert "a fault in jetmap" not in done.stdout + done.stderr
    assert "✗ broker: " in done.stdout  # What comes later is checked too.


def test_map(house: House, bad: tuple[str, str]) -> None:
    done = house.run("map", "bad.py:f", input="1\n")
    assert done.returncode == Exit.WORKERS, done.stderr
    _is_to_the_point(house, done.stderr, *bad)


def test_check_of_several(house: House) -> None:
    for name in ("first", "second"):
        (house.directory / f"{name}.py").write_text(f"raise OSError('{name}')\n")
    (house.directory / "third.py").write_text(TWICE)
    done = house.run("check", "first.py", "second.py", "third.py")
    assert done.returncode == Exit.USAGE
    assert "OSError: first" in done.stdout and "OSError: second" in done.stdout


def test_up_with_one_name_twice(house: House) -> None:
    for name in ("one", "other"):
        (house.directory / f"{name}.py").write_text(TWICE)
    done = house.run("up", "one.py", "other.py", "--port", "0", "--nats-port", "0")
    assert done.returncode == Exit.WORKERS
    assert "two functions are named 'twice': one.twice and other.twice" in done.stderr
    assert "direct cause" not in done.stderr and "File" not in done.stderr


def _is_to_the_point(house: House, output: str, name: str, said: str) -> None:
    """The sentence once, and of the frames the user's."""
    assert output.count(said) == 1, output
    frames = re.findall(r'File "(.+)", line (\d+)', output)
    assert {file for file, _ in frames} <= {str(house.directory / "bad.py")}, output
    assert [int(line) for _, line in frames] == FRAMED.get(name, []), output
