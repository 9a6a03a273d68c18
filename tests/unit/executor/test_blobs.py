"""Blobs: found again by address and content, kept while used, private to each reader."""

from __future__ import annotations

import os

import numpy as np
import pytest

from jetmap.executor import blobs as module
from jetmap.executor.blobs import Blobs, read


def view(array: np.ndarray) -> memoryview:  # type: ignore[type-arg]
    return memoryview(array).cast("B")


def test_an_unchanged_buffer_is_copied_once() -> None:
    kept, array = Blobs(), np.ones(1000)
    first = kept.put(view(array))
    assert kept.put(view(array)) == first
    array[0] = 2
    second = kept.put(view(array))
    assert second != first
    array.flags.writeable = False
    assert kept.put(view(array)) == second
    assert kept.put(memoryview(b"x" * 1000)) not in (first, second)
    kept.close()


def test_a_blob_is_mapped_once_to_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, array, maps = Blobs(), np.ones(1000), list[int]()
    mapped = module._map
    monkeypatch.setattr(module, "_map", lambda fd, size: maps.append(size) or mapped(fd, size))
    first = kept.put(view(array))
    assert [kept.put(view(array)) for _ in range(3)] == [first] * 3
    assert maps == [array.nbytes]
    kept.close()


def test_each_reader_has_a_copy_of_its_own() -> None:
    kept, array = Blobs(), np.ones(1000)
    number = kept.put(view(array))
    one, other = (read(*kept.share(number)) for _ in range(2))
    one[0] = 7
    assert other[0] == array.view(np.uint8)[0] == read(*kept.share(number))[0]
    assert len(one) == array.nbytes
    kept.close()


def test_a_blob_lives_until_its_last_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    kept, array = Blobs(), np.ones(1000)
    number = kept.put(view(array))
    kept.put(view(array))
    kept.release([number])
    os.close(kept.share(number)[0])
    kept.release([number])
    with pytest.raises(KeyError):
        kept.share(number)
    assert kept.put(view(array)) != number
    kept.close()


def test_few_unused_blobs_are_kept() -> None:
    kept = Blobs()
    arrays = [np.full(10, n) for n in range(module.KEPT_BLOBS + 2)]
    numbers = [kept.put(view(array)) for array in arrays]
    kept.release(numbers)
    gone = []
    for number in numbers:
        try:
            os.close(kept.share(number)[0])
        except KeyError:
            gone.append(number)
    assert gone == numbers[:2]
    kept.close()


def test_a_results_blob_is_taken_once() -> None:
    kept = Blobs()
    number = kept.take_in(module.write(memoryview(b"result")), 6)
    assert bytes(kept.take(number)) == b"result"
    with pytest.raises(KeyError):
        kept.take(number)
    assert bytes(read(module.write(memoryview(b"")), 0)) == b""


def test_blobs_take_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    kept, arrays = Blobs(), [np.full(1000, n) for n in range(10)]
    numbers = [kept.put(view(array)) for array in arrays]
    assert kept._files == 3
    for number, array in zip(numbers, arrays, strict=True):
        assert read(*kept.share(number)) == view(array)
    assert [kept.put(view(array)) for array in arrays] == numbers, "they are found again"
    arrays[9][0] = 7
    assert kept.put(view(arrays[9])) != numbers[9]
    kept.release(numbers * 2)
    assert kept._files <= 3 and len(kept._unused) == module.KEPT_BLOBS
    kept.put(view(np.ones(1000)))
    kept.close()
    assert kept._files == 0
    results = [kept.take_in(module.write(memoryview(bytes([n]) * 9)), 9) for n in range(50)]
    kept.drop(results[40:])
    assert bytes(kept.take(results[7])) == b"\x07" * 9, "also after the end"
    with pytest.raises(KeyError):
        kept.take(results[45])


def test_a_blob_that_is_sent_again_and_again_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    kept, array = Blobs(), np.ones(1000)
    for _ in range(3):
        number = kept.put(view(array))
        assert kept.put(view(array)) == number
        kept.release([number, number])
        assert not kept._blobs and kept._unused_bytes == 0


@pytest.mark.parametrize("least", [0, 1000])
def test_a_result_is_mapped_or_copied_and_can_be_written_to(
    least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAPPED_BYTES", least)
    kept = Blobs()
    found = kept.take(kept.take_in(module.write(memoryview(b"result")), 6))
    found[0] = 0
    assert bytes(found) == b"\x00esult"
    with pytest.raises(OSError, match="shorter"):
        module.copied(module.write(memoryview(b"result")), 7)
