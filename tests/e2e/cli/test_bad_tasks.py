"""Tasks files that cannot be imported: each command says why, in the user's words, and no more."""

from __future__ import annotations

import pytest

from bad_tasks import FILES, TWICE, is_to_the_point
from house import House
from jetmap.cli.exits import Exit


def test_map(house: House) -> None:
    """tests/unit/functions/test_import_errors.py has each kind."""
    name = "starts a cluster"
    (house.directory / "bad.py").write_text(FILES[name][0], encoding="utf-8")
    done = house.run("map", "bad.py:f", input="1\n")
    assert done.returncode == Exit.WORKERS, done.stderr
    is_to_the_point(house.directory, done.stderr, name)


def test_check_of_several(house: House) -> None:
    for name in ("first", "second"):
        (house.directory / f"{name}.py").write_text(f"raise OSError('{name}')\n")
    (house.directory / "third.py").write_text(TWICE)
    done = house.run("check", "first.py", "second.py", "third.py")
    assert done.returncode == Exit.USAGE
    assert "OSError: first" in done.stdout and "OSError: second" in done.stdout


@pytest.mark.slow
def test_up_with_one_name_twice(house: House) -> None:
    for name in ("one", "other"):
        (house.directory / f"{name}.py").write_text(TWICE)
    done = house.run("up", "one.py", "other.py", "--port", "0", "--nats-port", "0")
    assert done.returncode == Exit.WORKERS
    assert "two functions are named 'twice': one.twice and other.twice" in done.stderr
    assert "direct cause" not in done.stderr and "File" not in done.stderr


ENDINGS = {
    "import os; os._exit(0)": "exited with code 0 while it imported ends.py; ",
    "import ctypes; ctypes.string_at(0)": "was killed by SIGSEGV while it imported ends.py; ",
}


EXITS, CRASHES = ENDINGS


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("check", EXITS),
        ("up", CRASHES),
        pytest.param("map", EXITS, marks=pytest.mark.slow),
        pytest.param("check", CRASHES, marks=pytest.mark.slow),
        pytest.param("up", EXITS, marks=pytest.mark.slow),
        pytest.param("map", CRASHES, marks=pytest.mark.slow),
    ],
)
def test_a_file_that_ends_its_process(house: House, command: str, code: str) -> None:
    (house.directory / "ends.py").write_text(f"{TWICE}{code}\n")
    if command == "map":
        done = house.run("map", "ends.py:twice", input="1\n")
    else:
        ports = ["--port", "0", "--nats-port", "0"]
        done = house.run(command, "ends.py", *ports)
    assert done.returncode == (Exit.USAGE if command == "check" else Exit.WORKERS)
    said = done.stdout + done.stderr
    assert said.count(ENDINGS[code]) == 1 and "Traceback" not in said
