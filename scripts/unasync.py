"""Generate the blocking client, ``jetmap/client/_sync``, from the asynchronous one.

    python scripts/unasync.py           write the files
    python scripts/unasync.py --check   fail if they are not what this script would write

Each public method and property of an asynchronous class becomes one of its blocking class, with
the same overloads, parameters and docstring. Its body hands the call to the cluster's event loop.
What has no asynchronous original (threads, waiting, iteration) is in ``jetmap/client/blocking.py``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).resolve().parent.parent / "cluster" / "jetmap" / "client"

CLASSES = {
    "Cluster": "SyncCluster",
    "Stream": "SyncStream",
    "Job": "SyncJob",
    "JobStream": "SyncJobStream",
}

# Module -> the start of its blocking classes; {Name} is the docstring of the original class.
HEADS = {
    "cluster": '''
class SyncCluster(BlockingCluster):
    """The methods of a ``Cluster`` for code that is not async.

    ``with Cluster().sync as cluster`` starts the cluster in a thread of its own. If the cluster is
    started already, ``cluster.sync`` uses its event loop. Any thread may call the methods, except
    for the thread of that event loop.
    """
''',
    "stream": '''
class SyncStream(BlockingStream[X, Y]):
    """{Stream}"""

    _stream: Stream[X, Y]
''',
    "job": '''
class SyncJob(Generic[X, Y]):
    """{Job}"""

    def __init__(self, wait: Wait, job: Job[X, Y]) -> None:
        self.id = job.id
        self._wait = wait
        self._job = job

class SyncJobStream(BlockingStream[None, Y]):
    """{JobStream}"""

    _stream: JobStream[Y]
''',
}
IMPORTS = """
from collections.abc import Iterable
from typing import Generic
from jetmap.client._sync.job import SyncJob, SyncJobStream
from jetmap.client._sync.stream import SyncStream
from jetmap.client.blocking import BlockingCluster, BlockingStream, Wait
from jetmap.client.job import Job, JobStream
from jetmap.client.job_status import JobStatus
from jetmap.client.stream import Stream
from jetmap.functions.advice import check_not_async
"""

# Original class -> the attribute of the blocking object that holds the original one.
INNER = {"Cluster": "_cluster", "Stream": "_stream", "Job": "_job", "JobStream": "_stream"}

LEFT_OUT = {"sync", "aclose"}  # Public members with a counterpart in blocking.py, or with none.
COPIED = {"__repr__", "__len__", "__bool__"}  # They use nothing but public members.
LISTED = {"map"}  # Methods whose items are taken in the caller's thread, before the call.
TRANSLATED = {"submit"}  # Methods whose body runs in the caller's thread, taking items there.

DOCSTRING = [
    (r"\basync (with|for)\b", r"\1"),
    (r"An async iterator, and an async context manager,", "An iterator, and a context manager,"),
    (r"``await job`` gives its results\.\n\n +", ""),
    (r"in another event loop or in a forked process", "in a forked process"),
    (r"\b(Cluster\.(?:submit|job)\b)", r"Sync\1"),
]


def generate(module: str) -> str:
    """Return the source of a generated module."""
    source = ast.parse((CLIENT / f"{module}.py").read_text())
    originals = {node.name: node for node in source.body if isinstance(node, ast.ClassDef)}
    docs = {name: _blocking_doc(node) for name, node in originals.items()}
    tree = ast.parse(
        f'"""Blocking classes, made from ``client/{module}.py`` by ``scripts/unasync.py``."""\n'
        "from __future__ import annotations\n"
    )
    tree.body += [_absolute(node) for node in _imports(source)]
    tree.body += ast.parse(IMPORTS.replace(f"from jetmap.client._sync.{module} ", "# ")).body
    for made in ast.parse(HEADS[module].format_map(docs)).body:
        assert isinstance(made, ast.ClassDef)
        (original,) = (name for name, blocking in CLASSES.items() if blocking == made.name)
        made.body += [m for node in originals[original].body if (m := _member(node, original))]
        tree.body.append(made)
    return _formatted(ast.unparse(ast.fix_missing_locations(tree)), f"{module}.py")


def _imports(source: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """List the imports of a module, also those for its annotations only, but no generated one."""
    blocks = [node for node in source.body if isinstance(node, ast.If)]
    lines = [line for block in blocks for line in block.body]
    return [
        node
        for node in (*source.body, *lines)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "_sync" not in (getattr(node, "module", None) or "")
    ]


def _member(node: ast.stmt, original: str) -> ast.FunctionDef | None:
    """Return the blocking form of a class's member; None for a private one."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name in LEFT_OUT:
        return None
    if node.name in COPIED and isinstance(node, ast.FunctionDef):
        return node
    if node.name.startswith("_"):
        return None
    made = ast.FunctionDef(
        node.name,
        Renamed().visit(deepcopy(node.args)),
        [],
        node.decorator_list,
        Renamed().visit(deepcopy(node.returns)),
        **({"type_params": []} if sys.version_info >= (3, 12) else {}),
    )
    if "overload" in map(ast.unparse, node.decorator_list):
        made.body = node.body
    else:
        doc = ast.parse(f'"""{_blocking_doc(node)}"""').body
        made.body = [*doc, *_body(node, INNER[original])]
    return made


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef, inner: str) -> list[ast.stmt]:
    """Return the statements that run a member's original on the event loop."""
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        return _statements(f"return self.{inner}.{node.name}")
    wrapper = CLASSES.get(ast.unparse(node.returns).partition("[")[0]) if node.returns else None
    first, *rest = node.body[1:]
    checks: list[ast.stmt] = []
    if ast.unparse(first).startswith("check_call("):
        checks = [Renamed().visit(deepcopy(first)), *_statements("check_not_async(items)")]
    if node.name in TRANSLATED:
        return [*checks, *(Translated(wrapper).visit(deepcopy(statement)) for statement in rest)]
    if node.name in LISTED:
        checks += _statements("items = self._listed(items)")
    arguments = [a.arg for a in [*node.args.posonlyargs, *node.args.args][1:]]
    arguments += [f"{a.arg}={a.arg}" for a in node.args.kwonlyargs]
    if node.args.kwarg is not None and not checks:  # ``check_call`` has refused them.
        arguments.append(f"**{node.args.kwarg.arg}")
    call = f"self.{inner}.{node.name}({', '.join(arguments)})"
    if isinstance(node, ast.AsyncFunctionDef):
        return [*checks, *_statements(f"return self._wait({call})")]
    assert wrapper is not None and node.returns is not None
    return [
        *checks,
        *_statements(
            f"async def start() -> {ast.unparse(node.returns)}:\n    return {call}\n"
            f"return {wrapper}(self._wait, self._wait(start()))"
        ),
    ]


