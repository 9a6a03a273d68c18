"""The machine: cores, memory, pinning, death with the parent, a child's environment."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from . import cgroups

# The names under which a script's own module is known, here and in a worker.
MAIN = ("__main__", "__mp_main__")
# The directory for temporary files if no disk is writable.
MEMORY_DIRECTORY = "/dev/shm"
# Files that are opened to start a process, at most.
SPAWN_DESCRIPTORS = 8
# The prefix of variables that are settings.
PREFIX = "JETMAP_"

# Variables for libraries that would start a thread for each core on import.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)


# How glibc keeps freed memory. Without these it returns the heap to the kernel after every large
# chunk, and faults it in again for the next one. All three: the trim threshold alone would turn
# off the adaptive mmap threshold.
MALLOC_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
    "MALLOC_TOP_PAD_": str(1 << 20),
}

# The same, by mallopt's numbers: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD.
MALLOC_PARAMETERS = {
    -1: "MALLOC_TRIM_THRESHOLD_",
    -2: "MALLOC_TOP_PAD_",
    -3: "MALLOC_MMAP_THRESHOLD_",
}


def steady_heap(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables with which a new process keeps its heap; none if the user tunes it."""
    is_tuned = any(name.startswith("MALLOC_") for name in environment)
    return {} if is_tuned or "GLIBC_TUNABLES" in environment else dict(MALLOC_VARIABLES)


def keep_heap() -> None:
    """Keep the heap of this process, as ``steady_heap`` does that of a new one.

    Only commands of jetmap call it, never the library in a user's process.
    """
    if sys.platform != "linux" or not steady_heap(os.environ):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Only glibc has it.
    if mallopt is not None:
        for parameter, variable in MALLOC_PARAMETERS.items():
            mallopt(parameter, int(MALLOC_VARIABLES[variable]))


def usual_signals() -> None:
    """Unblock all signals, and let this process wait for its children, whoever has started it.

    A program's blocked signals, and an ignored SIGCHLD, pass to all processes that it starts. Only
    processes of ours call this, at their start.
    """
    import signal

    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector: it would visit again and again what will stay.

    For processes of ours only. In the end, everything there is counts as what stays.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def one_thread() -> dict[str, str]:
    """Return variables that keep numeric libraries to one thread, if set before their import."""
    return dict.fromkeys(THREAD_VARIABLES, "1")


def without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without ``JETMAP_...`` variables.

    They may be passwords and tokens, addresses with a password, names of secret files, or misspelt
    ones of that kind. Settings reach workers another way.
    """
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX)}


def limit_memory(size: int | None) -> None:
    """Limit this process's data to ``size`` bytes, above which Python raises MemoryError."""
    if size is None:
        return
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; exit if it is dead already.

    parent: the pid that started this process. Only Linux can do this; elsewhere the worker ends at
    its next read of the closed pipe.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig, sigkill = 1, 9
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, sigkill, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


# The program that a child runs before it becomes its command, so that it ends with the process that
# started it, however that ends. On Linux the kernel does this (for the starting thread); elsewhere
# a child of the command watches both. (A preexec_fn would be unsafe beside threads.)
TETHER = """\
import os, signal, sys, time
parent, binary, *arguments = sys.argv[1:]
parent, own = int(parent), os.getpid()
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
else:
    if os.fork() == 0:
        os.closerange(0, 3)
        while os.getppid() == own:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os.kill(own, signal.SIGKILL)
            time.sleep(0.2)
        os._exit(0)
if os.getppid() == parent:
    os.execv(binary, [binary, *arguments])
"""


def tethered(*command: str) -> list[str]:
    """Return a command that runs ``command``, an executable and its arguments, as a tied child.

    It ends when the thread (Linux) or the process (elsewhere) that starts it ends.
    """
    return [sys.executable, "-I", "-S", "-c", TETHER, str(os.getpid()), *command]


def pin(cpu: int | None) -> None:
    """Pin this process to one core, if the system can."""
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, {cpu})
        except OSError:
            # The mask has shrunk since it was read; an unpinned worker still computes.
            return


