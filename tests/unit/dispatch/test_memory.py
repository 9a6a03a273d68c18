"""The account of a process's bytes: when it is full, and when that holds maps up."""

from __future__ import annotations

from jetmap.dispatch.memory import Memory


def test_results_count_until_they_are_read() -> None:
    memory = Memory(100)
    memory.add_unread(30)
    memory.add_unread(20)
    memory.read(30)
    assert (memory.used, memory.unread) == (20, 20)
    memory.read(20)
    assert (memory.used, memory.unread) == (0, 0)


def test_a_full_account_holds_maps_up_if_a_quarter_of_it_is_results() -> None:
    memory = Memory(100)
    memory.used += 80  # Bodies of a gateway.
    memory.add_unread(20)
    assert memory.used == memory.limit and not memory.is_full
    memory.add_unread(5)
    assert memory.is_full
    memory.used -= 80
    assert not memory.is_full, "results alone fill a quarter of it only"
