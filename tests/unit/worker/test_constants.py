"""Constants in a worker: mapped when given, decoded once, gone when dropped."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from jetmap.functions.constants import dump
from jetmap.functions.function import Function
from jetmap.wire.constants import Constant, Given, pack_kwargs
from jetmap.wire.memory_files import MemoryFile
from jetmap.wire.messages import encode
from jetmap.worker.constants import WorkerConstants


def look(i: int, *, table: Any) -> Any:
    return table


def file_of(value: Any) -> MemoryFile:
    content = dump(value, pickled=True)
    file = MemoryFile.create(content.size)
    for offset, part in content:
        file.write(offset, part)
    return file


def test_a_value_is_there_from_when_it_is_given_until_it_is_dropped() -> None:
    constants, file = WorkerConstants(), file_of(np.arange(5_000))
    constants.give(encode(Given("d1", file.size, file.place)))
    file.close()
    function = constants.filled(Function(look), "m", trusted=True)
    kwargs = pack_kwargs(b"", {"table": Constant("d1", file.size)})
    table = function.kwargs.decode(kwargs, "msgpack")["table"]
    assert table.sum() == sum(range(5_000)) and not table.flags.writeable
    gone = weakref.ref(table)
    del table
    constants.drop("d1")
    gc.collect()
    assert gone() is None
    with pytest.raises(ValueError, match="its host does not have it"):
        function.kwargs.decode(kwargs, "msgpack")


def test_what_the_host_could_not_get_is_an_error_until_it_can() -> None:
    constants, file = WorkerConstants(), file_of(7)
    function = constants.filled(Function(look), "m", trusted=True)
    kwargs = pack_kwargs(b"", {"table": Constant("d1", file.size)})
    for refused, reason in (
        (Given("d1", file.size, None, "no room"), "'table' cannot be loaded: no room"),
        (Given("d1", file.size + 1, file.place), "cannot open its memory"),
    ):
        constants.give(encode(refused))
        with pytest.raises(ValueError, match=reason):
            function.kwargs.decode(kwargs, "msgpack")
    constants.give(encode(Given("d1", file.size, file.place)))
    assert function.kwargs.decode(kwargs, "msgpack") == {"table": 7}
