"""A session goes on between two maps: what a function without a file uses is what it is now."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

import jetmap
from jetmap.functions.by_value import pickled, unpickled
from jetmap.functions.function import Function
from processes import nothing_left, run_python
from waiting import PATIENCE

SESSION = """
import math as m
import numpy as np
from dataclasses import dataclass
from jetmap import Cluster, task

def run(cell):
    exec(compile(cell, "<cell>", "exec"), globals())

cluster = Cluster({options}).sync.__enter__()
cells = {cells!r}
for cell in cells:
    run(cell)
    try:
        here = [f(1), f(2)]
    except Exception as error:
        here = type(error).__name__
    try:
        print(here, cluster.map(f, [1, 2]))
    except Exception as error:
        print(here, type(error).__name__, error.type)
cluster.close()
"""

F = "@task\ndef f(n):\n    return "
SIBLINGS = {
    "global": ["K = 3\n" + F + "n * K", "K = 4", "K = 'x'"],
    "helper": ["def g(n): return n\n" + F + "g(n)", "def g(n): return -n"],
    "helper's global": ["K = 3\ndef g(n): return n * K\n" + F + "g(n)", "K = 5"],
    "class": [
        "class A:\n    def run(self, n): return n\n" + F + "A().run(n)",
        "class A:\n    def run(self, n): return -n",
        "A.run = lambda self, n: 7 * n",
    ],
    "list": ["xs = [1]\n" + F + "n + sum(xs)", "xs.append(10)"],
    "dict": ["d = {'a': 1}\n" + F + "n + d['a']", "d['a'] = 100"],
    "array": ["a = np.zeros(1000)\n" + F + "n + int(a.sum())", "a[7] = 5"],
    "closure": [
        "def make():\n    k = 1\n    def set(v):\n        nonlocal k\n        k = v\n"
        "    @task\n    def f(n):\n        return n + k\n    return f, set\nf, set = make()",
        "set(40)",
    ],
    "default": ["@task\ndef f(n, *, k=1):\n    return n + k", "f.__kwdefaults__['k'] = 9"],
    "alias": [F + "m.sqrt(n) if hasattr(m, 'fsum') else 'numpy'", "import numpy as m"],
    "attribute": [F + "n + f.k\nf.k = 1", "f.k = 2"],
    "appears and goes": [F + "n + late", "late = 5", "del late"],
    "itself": [F + "n", F + "n + 1"],
    "code": [F + "n", "f.__code__ = (lambda n: n + 100).__code__"],
}


@pytest.mark.parametrize("options", ["cores=1", "inline=True"], ids=["embedded", "inline"])
def test_what_a_function_uses_is_what_it_is_now(tmp_path: Path, options: str) -> None:
    """Each cell of each session changes something; one program for all, as a worker lives on."""
    cells = [cell for cells in SIBLINGS.values() for cell in cells]
    code = SESSION.format(options=options, cells=cells)
    with nothing_left():
        done = run_python(code, cwd=tmp_path, file=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert len(told) == len(cells)
    for cell, line in zip(cells, told, strict=True):
        here, _, there = line.partition(" " if line[0].isalpha() else "] ")
        if line[0].isalpha():
            assert there == f"ItemRaised {here}", (cell, line)
        else:
            assert there == f"{here}]", (cell, line)


@pytest.mark.slow
def test_a_redefined_type_is_what_annotations_mean(tmp_path: Path) -> None:
    code = """
    from dataclasses import dataclass
    from jetmap import Cluster, task

    @dataclass
    class T:
        x: int

    @task
    def f(t: T) -> list[T]:
        return [T(t.x), isinstance(t, T) and t]

    @task
    def g(t: "T") -> "list[T]":
        return f(t)

    with Cluster(cores=1).sync as cluster:
        print(cluster.map(f, [T(1)]), cluster.map(g, [T(1)]))

        @dataclass
        class T:
            x: int
            y: int = 2

        for task in (f, g):
            found = cluster.map(task, [T(1)])
            print(found, [type(t) is T for t in found[0]])
    """
    with nothing_left():
        done = run_python(textwrap.dedent(code), cwd=tmp_path, file=False)
    new = "[[T(x=1, y=2), T(x=1, y=2)]] [True, True]"
    assert (done.stdout.splitlines(), done.stderr) == (
        ["[[T(x=1), T(x=1)]] [[T(x=1), T(x=1)]]", new, new],
        "",
    )


def session_function(source: str, **scope: Any) -> Function:
    """A function as a cell defines it."""
    names: dict[str, Any] = {"__name__": "__main__", **scope}
    exec(compile(textwrap.dedent(source), "<cell>", "exec"), names)
    return Function(names["f"])


def test_a_global_that_is_too_large_is_named_and_never_copied() -> None:
    class Huge:
        """Would take a gigabyte; counts how far the pickle got."""

        parts = 0

        def __reduce__(self) -> Any:
            def items() -> Any:
                for number in range(1000):
                    Huge.parts += 1
                    yield number.to_bytes(4, "big") * 250_000

            return list, (), None, items()

    function = session_function("def f(n): return len(table)", table=Huge())
    with pytest.raises(jetmap.NotImportable) as caught:
        pickled(function, 1_000_000)
    assert "with its global 'table' it takes more than the limit of 1,000,000 bytes" in str(
        caught.value
    )
    assert Huge.parts < 10


def test_an_unchanged_function_is_the_same_reference() -> None:
    """Workers tell by its digest that they have it."""
    function = session_function("def f(n): return n * K + sum(xs)", K=3, xs=[1])
    first = pickled(function)
    assert pickled(function) == first
    function.scope["xs"].append(2)
    assert pickled(function) != first
    again = unpickled(pickled(function), "f")
    assert again.callable(2) == 9


def test_a_script_that_changes_its_global_is_warned(tmp_path: Path) -> None:
    """Its workers import the file, and keep what that says."""
    code = """
    import warnings
    from jetmap import Cluster, task

    K, L, UNUSED = 3, "a", 1

    def helper():
        return L

    @task
    def f(n: int) -> str:
        return f"{n * K}{helper()}"

    if __name__ == "__main__":
        with Cluster(cores=1).sync as cluster:
            for K, L, UNUSED in ((3, "a", 1), (3, "a", 2), (4, "a", 2), (4, "b", 2), (4, "b", 3)):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    values = cluster.map(f, [1])
                print(values, *(str(each.message)[:44] for each in caught))
    """
    with nothing_left():
        done = run_python(textwrap.dedent(code), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "['3a']",
        "['3a']",
        "['3a'] the script changed K from 3 to 4 between two",
        "['3a'] the script changed L from 'a' to 'b' between",
        "['3a']",
    ]
