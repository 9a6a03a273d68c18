"""``jetmap map`` with real processes: lines in, values out, in order."""

from __future__ import annotations

import signal

import pytest

from house import House, Up
from jetmap.cli.exits import Exit
from waiting import PATIENCE, wait_until_sync


def test_map_keeps_the_order(shared_up: Up) -> None:
    numbers = "".join(f"{number}\n" for number in range(100, 5000))
    done = shared_up.house.run("map", "double", input=numbers)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(f"{2 * number}\n" for number in range(100, 5000))


def test_map_takes_a_file_without_a_last_newline_and_kwargs(shared_up: Up) -> None:
    (shared_up.house.directory / "numbers").write_text("1\n\n 2 \r\n3", encoding="utf-8")
    done = shared_up.house.call("map", "double", "numbers", "--kwargs", '{"plus": 1}')
    assert (done.returncode, done.stdout) == (0, "3\n5\n7\n")


def test_failing_items_are_null_and_told(shared_up: Up) -> None:
    done = shared_up.house.call("map", "double", input='12\n13\n"x"\n14\n')
    assert done.returncode == Exit.ITEMS_FAILED
    assert done.stdout == "24\nnull\nnull\n28\n"
    assert "item 1: ValueError: unlucky" in done.stderr
    assert "item 2: " in done.stderr
    assert "2 items failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "input", "code", "message"),
    [
        (["map", "double"], "1 2\n", Exit.USAGE, "line 1"),
        (["map", "double"], "[" * 100_000, Exit.USAGE, "line 1"),
        (["map", "nope"], "1\n", Exit.WORKERS, "'nope'"),
        (["map", "slow", "--timeout", "0.2"], "9\n", Exit.TIMEOUT, ""),
    ],
)
def test_map_refuses(
    shared_up: Up, arguments: list[str], input: str, code: Exit, message: str
) -> None:
    done = shared_up.house.call(*arguments, input=input)
    assert done.returncode == code
    assert message in done.stderr


def test_map_of_nothing_is_nothing(shared_up: Up) -> None:
    done = shared_up.house.call("map", "double", input="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_map_streams_while_the_input_goes_on(shared_up: Up) -> None:
    process = shared_up.house.start("map", "double")
    assert process.stdin is not None and process.stdout is not None
    for number in (1, 2, 3):
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{2 * number}\n"
    process.stdin.close()
    assert process.wait(PATIENCE) == 0


def test_map_ends_quietly_when_nobody_reads(shared_up: Up) -> None:
    (shared_up.house.directory / "many").write_text("1\n" * 100_000, encoding="utf-8")
    process = shared_up.house.start("map", "double", "many")
    assert process.stdout is not None
    assert process.stdout.readline() == "2\n"
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert "rror" not in shared_up.house.said


def test_interrupting_map_withdraws_it(shared_up: Up) -> None:
    process = shared_up.house.start("map", "slow")
    assert process.stdin is not None
    process.stdin.write("600\n")
    process.stdin.flush()
    wait_until_sync(lambda: shared_up.busy == 1, "the item runs")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == Exit.INTERRUPTED
    wait_until_sync(lambda: shared_up.busy == 0, "its worker is free again")


def test_map_of_a_file_of_tasks_starts_its_own_cluster(house: House) -> None:
    done = house.run("map", "tasks.py:double", input="1\n2\n13\n")
    assert done.stdout == "2\n4\nnull\n"
    assert done.returncode == Exit.ITEMS_FAILED
    house.nothing_is_left()


def test_map_tolerates_some_failures(shared_up: Up) -> None:
    numbers = "12\n13\n14\n15\n"
    done = shared_up.house.call("map", "double", "--max-failed", "1", input=numbers)
    assert (done.returncode, done.stdout) == (0, "24\nnull\n28\n30\n")
    assert "item 1: ValueError: unlucky" in done.stderr and "1 item failed" in done.stderr
    done = shared_up.house.call("map", "double", "--max-failed", "0", input=numbers)
    assert done.returncode == Exit.ITEMS_FAILED and "max_failed is 0" in done.stderr
    (shared_up.house.directory / "four").write_text(numbers, encoding="utf-8")
    assert shared_up.house.call("map", "double", "four", "--max-failed", "25%").returncode == 0
    for wrong in ("x", "-1"):
        done = shared_up.house.call("map", "double", "--max-failed", wrong, input=numbers)
        assert done.returncode == Exit.USAGE
    # Nobody knows how many lines a pipe has.
    done = shared_up.house.run("map", "double", "--max-failed", "25%", input=numbers)
    assert done.returncode == Exit.USAGE


def test_map_without_values_prints_errors_only(shared_up: Up) -> None:
    done = shared_up.house.call("map", "double", "--no-values", input="12\n13\n")
    assert (done.returncode, done.stdout) == (Exit.ITEMS_FAILED, "")
    assert "item 1: ValueError: unlucky" in done.stderr
