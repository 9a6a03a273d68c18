"""The command line in odd places: closed streams, full disks, files of other editors."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import zipapp
from pathlib import Path

import pytest

from house import House, Up
from jetmap.cli.exits import Exit
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings
from jetmap.wire.split.json_lines import BOM
from processes import HERE, nothing_left
from tools import need_root, need_tool
from waiting import PATIENCE


def shell(
    house: House, line: str, *, input: str = "1\n2\n", **variables: str
) -> subprocess.CompletedProcess[str]:
    """A shell's line, in which ``jetmap`` is ours."""
    jetmap = shlex.join([sys.executable, "-m", "jetmap.cli"])
    done = subprocess.run(
        ["sh", "-c", line.replace("jetmap ", f"{jetmap} ", 1)],
        cwd=house.directory,
        env=house.environment | variables,
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


# Closed streams


@pytest.mark.parametrize(
    ("line", "code", "stdout", "stderr"),
    [
        ("jetmap map double 2>&-", Exit.OK, "2\n4\n", ""),
        ("jetmap map double >&-", Exit.USAGE, "", "jetmap: stdout is closed: the values"),
        ("jetmap map double <&-", Exit.USAGE, "", "jetmap: stdin is closed: name a FILE"),
        ("jetmap map double numbers <&- 2>&-", Exit.OK, "6\n", ""),
        ("jetmap map double no-such-file <&- >&- 2>&-", Exit.USAGE, "", ""),
        pytest.param("jetmap --version <&- >&- 2>&-", Exit.OK, "", "", marks=pytest.mark.slow),
    ],
)
def test_closed_streams(shared_up: Up, line: str, code: Exit, stdout: str, stderr: str) -> None:
    (shared_up.house.directory / "numbers").write_text("3\n", encoding="utf-8")
    done = shell(shared_up.house, line)
    assert (done.returncode, done.stdout) == (code, stdout)
    assert done.stderr.startswith(stderr) if stderr else not done.stderr


@pytest.mark.parametrize(
    "line",
    ["jetmap map double", pytest.param("jetmap --version", marks=pytest.mark.slow)],
)
def test_a_full_disk_under_stdout(shared_up: Up, line: str) -> None:
    done = shell(shared_up.house, f"{line} > /dev/full")
    assert done.returncode == Exit.OUTPUT
    last = done.stderr.strip().splitlines()[-1]
    assert last == "jetmap: stdout cannot be written: No space left on device"


def test_nobody_reads(house: House) -> None:
    done = shell(house, "jetmap --help | true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_worker_without_streams(house: House) -> None:
    done = shell(house, "jetmap map tasks.py:double <numbers 2>&-", input="")
    assert done.returncode == 2, "there is no such file yet"
    (house.directory / "numbers").write_text("1\n2\n", encoding="utf-8")
    done = shell(house, "jetmap map tasks.py:double <numbers 2>&-", input="")
    assert (done.returncode, done.stdout) == (0, "2\n4\n")
    house.nothing_is_left()


SCRIPT = """
from pathlib import Path
from functions import empty
from jetmap import Cluster, Executor
if __name__ == "__main__":
    with MADE as cluster:
        Path("values").write_text(repr(list(cluster.map(empty, [1, 2]))))
"""


@pytest.mark.parametrize("made", ["Cluster().sync", "Executor(1)"])
@pytest.mark.parametrize(
    "closed", ["<&- >&- 2>&-", "<&-", pytest.param("2>&-", marks=pytest.mark.slow)]
)
def test_a_program_without_streams(tmp_path: Path, made: str, closed: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.replace("MADE", made))
    here = str(HERE)
    with nothing_left():
        line = f"PYTHONPATH={shlex.quote(here)} {shlex.quote(sys.executable)} script.py {closed}"
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, timeout=PATIENCE)
    assert done.returncode == 0
    assert (tmp_path / "values").read_text() == "[1, 2]"


# Streams that nobody reads, or that take nothing


@pytest.mark.parametrize("errors", ["| true", pytest.param("2>/dev/full", marks=pytest.mark.slow)])
def test_errors_that_nobody_reads_cost_no_values(shared_up: Up, errors: str) -> None:
    """Half of the items fail, and their errors cannot be printed."""
    place = shared_up.house.directory
    to = "2>&1 >values" if errors == "| true" else ">values"
    line = f"{{ jetmap map double {to}; echo $? >code; }} {errors}"
    shell(shared_up.house, line, input='1\n"x"\n' * 200)
    assert (place / "values").read_text() == "2\nnull\n" * 200
    assert int((place / "code").read_text()) == Exit.ITEMS_FAILED


@pytest.mark.slow
def test_streams_that_another_program_made_non_blocking(shared_up: Up) -> None:
    numbers, values = os.pipe(), os.pipe()
    for descriptor in (*numbers, *values):
        os.set_blocking(descriptor, False)
    os.set_blocking(numbers[1], True)
    os.set_blocking(values[0], True)
    house = shared_up.house
    process = subprocess.Popen(
        [sys.executable, "-m", "jetmap.cli", "map", "double"],
        cwd=house.directory,
        env=house.environment,
        stdin=numbers[0],
        stdout=values[1],
        stderr=subprocess.PIPE,
    )
    os.close(numbers[0])
    os.close(values[1])
    time.sleep(0.5)  # It finds nothing to read at first.
    with os.fdopen(numbers[1], "wb") as items:
        items.write(b"".join(b"%d\n" % n for n in range(100, 50_000)))
    time.sleep(0.5)  # Its output fills the pipe.
    with os.fdopen(values[0], "rb") as lines:
        found = [int(line) for line in lines]
    assert process.communicate(timeout=PATIENCE)[1] == b"" and process.returncode == 0
    assert found == [2 * n for n in range(100, 50_000)]


# Nothing to write to


READ_ONLY = """
mount --make-rprivate /
for place in $(cut -d" " -f2 /proc/mounts); do mount -o remount,bind,ro "$place" 2>/dev/null; done
mount -t tmpfs -o {0} memory /dev/shm
"""


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["rw", "ro"])
def test_a_read_only_file_system(house: House, memory: str) -> None:
    need_root("a read-only root")
    need_tool("unshare")
    del house.environment["XDG_RUNTIME_DIR"]
    program = shlex.join([sys.executable, "-m", "jetmap.cli", "map", "tasks.py:double"])
    inside = shlex.quote(f"{READ_ONLY.format(memory)} exec {program}")
    del house.environment["TMPDIR"]
    done = shell(house, f"unshare -m sh -c {inside}")
    if memory == "rw":
        assert (done.returncode, done.stdout) == (0, "2\n4\n"), done.stderr
    else:
        assert done.returncode == Exit.USAGE
        assert "no directory for temporary files is writable" in done.stderr
        assert "set TMPDIR" in done.stderr