def pin_process(pid: int, cpu: int | None) -> None:
    """Pin all threads of another process to one core, if the system can."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        return
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        threads = [pid]
    for thread in threads:
        try:
            os.sched_setaffinity(thread, {cpu})
        except OSError:
            continue  # It has ended, or the mask has shrunk.


def allowed_cpus() -> list[int]:
    """List the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def memory() -> int:
    """Return the bytes of memory of this machine, or of its cgroup if that has fewer."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *cgroups.memory_limits()])


def free_memory() -> int:
    """Return the bytes that new processes may take on this machine, or in its cgroup."""
    import psutil

    return min([int(psutil.virtual_memory().available), *cgroups.free_memory()])


def memory_kills() -> int:
    """Return how many processes the kernel killed for want of memory, in this cgroup or at all."""
    if (kills := cgroups.memory_kills()) is not None:
        return kills
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0  # Not Linux.
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def choose_cores(wanted: str | int | None) -> list[int | None]:
    """Choose the core of each worker to start; None: not pinned.

    wanted: None for all that affinity and cgroup allow, a count ("4"), or a list ("0,2-3").
    If the quota is below the mask nothing is pinned, so that the scheduler can move workers.
    Raises ConfigurationError for anything else, and for a core that is not allowed.
    """
    allowed = allowed_cpus()
    text = "" if wanted is None else str(wanted).strip()
    if _is_number(text) and int(text) > 0:
        count = int(text)
    elif not text:
        limit = cgroups.quota()
        count = len(allowed)
        if limit is not None and limit < count:
            return [None] * max(1, int(limit))
    else:
        return list(_listed(text, allowed))
    limit = cgroups.quota()
    if count > len(allowed) or (limit is not None and limit < len(allowed)):
        return [None] * count
    return list(allowed[:count])


def _listed(text: str, allowed: list[int]) -> list[int]:
    from .errors import ConfigurationError

    cores: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        last = last or first
        if not (_is_number(first) and _is_number(last)) or int(last) < int(first):
            raise ConfigurationError(
                [f"cores: {text!r} is neither a count, as in 4, nor a list, as in 0,2-3"]
            )
        # An absurd number must not make an absurdly long list.
        cores.extend(range(int(first), min(int(last), max(allowed) + 1) + 1))
        cores.append(int(last))
    missing = [str(core) for core in dict.fromkeys(cores) if core not in allowed]
    if missing:
        may = ",".join(map(str, allowed))
        raise ConfigurationError(
            [f"cores: {text!r} names core {', '.join(missing)}; this process may use {may}"]
        )
    return list(dict.fromkeys(cores))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def boot_id() -> str:
    """Return the id of the running kernel, the same in its containers; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def require_descriptors(count: int = SPAWN_DESCRIPTORS) -> None:
    """Raise OSError (EMFILE) if this process cannot open this number of further files.

    Without them, an event loop cannot begin, and uvloop prints a traceback of its own if it cannot
    start a process.
    """
    opened: list[int] = []
    try:
        for _ in range(count):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for number in opened:
            os.close(number)


def advice_for(error: BaseException) -> str:
    """Return what to do about a limit of the system, as the end of a sentence, or an empty text."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return ": raise the limit of open files (ulimit -n)"
    if number == errno.EAGAIN:
        return ": raise the limit of processes (ulimit -u)"
    return ": free some of the disk" if number in (errno.ENOSPC, errno.EDQUOT) else ""


def working_directory() -> Path:
    """Return the current directory.

    Raises ConfigurationError if it was removed, or if its name cannot be sent as text.
    """
    from .errors import ConfigurationError

    try:
        path = Path.cwd()
    except FileNotFoundError:
        raise ConfigurationError(
            ["the current directory was removed: change into one that exists (cd)"]
        ) from None
    check_text("the current directory", str(path))
    return path


def check_text(what: str, path: str) -> None:
    """Raise ConfigurationError if a path is not UTF-8, as messages to workers are."""
    from .errors import ConfigurationError

    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            [
                f"the name of {what} is not UTF-8: {path!a}; rename it, or set PYTHONUTF8=1 if it "
                "is, and only the locale has another encoding"
            ]
        ) from None


def temporary_directory() -> str:
    """Return the directory for temporary files; on a read-only system one in memory.

    Raises ConfigurationError if nothing is writable.
    """
    import tempfile  # Not at the top: workers, which start often, need neither.

    from .errors import ConfigurationError

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        if os.access(MEMORY_DIRECTORY, os.W_OK):
            return MEMORY_DIRECTORY
    raise ConfigurationError(
        [
            "no directory for temporary files is writable, and the NATS server needs one: set "
            "TMPDIR, or mount a tmpfs at /tmp"
        ]
    )
