"""Measure a checkout: the main path, the rooms, the tests.

The main path is every source file that runs for one warm ``POST /map``. To find it, start
``jetmap up`` with one task, warm it, and record in its gateway, agent and workers which files run
any function while one JSON map of two items is answered, several times. What runs only in some of
these recordings, such as a heartbeat, does not belong to the map, and neither does what runs in
each recording of an idle gateway, such as the clock of its server::

    python scripts/main_path.py [--list] [--functions] [CHECKOUT]

A file counts whole, with all its lines, as soon as one of its functions is called. The lines of
the functions that really run are counted apart. A checkout is
measured with its own ``.venv`` if it has one. A module has a test of its own if a file
``test_<module>.py`` or ``test_<room>_<module>.py`` exists; entry points (``__init__``,
``__main__``) and modules that only declare need none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
from untested_modules import defines_behaviour

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = 4  # Maps that are recorded one by one.
# Seconds until the agent has measured its way to the broker twice. Beside starting workers the
# first answer may take so long that it counts as far, and its cores ask ahead.
SETTLED_SECONDS = 11.0
Function = tuple[int, int, str]  # First line, last line, name.
TASKS = "from jetmap import task\n\n\n@task\ndef double(n: int) -> int:\n    return 2 * n\n"

# Runs at the start of each process: SIGUSR1 begins to record, SIGUSR2 writes what was recorded.
RECORDER = """
import os, signal, sys, threading
seen = set()
def record(frame, event, argument):
    if event == "call":
        seen.add(frame.f_code)
def begin(number, frame):
    seen.clear()
    sys.setprofile(record)
    threading.setprofile(record)
def end(number, frame):
    sys.setprofile(None)
    threading.setprofile(None)
    part = os.path.join(os.environ["MAIN_PATH_RECORDS"], f"{os.getpid()}.part")
    with open(part, "w") as file:
        for code in seen:
            lines = [line for _, _, line in code.co_lines() if line]
            if code.co_name != "<module>" and lines:
                name = getattr(code, "co_qualname", code.co_name)
                print(min(lines), max(lines), name, code.co_filename, sep="\\t", file=file)
    os.replace(part, part[:-5] + ".txt")
signal.signal(signal.SIGUSR1, begin)
signal.signal(signal.SIGUSR2, end)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name each file with its lines")
    parser.add_argument("--functions", action="store_true", help="name the functions that run")
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT, help="default: this one")
    options = parser.parse_args()
    root: Path = options.checkout.resolve()
    path = record_one_map(root)
    if options.list or options.functions:
        for file in sorted(path):
            print(f"{lines_of(file):6} {run_lines(path[file]):6}  {file.relative_to(root)}")
            for first, last, name in sorted(path[file]) if options.functions else ():
                print(f"{'':13}    {last - first + 1:4}  {name}")
    print_table(root, path)


def run_lines(functions: set[Function]) -> int:
    """Count the lines of functions; those within others count once."""
    return len({line for first, last, _ in functions for line in range(first, last + 1)})


def print_table(root: Path, path: dict[Path, set[Function]]) -> None:
    """Print the measures of a checkout, and the modules without a test of their own."""
    sources = [file for part in ("cluster", "api") for file in (root / part).rglob("*.py")]
    sizes = {file: lines_of(file) for file in sources}
    rooms: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for file, size in sizes.items():
        rooms[room_of(root, file)] += size
        modules[room_of(root, file)] += 1
    tests = list((root / "tests").rglob("*.py"))
    chaos = list((root / "chaos").rglob("*.py"))
    largest = max(sizes, key=sizes.__getitem__)
    untested = without_test(root, sources, tests)
    for what, figure in (
        ("modules on the path of POST /map", len(path)),
        ("lines on the path of POST /map", sum(map(lines_of, path))),
        ("lines of the functions that run there", sum(map(run_lines, path.values()))),
        ("modules", len(sources)),
        ("lines", sum(sizes.values())),
        ("lines of the median module", round(statistics.median(sizes.values()))),
        (f"lines of the largest, {largest.relative_to(root)}", sizes[largest]),
        ("lines of tests", sum(map(lines_of, tests))),
        ("lines of the soak", sum(map(lines_of, chaos))),
        ("modules without a test of their own", len(untested)),
    ):
        print(f"{figure:8,}  {what}")
    print("\n   lines  modules  room")
    for room, size in sorted(rooms.items()):
        print(f"{size:8,}  {modules[room]:7}  {room}")
    if untested:
        print("\nwithout a test of their own: " + ", ".join(untested))


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def room_of(root: Path, file: Path) -> str:
    """Return the folder of a module: `jetmap/nats`, or `jetmap` for a module outside any room."""
    return "/".join(file.relative_to(root).parts[1:-1][:2])


