"""Count the modules and lines on the main path: those that run for one warm ``POST /map``.

Start ``jetmap up`` with one task, warm it, and record in every process of it (gateway, agent,
workers) which source files run any function while one JSON map of two items is answered::

    python scripts/main_path.py [--list]

A file counts whole, with all its lines, as soon as one of its functions is called.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT / "cluster", ROOT / "api")
TASKS = "from jetmap import task\n\n\n@task\ndef double(n: int) -> int:\n    return 2 * n\n"

# Runs at the start of each process: SIGUSR1 begins to record, SIGUSR2 writes what was recorded.
RECORDER = """
import os, signal, sys, threading
seen = set()
def record(frame, event, argument):
    if event == "call":
        seen.add(frame.f_code.co_filename)
def begin(number, frame):
    seen.clear()
    sys.setprofile(record)
    threading.setprofile(record)
def end(number, frame):
    sys.setprofile(None)
    part = os.path.join(os.environ["MAIN_PATH_RECORDS"], f"{os.getpid()}.part")
    with open(part, "w") as file:
        file.write("\\n".join([" ".join(sys.argv), *sorted(seen)]))
    os.replace(part, part[:-5] + ".txt")
signal.signal(signal.SIGUSR1, begin)
signal.signal(signal.SIGUSR2, end)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name each file with its lines")
    options = parser.parse_args()
    files = record_one_map()
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    if options.list:
        for file in sorted(files):
            print(f"{lines[file]:6}  {file.relative_to(ROOT)}")
    print(f"{len(files)} modules, {sum(lines.values()):,} lines on the path of POST /map")


def record_one_map() -> set[Path]:
    """Serve one task, answer one recorded map, and return the files of ours that ran."""
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
        command = [sys.executable, "-m", "jetmap.cli", "up", "tasks.py"]
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
                return _recorded(process, records, url)
            finally:
                process.terminate()
                process.wait()


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


def _recorded(process: subprocess.Popen[str], records: Path, url: str) -> set[Path]:
    # The supervisor is not on the path: only what it started is.
    ours = [p for p in psutil.Process(process.pid).children(recursive=True) if _is_python(p)]
    for child in ours:
        child.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
    _post(url)
    time.sleep(0.05)  # Acknowledgements follow the answer.
    for child in ours:
        child.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + 10
    while len(found := list(records.glob("*.txt"))) < len(ours):
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(found)} of {len(ours)} processes wrote their record")
        time.sleep(0.05)
    names = {Path(line) for file in found for line in file.read_text().splitlines()[1:]}
    return {name for name in names if any(source in name.parents for source in SOURCES)}


def _is_python(process: psutil.Process) -> bool:
    return "python" in process.name()


if __name__ == "__main__":
    main()
