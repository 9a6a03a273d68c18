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
