"""The messages of a worker's start: what it is to import, and what it has found."""

from __future__ import annotations

import msgspec

from .messages import PART_BYTES, FunctionRef
from .presence import FunctionInfo


class Brought(msgspec.Struct, frozen=True):
    """A function that a caller brought, by the name of its calls."""

    name: str
    ref: FunctionRef


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame to a worker: what to import, and its limits.

    tasks: ``TASKS`` arguments. modules: dotted names. main: the path of a script whose
    functions live in ``__main__``. trust: whether chunks may name modules or carry pickles.
    grows: whether functions that chunks brought are offered by name from then on (embedded). key:
    chunks sealed with it may name modules and carry pickles, too; empty: none may. inline: bytes
    of values above which they go before their report, in a frame of their own. output_bytes: the
    most that it may print a second. log_level: for functions that configure no logging.
    log_format: of these records, and of lines that are printed.
    load_timeout: seconds for each ``per_worker`` loader. unloadable: loaders that an earlier worker
    died of, and how; they are not called at the start. proven: loaders that worked in an earlier
    worker; one that fails now does so for a passing reason. brought: functions that callers brought
    and whose loaders are slow: the worker loads them as it starts.
    """

    tasks: list[str] = []
    modules: list[str] = []
    main: str | None = None
    trust: bool = False
    memory_limit: int | None
    max_value: int
    max_report: int
    inline: int = PART_BYTES
    grows: bool = False
    key: bytes = b""
    output_bytes: int
    log_level: str
    log_format: str = "text"
    load_timeout: float = 300.0
    unloadable: dict[str, str] = {}
    proven: list[str] = []
    brought: list[Brought] = []


class Ready(msgspec.Struct, frozen=True):
    """A worker's answer to ``Setup``, again when it has imported more.

    source: digest of the source files that it loaded; files: their paths, to watch; digests: one
    for each file. loads: the loaders that it called so far, and the seconds of each.
    """

    functions: list[FunctionInfo]
    source: str
    files: list[str]
    digests: list[str] = []
    loads: dict[str, float] = {}


class Joined(msgspec.Struct, frozen=True):
    """Notice that a dispatcher shares memory with a worker.

    items, values: descriptors in the agent, of the dispatcher's items and of this worker's values.
    arena: number of the latter.
    """

    inbox: str
    items: int
    values: int
    arena: int


class Unshared(msgspec.Struct, frozen=True):
    """Notice that a worker cannot map the memory of a ``Joined``. items: as there."""

    inbox: str
    items: int
    message: str


class Importing(msgspec.Struct, frozen=True):
    """Notice that a worker imports a module (by name) or a script (by path) for its callers.

    home: empty once it has done so. file: its path, if known. loader: the ``per_worker`` loader
    that it calls instead, for the function ``home``; seconds: those that it may take.
    """

    home: str = ""
    file: str = ""
    loader: str = ""
    seconds: float = 0.0


class Broken(msgspec.Struct, frozen=True):
    """A module or script that a worker cannot import, and why. files: to watch for changes.

    loader: the ``per_worker`` loader that fails instead, for the function ``home``.
    """

    home: str
    text: str
    files: list[str] = []
    loader: str = ""


class Loaded(msgspec.Struct, frozen=True):
    """Loaders that have worked after the start, and the seconds of each.

    brought: the function that needs them, if a caller brought it.
    """

    loads: dict[str, float]
    brought: Brought | None = None


class StartFailed(msgspec.Struct, frozen=True):
    """The exception that kept a worker from importing its functions.

    files: those whose change may mend it.
    """

    type: str
    message: str
    traceback: str
    files: list[str] = []