class Renamed(ast.NodeTransformer):
    """Puts blocking classes in place of their originals, and leaves out async iterables."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        name = "Iterable" if node.id == "Items" else CLASSES.get(node.id, node.id)
        return ast.Name(name, node.ctx)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        is_async = ast.unparse(node.right).startswith("AsyncIterable[")
        return self.visit(node.left) if is_async else self.generic_visit(node)


class Translated(ast.NodeTransformer):
    """Turns the body of an async method of ``Cluster`` into one for the caller's thread."""

    def __init__(self, wrapper: str | None) -> None:
        self.wrapper = wrapper

    def visit_Await(self, node: ast.Await) -> Any:
        return _expression(f"self._wait({ast.unparse(self.visit(node.value))})")

    def visit_AsyncFor(self, node: ast.AsyncFor) -> Any:
        self.generic_visit(node)
        return ast.For(node.target, node.iter, node.body, node.orelse)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> Any:
        self.generic_visit(node)
        return ast.With(node.items, node.body)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        self.generic_visit(node)
        if ast.unparse(node.value) == "self":
            node.value = _expression("self._cluster")
        return node

    def visit_Return(self, node: ast.Return) -> Any:
        self.generic_visit(node)
        if self.wrapper is not None and node.value is not None:
            node.value = _expression(f"{self.wrapper}(self._wait, {ast.unparse(node.value)})")
        return node


def _blocking_doc(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    doc = ast.get_docstring(node, clean=False) or ""
    for pattern, replacement in DOCSTRING:
        doc = re.sub(pattern, replacement, doc)
    return doc


def _absolute(node: ast.Import | ast.ImportFrom) -> ast.stmt:
    if isinstance(node, ast.ImportFrom) and node.level == 1:
        return ast.ImportFrom(f"jetmap.client.{node.module}", node.names, 0)
    return node


def _statements(text: str) -> list[ast.stmt]:
    return ast.parse(text).body


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _formatted(text: str, name: str) -> str:
    """Remove unused imports, sort the others, and format as `make format` does."""
    ruff = [sys.executable, "-m", "ruff"]
    path = str(CLIENT / "_sync" / name)
    fixes = ["--fix-only", "--select", "F401,F811,I", "--per-file-ignores", f"{name}:E501"]
    for command in (["check", "-q", *fixes], ["format", "-q"]):
        text = subprocess.run(
            [*ruff, *command, "--stdin-filename", path, "-"],
            input=text,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    return text


def main() -> int:
    """Write or check every generated module; return the exit code."""
    stale = []
    for module in HEADS:
        path = CLIENT / "_sync" / f"{module}.py"
        text = generate(module)
        if not path.exists() or path.read_text() != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if "--check" in sys.argv and stale:
        print(f"client/_sync is out of date ({', '.join(stale)}): run python scripts/unasync.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