def without_test(root: Path, sources: list[Path], tests: list[Path]) -> list[str]:
    """List the modules that no test file is named after."""
    names = {test.name for test in tests}
    found = []
    for file in sources:
        own = {
            f"test_{file.stem}.py",
            f"test_{room_of(root, file).rpartition('/')[2]}_{file.stem}.py",
        }
        if not file.stem.startswith("__") and not own & names and defines_behaviour(file):
            found.append(f"{room_of(root, file)}/{file.stem}")
    return sorted(found)


def record_one_map(root: Path) -> dict[Path, set[Function]]:
    """Serve one task, answer one recorded map, and return the functions that ran, by file."""
    own = root / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        records = directory / "records"
        for part in ("records", "run", "site"):
            (directory / part).mkdir(mode=0o700)
        (directory / "tasks.py").write_text(TASKS)
        (directory / "site" / "sitecustomize.py").write_text(RECORDER)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JETMAP_")} | {
            "PYTHONPATH": str(directory / "site"),
            "MAIN_PATH_RECORDS": str(records),
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "XDG_STATE_HOME": str(directory / "state"),
            "JETMAP_CORES": "2",
        }
        command = [python, "-m", "jetmap.cli", "up", "tasks.py"]
        with subprocess.Popen(
            [*command, "--port", "0", "--nats-port", "0"],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                url = _address(process)
                for _ in range(50):
                    _post(url)
                time.sleep(SETTLED_SECONDS)
                ran = [_recorded(root, process, records, url) for _ in range(RECORDINGS)]
                idle = [_recorded(root, process, records) for _ in range(RECORDINGS)]
            finally:
                process.terminate()
                process.wait()
    path: dict[Path, set[Function]] = {}
    for file, first, last, name in set.intersection(*ran) - set.intersection(*idle):
        path.setdefault(file, set()).add((first, last, name))
    return path


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"(http://\S+)/map/FUNCTION", line):
            return found[1]
    raise SystemExit("jetmap up did not start")


def _post(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/map/double", b"[1, 2]", {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert json.load(answer) == [2, 4]
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _recorded(
    root: Path, process: subprocess.Popen[str], records: Path, url: str | None = None
) -> set[tuple[Path, int, int, str]]:
    # The supervisor is not on the path, only the processes that it started.
    ours = [p for p in psutil.Process(process.pid).children(recursive=True) if _is_python(p)]
    for child in ours:
        child.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
    if url is not None:
        _post(url)
        time.sleep(0.4)  # Acknowledgements and confirmations follow the answer.
    for child in ours:
        child.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + 10
    while len(found := list(records.glob("*.txt"))) < len(ours):
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(found)} of {len(ours)} processes wrote their record")
        time.sleep(0.05)
    ran = set()
    for line in {line for file in found for line in file.read_text().splitlines()}:
        first, last, name, path = line.split("\t")
        if {root / "cluster", root / "api"} & set((source := Path(path)).parents):
            ran.add((source, int(first), int(last), name))
    for file in found:
        file.unlink()
    return ran


def _is_python(process: psutil.Process) -> bool:
    return "python" in process.name()


if __name__ == "__main__":
    main()
