"""Functions of a notebook or a REPL, with types that are defined there too."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from processes import nothing_left, run_python

TYPES = {
    "dataclass": ("@dataclass\nclass T:\n    x: int", "T(1)", "T(x=2)"),
    "named tuple": ("class T(NamedTuple):\n    x: int", "T(1)", "T(x=2)"),
    "typed dict": ("class T(TypedDict):\n    x: int", "T(x=1)", "{'x': 2}"),
    "enum": ("class T(Enum):\n    ONE = 1\n    TWO = 2", "T.ONE", "T.TWO"),
    "pydantic model": ("class T(BaseModel):\n    x: int", "T(x=1)", "x=2"),
    "nested": (
        "@dataclass\nclass Inner:\n    n: int\n"
        "@dataclass\nclass T:\n    x: int\n    inner: Inner\n    more: 'list[T] | None' = None",
        "T(1, Inner(5), [T(3, Inner(4))])",
        "T(x=2, inner=Inner(n=5), more=[T(x=3, inner=Inner(n=4), more=None)])",
    ),
}

SESSION = """
{future}
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypedDict
from pydantic import BaseModel
from jetmap import Cluster, task

def following(t):
    if isinstance(t, Enum):
        return T.TWO
    if isinstance(t, dict):
        return {{"x": t["x"] + 1}}
    if isinstance(t, tuple):
        return T(t.x + 1)
    if isinstance(t, BaseModel):
        return T(x=t.x + 1)
    return replace(t, x=t.x + 1)

with Cluster(cores=1).sync as cluster:
"""
CELL = """
{definition}

@task(name={kind!r})
def f(t: T) -> T:
    return following(t)

print(*cluster.map(f, [{item}]))
print(*cluster.map(f, [{item}, {item}]))
"""


# The first map makes what msgspec keeps on the class; later ones must not trip over it.
@pytest.mark.parametrize(
    "future",
    ["", pytest.param("from __future__ import annotations", marks=pytest.mark.slow)],
    ids=["", "text"],
)
def test_types_of_the_session(tmp_path: Path, future: str) -> None:
    code = SESSION.format(future=future)
    expected = []
    for kind, (definition, item, value) in TYPES.items():
        cell = CELL.format(definition=definition, item=item, kind=kind.replace(" ", "_"))
        code += textwrap.indent(cell, "    ")
        expected += [value, f"{value} {value}"]
    with nothing_left():
        done = run_python(code, cwd=tmp_path, file=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == expected


@pytest.mark.slow
def test_struct_of_the_session_is_refused(tmp_path: Path) -> None:
    code = """
    import msgspec
    from jetmap import Cluster, task

    class T(msgspec.Struct):
        x: int

    @task
    def f(t: T) -> T:
        return t

    with Cluster().sync as cluster:
        for _ in range(2):
            try:
                cluster.map(f, [T(1)])
            except Exception as error:
                print(type(error).__name__, error)
    """
    done = run_python(textwrap.dedent(code), cwd=tmp_path, file=False)
    told = (
        "NotImportable f was defined without a file, and cannot be sent by value: T is a "
        "msgspec.Struct, which can only be imported: define it in a module, or make it a "
        "dataclass; move it to a module"
    )
    assert (done.stdout.splitlines(), done.stderr) == ([told, told], "")