# Archives


@pytest.mark.slow
def test_a_program_in_an_archive(tmp_path: Path) -> None:
    source = tmp_path / "app"
    source.mkdir()
    (source / "__main__.py").write_text(
        "from jetmap import Cluster, task\n"
        "import beside\n"
        "@task\n"
        "def twice(n: int) -> int:\n"
        "    return beside.double(n)\n"
        "if __name__ == '__main__':\n"
        "    with Cluster().sync as cluster:\n"
        "        print(cluster.map(twice, [1, 2]), cluster.map(beside.triple, [1, 2]))\n"
    )
    (source / "beside.py").write_text(
        "from jetmap import task\n"
        "def double(n):\n    return 2 * n\n"
        "@task\n"
        "def triple(n: int) -> int:\n    return 3 * n\n"
    )
    zipapp.create_archive(source, tmp_path / "app.pyz")
    with nothing_left():
        for program in ("app.pyz", "app"):
            done = subprocess.run(
                [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
            assert (done.stdout, done.stderr) == ("[2, 4] [3, 6]\n", ""), program


# Byte order marks


def test_a_mark_before_tasks_and_items(shared_up: Up, tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(BOM + b"1\r\n2\r\n")
    done = shared_up.house.call("map", "double", str(tmp_path / "numbers"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n4\n", "")


@pytest.mark.slow
def test_a_mark_before_a_tasks_file(house: House) -> None:
    house.tasks.write_bytes(BOM + house.tasks.read_bytes())
    done = house.run("check", "tasks.py", "--nats-port", "0")
    assert done.returncode == 0 and "tasks: double, slow" in done.stdout


def test_items_in_utf_16_are_refused(shared_up: Up, tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes("1\n2\n".encode("utf-16"))
    done = shared_up.house.call("map", "double", str(tmp_path / "numbers"))
    assert done.returncode == Exit.USAGE and "encode the input as UTF-8" in done.stderr


def test_a_mark_before_settings_and_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(BOM + b"word\n")
    (tmp_path / "jetmap.toml").write_bytes(BOM + b'cores = "1"\n')
    found = Settings.load(nats_password_file=str(secret))
    assert (found.workers.cores, found.broker.read_nats_password()) == ("1", "word")
    (tmp_path / "jetmap.toml").write_bytes('cores = "1"\n'.encode("utf-16"))
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        Settings.load()


# A list instead of lines


@pytest.mark.parametrize("text", ["[1, 2]", "[\n1,\n2\n]\n", "[1,\n2]"])
def test_an_array_is_explained(shared_up: Up, text: str) -> None:
    done = shared_up.house.call("map", "double", input=text)
    assert done.returncode in (Exit.USAGE, Exit.ITEMS_FAILED)
    assert "jq -c '.[]'" in done.stderr


def test_an_array_that_is_an_item_is_not(shared_up: Up) -> None:
    done = shared_up.house.call("map", "double", input="[1, 2]\n[3]\n")
    assert done.returncode == Exit.ITEMS_FAILED and "jq" not in done.stderr
