"""Tasks files that cannot be imported, and what users must read about each."""

from __future__ import annotations

import re
from pathlib import Path

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
    "exits": ("raise SystemExit(5)\n", "ends its process (SystemExit: 5); put what it does"),
    "asks for arguments": (
        "import argparse\np = argparse.ArgumentParser()\np.parse_args(['--no'])\n",
        "ends its process (SystemExit: 2)",
    ),
    "quits": ("quit()\n", "ends its process (SystemExit: None)"),
    "a type of no name": (f'{TASK}@task\ndef f(n: "Nope"): ...\n', "name 'Nope' is not defined"),
    "starts a cluster": (STARTING, "a Cluster cannot be started inside a worker"),
}
# Files whose own lines tell where it went wrong.
FRAMED = {
    "raises": [1],
    "nested": [3, 2],
    "no such module": [1],
    "exits": [1],
    "asks for arguments": [3],
    "quits": [1],
    "two parameters": [2],
    "async": [2],
    "starts a cluster": [6],
}


def is_to_the_point(directory: Path, output: str, name: str) -> None:
    """Check that the sentence stands there once and that all frames are the user's."""
    assert output.count(FILES[name][1]) == 1, output
    frames = re.findall(r'File "(.+)", line (\d+)', output)
    assert {file for file, _ in frames} <= {str(directory / "bad.py")}, output
    assert [int(line) for _, line in frames] == FRAMED.get(name, []), output
