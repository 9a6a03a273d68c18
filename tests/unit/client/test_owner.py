"""The cached process id follows a fork."""

from __future__ import annotations

import os
import warnings

from jetmap.client.owner import process_id


def test_a_child_has_its_own() -> None:
    assert process_id() == os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside other threads.
        pid = os.fork()
    if not pid:
        os._exit(process_id() == os.getpid())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
