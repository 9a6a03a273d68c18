"""Logs of functions that configure none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jetmap.worker.logs import show_logs


@contextmanager
def plain_root() -> Iterator[logging.Logger]:
    """The root logger without handlers, as in a worker."""
    found, last, level = logging.getLogger(), logging.lastResort, logging.getLogger().level
    handlers, found.handlers = found.handlers, []
    yield found
    for handler in found.handlers:
        handler.close()
    found.handlers, logging.lastResort = handlers, last
    found.setLevel(level)


def test_records_from_the_level_on_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_root():
        show_logs("info")
        logging.getLogger("mine").info("shown %d", 1)
        logging.getLogger("mine").debug("not shown")
    assert capsys.readouterr().err == "INFO mine: shown 1\n"


def test_a_functions_own_configuration_takes_effect(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_root():
        show_logs("warning")
        logging.basicConfig(format="own %(message)s", level=logging.DEBUG)
        logging.debug("debugging")
    assert capsys.readouterr().err == "own debugging\n"


def test_a_record_that_cannot_be_formatted_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_root():
        show_logs("info")
        logging.getLogger("mine").info("%d", "no number")
    assert "not all arguments" in (said := capsys.readouterr().err) or "TypeError" in said
