"""Settings: where values come from, which are refused, and that the file agrees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jetmap.errors import ConfigurationError
from jetmap.settings import Settings, is_loopback, unknown_variables

CONFIG = Path(__file__).parent.parent / "config" / "jetmap.toml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no JETMAP_ variable of the machine's."""
    for name in [name for name in os.environ if name.startswith("JETMAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_names_every_setting() -> None:
    with CONFIG.open("rb") as file:
        table = tomllib.load(file)
    assert list(table) == list(Settings.model_fields)


def test_the_file_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings.load()
    monkeypatch.setenv("JETMAP_CONFIG", str(CONFIG))
    assert Settings.load() == defaults


def test_the_file_explains_every_setting() -> None:
    """Each key has a comment above it, or follows another key that shares it."""
    explained = False
    for line in CONFIG.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            explained = True
        elif not line:
            explained = False
        elif not re.match(r"nats_u(ser|rl)", line):
            assert explained, line


def test_option_beats_variable_beats_file_beats_default(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load().port == 8000
    (elsewhere / "config").mkdir()
    (elsewhere / "config" / "jetmap.toml").write_text("port = 1\n", encoding="utf-8")
    assert Settings.load().port == 1
    (elsewhere / "jetmap.toml").write_text("port = 2\n", encoding="utf-8")
    assert Settings.load().port == 2
    monkeypatch.setenv("JETMAP_PORT", "3")
    assert Settings.load().port == 3
    assert Settings.load(port=4).port == 4
    assert Settings.load(port=None).port == 3


def test_a_chosen_file_replaces_the_others(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "jetmap.toml").write_text("port = 2\n", encoding="utf-8")
    chosen = elsewhere / "chosen.toml"
    chosen.write_text('pool = "blue"\n', encoding="utf-8")
    monkeypatch.setenv("JETMAP_CONFIG", str(chosen))
    settings = Settings.load()
    assert (settings.port, settings.pool) == (8000, "blue")


def test_empty_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_NATS_URL", "")
    monkeypatch.setenv("JETMAP_PORT", "")
    settings = Settings.load(cores="")
    assert (settings.nats_url, settings.port, settings.cores) == (None, 8000, None)


def test_lists_and_sizes_as_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_TASKS", "tasks.py, myapp.tasks")
    monkeypatch.setenv("JETMAP_NATS_URL", "nats://a:4222, nats://b:4222")
    monkeypatch.setenv("JETMAP_CHUNK_BYTES", "64KiB")
    settings = Settings.load(cors_origins=("http://a", "http://b"))
    assert settings.tasks == ["tasks.py", "myapp.tasks"]
    assert settings.servers() == ["nats://a:4222", "nats://b:4222"]
    assert settings.chunk_bytes == 65536
    assert settings.cors_origins == ["http://a", "http://b"]


def test_all_problems_at_once_with_their_origin(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "jetmap.toml").write_text('prot = 1\nwork_storage = "disk"\n', encoding="utf-8")
    monkeypatch.setenv("JETMAP_GRACE", "-1")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(cores="0,x", port=99999)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "prot in jetmap.toml is no setting: did you mean port?" in problems
    assert "work_storage in jetmap.toml: input should be 'memory' or 'file'" in problems
    assert "JETMAP_GRACE: " in problems
    assert "--cores is a number of cores" in problems
    assert "--port: " in problems


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pool", "a.b"),
        ("pool", "a" * 65),
        ("nats_url", "localhost:4222"),
        ("cores", "0"),
        ("cores", "3-"),
        ("max_list", 0),
        ("chunk_bytes", "0"),
        ("chunk_bytes", "many"),
        ("chunk_seconds", "nan"),
        ("start_timeout", "inf"),
        ("attempts", 0),
        ("token_file", "nowhere"),
        ("work_replicas", 6),
        ("chunk_min_seconds", 1.0),
        ("nats_tls_cert", __file__),
    ],
)
def test_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**{option: value})
    assert option.replace("_", "-") in str(caught.value).replace("_", "-")


def test_broken_or_missing_files(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "jetmap.toml").write_text("port = \n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"jetmap\.toml is not valid TOML.*line 1"):
        Settings.load()
    monkeypatch.setenv("JETMAP_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml, which is not a file"):
        Settings.load()


def test_secrets_come_from_files_or_variables_and_stay_secret(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = elsewhere / "token"
    secret.write_text("from-file\n", encoding="utf-8")
    monkeypatch.setenv("JETMAP_TOKEN_FILE", str(secret))
    monkeypatch.setenv("JETMAP_NATS_PASSWORD", "from-variable")
    settings = Settings.load()
    assert settings.read_token() == "from-file"
    assert settings.read_nats_password() == "from-variable"
    assert settings.read_nats_token() is None
    assert "from-variable" not in repr(settings)

    monkeypatch.setenv("JETMAP_TOKEN", "other")
    with pytest.raises(ConfigurationError, match="token and token_file are both set"):
        Settings.load()
    monkeypatch.delenv("JETMAP_TOKEN")
    secret.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is empty"):
        settings.read_token()


def test_mistyped_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_NATSURL", "nats://a")
    monkeypatch.setenv("JETMAP_POOL", "blue")
    assert unknown_variables() == ["JETMAP_NATSURL is no setting: did you mean JETMAP_NATS_URL?"]


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.0.2.1", "host.example")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("module", ["jetmap", "jetmap.worker.main"])
def test_importing_it_imports_no_settings(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "bad = {'jetmap.settings', 'pydantic', 'typer', 'rich'} & {*sys.modules}; "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
