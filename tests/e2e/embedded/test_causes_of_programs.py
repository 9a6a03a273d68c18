"""The exceptions that a program defines keep their classes there and back."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from processes import run_python

PROGRAM = """
    from jetmap import Cluster, ItemRaised, task

    class Wrong(ValueError):
        def __init__(self, code, *, where):
            super().__init__(f"{code} {where}")
            self.code = code

    @task
    def f(n):
        raise Wrong(n, where="home")

    if __name__ == "__main__":
        with Cluster().sync as cluster:
            try:
                cluster.map(f, [7])
            except ItemRaised as error:
                cause = error.__cause__
                print(type(cause) is Wrong, cause.code, cause)
                print("in f" in cause.__notes__[0])
"""


@pytest.mark.parametrize("start", ["script", pytest.param("session", marks=pytest.mark.slow)])
def test_classes_of_a_program_keep_their_identity(tmp_path: Path, start: str) -> None:
    code = textwrap.dedent(PROGRAM)
    done = run_python(code, cwd=tmp_path, file=start == "script")
    assert (done.stdout.splitlines(), done.stderr) == (["True 7 7 home", "True"], "")
