"""The commands of the command line."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

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
    assert commands("--help") == commands() == set(COMMANDS)
    code = (
        "import sys; from jetmap.cli.app import COMMANDS, build; build(['--help']); "
        "assert not {f'jetmap.cli.{name}' for name in COMMANDS} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_has_the_first_sentence_of_each_command(name: str) -> None:
    command = getattr(import_module(f"jetmap.cli.{name}"), name)
    assert command.__doc__.partition("\n")[0] == COMMANDS[name]


def test_options_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {
        "_JETMAP_COMPLETE": "complete_bash",
        "COMP_WORDS": "jetmap map --kw",
        "COMP_CWORD": "2",
    }
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(build([]), [], prog_name="jetmap", complete_var="_JETMAP_COMPLETE")
    assert done.stdout.split() == ["--kwargs"]


def test_the_version() -> None:
    done = CliRunner().invoke(build(["--version"]), ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"jetmap {__version__}\n")


def test_the_help_shows_how_to_install_completion() -> None:
    assert "--install-completion" in CliRunner().invoke(build(["--help"]), ["--help"]).stdout


@pytest.mark.parametrize("named", ["tasks.py", "app/tasks.py:f"])
def test_a_file_instead_of_a_command(named: str) -> None:
    file = named.partition(":")[0]
    with pytest.raises(ConfigurationError, match=f"`jetmap up {file}` serves its functions"):
        build([named])
