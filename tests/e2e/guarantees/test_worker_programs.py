"""Programs that work elsewhere work in a worker: they fork, start processes, set signal handlers,
print and log. Each is run by a real worker, and its value and output compared."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

import programs
from jetmap import Cluster, WorkerLost
from processes import alive
from servers import AgentProcess, Site, check, site
from waiting import PATIENCE, wait_for, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("programs")) as there:
        yield there


@pytest.fixture(scope="module")
async def cluster(place: Site) -> Cluster:
    return await place.cluster()


@pytest.fixture(scope="module")
async def agent(place: Site, cluster: Cluster) -> AgentProcess:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JETMAP_LOG_LEVEL", "info")
        return await place.agent(cluster, programs.__file__, "--output-bytes", "64KiB")


async def run(cluster: Cluster, *codes: str) -> list[object]:
    async with asyncio.timeout(PATIENCE):
        return await cluster.map(
            programs.program, [dedent(code) for code in codes], return_exceptions=True
        )


def lines_of(agent: AgentProcess, text: str) -> list[tuple[int | None, str]]:
    """Item and text of each line of output that holds this."""
    found = []
    for line in agent.said.splitlines():
        if text in line:
            match = re.match(r"\[(?:\S+ item (\d+)|worker \d+)\] (.*)", line)
            assert match is not None, f"not marked: {line}"
            found.append((int(match[1]) if match[1] else None, match[2]))
    return found


# Forked children

WAIT = "result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
FORKS = {
    "returns": (f"pid = os.fork()\nif pid: {WAIT}\nelse: result = 'child'", 0),
    "raises": (f"pid = os.fork()\nif pid: {WAIT}\nelse: raise ValueError('in the child')", 1),
    "exits": (f"import sys\npid = os.fork()\nif pid: {WAIT}\nelse: sys.exit(7)", 7),
    "forkpty": (
        """
        pid, terminal = os.forkpty()
        if pid:
            result = os.read(terminal, 100).decode().split()
            os.waitpid(pid, 0)
        else:
            print("in the terminal", flush=True)
        """,
        ["in", "the", "terminal"],
    ),
    "in a thread": (
        """
        import threading
        def fork():
            global pid
            pid = os.fork()
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """,
        0,
    ),
    "has threads": (
        f"""
        import threading
        reading, writing = os.pipe()
        pid = os.fork()
        if pid: {WAIT}; result = [result, os.read(reading, 10).decode()]
        else:
            gate = threading.Event()
            threading.Thread(target=lambda: (gate.wait(), os.write(writing, b"done"))).start()
            threading.Timer(0.01, gate.set).start()
        """,
        [0, "done"],
    ),
    "at exit": (
        f"""
        import atexit
        atexit.register(os.fork)
        pid = os.fork()
        if pid: {WAIT}
        """,
        0,
    ),
    "preexec_fn": (
        "import subprocess\nresult = subprocess.run(['true'], preexec_fn=os.getpid).returncode",
        0,
    ),
}


@pytest.mark.parametrize("how", FORKS)
async def test_a_forked_child_never_answers(
    cluster: Cluster, agent: AgentProcess, how: str
) -> None:
    code, expected = FORKS[how]
    program = "import os\n" + dedent(code)
    # Neighbours: a second answer would be theirs.
    values = await run(cluster, "result = 1", program, "result = 2", program, "result = 3")
    assert values == [1, expected, 2, expected, 3]
    assert "is not understood" not in agent.said


async def test_a_child_that_outlives_its_item(
    cluster: Cluster, agent: AgentProcess, tmp_path: Path
) -> None:
    gate, done = tmp_path / "gate", tmp_path / "done"
    program = f"""
        import os, time
        from pathlib import Path
        pid = result = os.fork()
        if not pid:
            while not Path({str(gate)!r}).exists():
                time.sleep(0.01)
            Path({str(done)!r}).touch()
            result = "child"
        """
    (pid,) = await run(cluster, program)
    assert isinstance(pid, int) and alive(pid)
    assert await run(cluster, *["result = 1"] * 50) == [1] * 50
    gate.touch()
    # (It is a zombie until its parent waits for it, as anywhere.)
    await wait_until(lambda: done.exists() and not alive(pid), "the child ends")
    assert await run(cluster, *["result = 1"] * 50) == [1] * 50


async def test_a_child_that_prints_and_fails(cluster: Cluster, agent: AgentProcess) -> None:
    await run(
        cluster,
        "result = 0",
        """
        import os
        print("before the fork", end="")
        pid = os.fork()
        print(" and child-talk", flush=True)
        if pid: os.waitpid(pid, 0)
        else: raise ValueError("child-fault")
        """,
    )
    await wait_until(lambda: "child-fault" in agent.said, "the traceback is there")
    said = lines_of(agent, "child-talk")
    assert sorted(said) == [(1, " and child-talk"), (1, "before the fork and child-talk")]
    assert lines_of(agent, "child-fault") == [(1, "ValueError: child-fault")]


@pytest.mark.slow
async def test_a_fork_at_import(tmp_path: Path) -> None:
    ends = {"pass": 0, "raise ValueError('at import')": 1, "raise SystemExit(4)": 4}
    files = []
    for number, end in enumerate(ends):
        files.append(tmp_path / f"forking_{number}.py")
        files[-1].write_text(
            "import os\n"
            "from jetmap import task\n"
            "pid = os.fork()\n"
            "if not pid:\n"
            f"    {end}\n"
            "else:\n"
            "    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
            "@task\n"
            f"def code_{number}(n: int) -> int:\n"
            "    return code\n"
        )
    async with Cluster(tasks=list(map(str, files)), share=False, cores=1) as cluster:
        for number, code in enumerate(ends.values()):
            assert await cluster.map(f"code_{number}", [1, 2, 3]) == [code] * 3


POOL = """
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        result = pool.map(abs, [-1, -2, -3])
    """


async def test_a_multiprocessing_pool_in_an_item(cluster: Cluster, agent: AgentProcess) -> None:
    async with asyncio.timeout(300):
        values = await cluster.map(programs.program, [dedent(POOL)] * 10)
    assert values == [[1, 2, 3]] * 10


async def test_a_process_pool_and_a_spawned_process(cluster: Cluster, agent: AgentProcess) -> None:
    executor = """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(1, multiprocessing.get_context({0!r})) as pool:
            result = list(pool.map(abs, [-1, -2]))
        """
    methods = ("fork", "spawn", "forkserver")
    assert await run(cluster, *map(executor.format, methods)) == [[1, 2]] * 3


# Signals

ASK = """
    import signal
    print([getattr(signal.getsignal(n), "name", "a function") for n in (1, 2, 15)], end=" ")
    print(len(signal.pthread_sigmask(0, ())))
    """
SPAWNED = """
    import subprocess, sys
    result = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True).stdout
    """
EXECUTED = """
    import os, sys
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(writing, 1)
        os.execv(sys.executable, [sys.executable, "-c", ASK])
    os.waitpid(pid, 0)
    result = os.read(reading, 100).decode()
    """


async def test_children_start_with_default_dispositions(
    cluster: Cluster, agent: AgentProcess
) -> None:
    ask = f"ASK = {dedent(ASK)!r}\n"
    values = await run(cluster, ask + dedent(SPAWNED), ask + dedent(EXECUTED))
    assert values == ["['SIG_DFL', 'a function', 'SIG_DFL'] 0\n"] * 2  # As in any Python.


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
async def test_a_child_can_be_ended(cluster: Cluster, agent: AgentProcess, number: str) -> None:
    spawned = f"""
        import signal, subprocess
        child = subprocess.Popen(["sleep", "600"])
        child.send_signal(signal.{number})
        result = child.wait()
        """
    forked = f"""
        import os, signal
        pid = os.fork()
        if pid:
            os.kill(pid, signal.{number})
            result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            import time
            time.sleep(600)
        """
    killed = -int(getattr(signal, number))
    by_spawned, by_forked = await run(cluster, spawned, forked)
    assert by_spawned == killed
    # SIGINT is KeyboardInterrupt there, as in any Python program, unless it came at its birth.
    assert by_forked == killed or (number == "SIGINT" and by_forked == 1)


async def test_a_worker_obeys_no_signal_but_its_agents(
    cluster: Cluster, agent: AgentProcess
) -> None:
    before = {worker.pid for worker in agent.workers}
    program = """
        import os, signal
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        result = os.getpid()
        """
    (pid,) = await run(cluster, program)
    assert pid in before and {worker.pid for worker in agent.workers} == before


HANDLERS = """
    import os, signal
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGALRM)]
    names = [getattr(handler, "__name__", str(handler)) for handler in before]
    heard = []
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: heard.append(number))
        os.kill(os.getpid(), number)
    signal.alarm(3600)
    result = [names, heard, signal.getitimer(signal.ITIMER_REAL)[0] > 0]
    """


async def test_a_functions_own_handlers_end_with_its_item(
    cluster: Cluster, agent: AgentProcess
) -> None:
    ask = "import signal\nresult = signal.getitimer(signal.ITIMER_REAL)[0]"
    values = await run(cluster, *[HANDLERS, ask] * 20)
    first = values[0]
    assert first[1:] == [[15, 14, 10], True]  # type: ignore[index]
    # The next items find what the first one found.
    assert values == [first, 0.0] * 20
    assert await run(cluster, "import signal\nresult = signal.set_wakeup_fd(-1)") == [-1]


# Output


async def test_each_item_has_its_own_lines(cluster: Cluster, agent: AgentProcess) -> None:
    codes = [f"print('half-line {n}', end='')" for n in range(40)]
    await run(cluster, *codes)
    await wait_until(lambda: len(lines_of(agent, "half-line")) == 40, "it is written")
    assert sorted(lines_of(agent, "half-line")) == [(n, f"half-line {n}") for n in range(40)]


async def test_logs_of_functions(cluster: Cluster, agent: AgentProcess) -> None:
    async def said(*texts: str) -> None:
        await wait_until(
            lambda: all(text in agent.said for text in texts),
            f"{' and '.join(texts)} are written",
            show=lambda: agent.said,
        )

    await run(
        cluster,
        "import logging\nlogging.getLogger('mine').info('plain-info')",
        "import logging\nlogging.getLogger('mine').debug('plain-debug')",
        "import warnings\nwarnings.warn('a-warning')",
    )
    await said("plain-info", "a-warning")
    await run(  # It changes what its worker logs, so it comes after all others.
        cluster,
        """
        import logging
        logging.basicConfig(level=logging.DEBUG, format="own %(message)s", force=True)
        logging.debug("own-debug")
        logging.root.handlers.clear()
        logging.root.setLevel(logging.WARNING)
        """,
    )
    await said("own-debug")
    assert lines_of(agent, "plain-info") == [(0, "INFO mine: plain-info")]
    assert not lines_of(agent, "plain-debug")
    assert [item for item, _ in lines_of(agent, "a-warning")][:1] == [2]
    assert lines_of(agent, "own-debug") == [(0, "own own-debug")]


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.write(2, b'past-python')\nhold()",
        "import subprocess\nsubprocess.run(['echo', 'past-python'])\nhold()",
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.puts(b'past-python')\n"
        "libc.fflush(None)\nhold()",
    ],
    ids=["no newline", "subprocess", "C"],
)
async def test_what_is_printed_past_python(
    place: Site, cluster: Cluster, agent: AgentProcess, tmp_path: Path, code: str
) -> None:
    gate = tmp_path / "gate"
    hold = f"""
        import os, time
        def hold():
            while not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
        """
    before = len(lines_of(agent, "past-python"))
    running = asyncio.ensure_future(run(cluster, "result = 0", dedent(hold) + code))
    if "2, b" not in code:
        await wait_until(lambda: len(lines_of(agent, "past-python")) > before, "it is written")
    gate.touch()
    await running
    await wait_until(
        lambda: lines_of(agent, "past-python")[before:] == [(1, "past-python")],
        "it is marked",
        20,
        lambda: agent.said,
    )


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("os._exit(3)", "last-words"),
        ("os.kill(os.getpid(), 9)", "last-words"),
        ("import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)", "Fatal Python"),
    ],
)
async def test_last_words(cluster: Cluster, agent: AgentProcess, end: str, last: str) -> None:
    before = len(lines_of(agent, last))
    code = f"import os, sys\nprint('last-words', end='')\nsys.stderr.write('of-stderr')\n{end}"
    values = await run(cluster, "result = 0", code)
    check(values, [0, None], {1: WorkerLost})
    await wait_until(lambda: len(lines_of(agent, last)) >= before + 2, "both attempts' last words")
    assert {item for item, _ in lines_of(agent, last)} == {1}
    assert {item for item, _ in lines_of(agent, "of-stderr")} == {1}


@pytest.mark.parametrize("lines", [5_000, pytest.param(20_000, marks=pytest.mark.slow)])
async def test_a_flood_of_prints_holds_up_nobody(
    cluster: Cluster, agent: AgentProcess, lines: int
) -> None:
    size = agent.output.stat().st_size
    code = """
        import os, subprocess
        line = "much " * 200
        for _ in range({0}):
            print(line)
        {1}
        result = os.getpid()
        """
    raw = f"subprocess.run(['sh', '-c', 'yes raw-much | head -n {100 * lines}'])"
    values = await run(cluster, code.format(lines, "pass"), code.format(0, raw))
    assert all(isinstance(value, int) for value in values)
    assert agent.output.stat().st_size - size < 1_900 * lines / 2, "most was dropped"
    await wait_until(lambda: "dropped: a worker may print 65,536" in agent.said, "it is said")
    ebb = "import os\nprint(f'ebb-{os.getpid()}')\nresult = 0"

    async def each_prints_again() -> bool:
        await run(cluster, ebb, ebb)
        return all(f"ebb-{pid}" in agent.said for pid in values)

    await wait_for(each_prints_again, "each worker prints again")


async def test_output_drives_no_terminal(cluster: Cluster, agent: AgentProcess) -> None:
    async def is_written() -> bool:
        """Print, also where a worker may still drop lines after the flood of another test."""
        await run(
            cluster,
            "print('\\x1b[2Jfirst-escape\\x07')",
            "import os\nos.system(\"printf '\\\\033[2Jraw-escape\\\\n'\")",
        )
        return "raw-escape" in agent.said and "first-escape" in agent.said

    await wait_for(is_written, "it is written")
    assert "\x1b" not in agent.said
    assert set(lines_of(agent, "first-escape")) == {(0, "\\x1b[2Jfirst-escape\\x07")}
    assert {text for _, text in lines_of(agent, "raw-escape")} == {"\\x1b[2Jraw-escape"}


async def test_a_thread_that_goes_on_after_its_item(cluster: Cluster, agent: AgentProcess) -> None:
    begin = """
        import builtins, os, threading
        builtins.gate = threading.Event()
        def talk():
            builtins.gate.wait()
            print("late-words", end="")
        threading.Thread(target=talk).start()
        result = os.getpid()
        """
    go_on = """
        import builtins, os
        vars(builtins).get("gate") and builtins.gate.set()
        result = os.getpid()
        """
    (pid,) = await run(cluster, begin)
    while pid not in await run(cluster, *[go_on] * 20):
        pass
    await wait_until(lambda: "late-words" in agent.said, "it is written")
    assert [text for _, text in lines_of(agent, "late-words")] == ["late-words"]


FIRST_LINES = [
    "import sys; sys.stdout.reconfigure(encoding='utf-8')",
    "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
    "import io, sys; sys.stderr = io.TextIOWrapper(sys.stderr.detach(), encoding='utf-8')",
    "import faulthandler; faulthandler.enable()",
    "import sys; sys.stdin.reconfigure(encoding='utf-8'); assert sys.stdin.read() == ''",
]


async def test_modules_with_common_first_lines(tmp_path: Path) -> None:
    files = []
    for number, first_line in enumerate(FIRST_LINES):
        files.append(tmp_path / f"first_line_{number}.py")
        files[-1].write_text(
            f"{first_line}\nfrom jetmap import task\n@task\ndef same_{number}(n: int) -> int:\n"
            "    print('é', end='')\n    return n\n"
        )
    async with Cluster(tasks=list(map(str, files)), share=False, cores=1) as cluster:
        for number in range(len(files)):
            assert await cluster.map(f"same_{number}", [1, 2]) == [1, 2]


# What it has of ours


INVENTORY = """
    import os
    from pathlib import Path
    own = Path("/proc/self")
    child = os.popen("env").read()
    files = [os.readlink(entry) for entry in own.joinpath("fd").iterdir() if entry.is_symlink()]
    result = [dict(os.environ), (own / "environ").read_text(), (own / "cmdline").read_text(),
              child, files]
    """


async def test_workers_have_no_secret_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hidden-word-of-ours"
    async with site(tmp_path, user="u", password=secret) as there:
        url = there.server.url
        for name, value in {
            "NATS_URL": url.replace("//", f"//u:{secret}@"),
            "NATS_USER": "u",
            "NATS_PASSWORD": secret,
            "NATS_PASWORD": secret,  # Misspelt, and yet a secret.
            "TOKEN": secret,
        }.items():
            monkeypatch.setenv(f"JETMAP_{name}", value)
        monkeypatch.setenv("OWN_SETTING", "stays")
        agent = there.start_agent(programs.__file__)
        async with Cluster() as cluster:
            await there.ready(cluster, agent)
            (found,) = await cluster.map(programs.program, [dedent(INVENTORY)])
    environment, environ, cmdline, child, files = found
    assert secret not in f"{environment} {environ} {cmdline} {child}"
    assert environment["OWN_SETTING"] == "stays" and "OWN_SETTING=stays" in child
    assert {n for n in environment if n.startswith("JETMAP_")} == {"JETMAP__WORKER"}
    sockets = [file for file in files if file.startswith("socket:")]
    assert len(sockets) == 1, f"the pipe to the agent, and no connection: {files}"


# Processes that end

ENDS = {
    "import os; os._exit(0)": (None, 0),
    "import os; os._exit(7)": (None, 7),
    "import ctypes; ctypes.CDLL(None).exit(5)": (None, 5),
    # As a process that ends: its files are closed, and its exit code can be had later only.
    "import os, time; os.closerange(3, 64); time.sleep(0.2); os._exit(3)": (None, 3),
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": (signal.SIGSEGV, None),
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": (signal.SIGKILL, None),
}


async def test_an_end_is_reported_as_it_was(cluster: Cluster, agent: AgentProcess) -> None:
    found = await run(cluster, *ENDS)
    assert [
        isinstance(each, WorkerLost) and (each.signal, each.exit_code) for each in found
    ] == list(ENDS.values())


async def test_what_closes_its_pipe_and_lives_on_is_killed(
    cluster: Cluster, agent: AgentProcess
) -> None:
    code = "import os, time; os.closerange(3, 64); time.sleep(600)"
    (error,) = await run(cluster, code)
    assert isinstance(error, WorkerLost) and "os.closerange" in str(error)
