"""Options, which are generated from settings."""

from __future__ import annotations

import inspect
import logging
import os
from typing import get_args

import pytest
import typer

from jetmap.cli import options
from jetmap.cli.options import OPTIONS, load, takes
from jetmap.errors import ConfigurationError
from jetmap.settings import CONFIG_VARIABLE, Settings


def test_names_and_defaults_come_from_the_setting() -> None:
    assert (OPTIONS["port"].name, OPTIONS["port"].default) == ("--port", "8000")
    assert OPTIONS["allowed_hosts"].name == "--allowed-host"
    assert OPTIONS["output_bytes"].default == "1MiB"
    assert OPTIONS["reload"].default == "off"
    assert OPTIONS["nats_url"].default == ""
    (_, option) = get_args(OPTIONS["port"].parameter().annotation)
    assert option.help == "Port of the gateway; 0: any free port. (JETMAP_PORT; default 8000)"


def test_a_command_gets_checked_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setattr(options, "log_to_stderr", lambda level, form, waits: None)
    seen = []

    @takes("tasks", "port")
    def command(settings: Settings, own: int = 1) -> None:
        seen.append((settings.workers.tasks, settings.gateway.port, own))

    names = [*inspect.signature(command).parameters]
    assert names == ["tasks", "own", "port", "log_level", "log_format", "config"]
    command(
        tasks=["tasks.py"], port="9000", log_level=None, log_format=None, config=os.devnull, own=2
    )
    assert seen == [(["tasks.py"], 9000, 2)]
    assert os.environ.pop(CONFIG_VARIABLE) == os.devnull


def test_problems_name_options_as_they_are_spelt() -> None:
    with pytest.raises(ConfigurationError, match="--nats must be a comma-separated list"):
        load({"nats_url": "http://broker"})


@pytest.mark.parametrize("url", ["nats://[::1", "nats://[broker]:4222", "nats://broker:port"])
def test_what_is_not_an_address_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--nats must be a comma-separated list"):
        load({"nats_url": url})


@pytest.mark.parametrize("file", ["/nowhere.toml", "/" + "x" * 300])
def test_a_file_that_is_not_there_is_named_as_it_was_given(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @takes()
    def command(settings: Settings) -> None:
        raise AssertionError("not called")

    with pytest.raises(typer.Exit):
        command(log_level=None, log_format=None, config=file)
    assert f"--config names {file}, which is not a file" in capsys.readouterr().err


def test_a_password_is_refused_on_the_command_line() -> None:
    with pytest.raises(ConfigurationError, match="--nats-password-file"):
        load({"nats_url": "nats://me:secret@broker"})


def test_logs_of_other_libraries_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **more: None)
    options.log_to_stderr("info")
    assert logging.getLogger("uvicorn.error").level == logging.WARNING
