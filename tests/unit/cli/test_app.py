"""The commands of the command line."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from jetmap.cli.app import COMMANDS, build
from jetmap.errors import ConfigurationError
from jetmap.version import __version__


def commands(*arguments: str) -> set[str | None]:
    command = typer.main.get_command(build(list(arguments)))
    return set(getattr(command, "commands", {command.name: command}))


def test_only_the_named_command_is_imported() -> None:
    assert "status" in commands("status", "--json") and "map" not in commands("status")
    assert commands("--help") == set(COMMANDS)


def test_the_version() -> None:
    done = CliRunner().invoke(build(["--version"]), ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"jetmap {__version__}\n")


@pytest.mark.parametrize("named", ["tasks.py", "app/tasks.py:f"])
def test_a_file_instead_of_a_command(named: str) -> None:
    file = named.partition(":")[0]
    with pytest.raises(ConfigurationError, match=f"`jetmap up {file}` serves its functions"):
        build([named])
