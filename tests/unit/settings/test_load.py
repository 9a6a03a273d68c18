"""Settings: where values come from, which are refused, and that the file agrees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import jetmap
from jetmap.errors import ConfigurationError
from jetmap.settings import (
    FIELDS,
    SECTIONS,
    LimitSettings,
    Settings,
    unknown_variables,
)

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "config" / "jetmap.toml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no JETMAP_ variable of the machine's."""
    for name in [name for name in os.environ if name.startswith("JETMAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_holds_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    with CONFIG.open("rb") as file:
        assert list(tomllib.load(file)) == list(FIELDS)
    defaults = Settings.load()
    monkeypatch.setenv("JETMAP_CONFIG", str(CONFIG))
    assert Settings.load() == defaults


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_has_a_comment_or_shares_the_one_above(name: str) -> None:
    first = next(iter(vars(SECTIONS[FIELDS[name].section]())))
    if name == first or FIELDS[name].setting.limit:
        assert FIELDS[first].setting.comment
    setting = FIELDS[name].setting
    assert not setting.comment or setting.comment.endswith((".", ").")) or "]." in setting.comment
    assert setting.metavar is None or setting.help, f"{name} has a metavar and no help"


NEW_SETTING = """
    max_naps: Count = setting(
        12_345, "Naps.", help="Naps.", metavar="N", limit="no more naps", keeper="agree"
    )
"""
USES_IT = """
import os
from jetmap.cli.options import OPTIONS
from jetmap.embedded.keeper_messages import KeeperSpec
from jetmap.embedded.membership import _key
from jetmap.settings import Settings, render
assert "# Naps.\\nmax_naps = 12_345\\n" in render.config()
assert "| `max_naps` | 12,345 | no more naps |" in render.limits()
assert OPTIONS["max_naps"].name == "--max-naps"
os.environ["JETMAP_MAX_NAPS"] = "3"
assert Settings.load().limits.max_naps == 3
one, other = (KeeperSpec(settings=Settings.load(max_naps=n).for_keeper()) for n in (1, 2))
assert _key(one, "/") != _key(other, "/")
assert one.to_settings().limits.max_naps == 1
"""


def test_a_new_setting_is_declared_in_one_place(elsewhere: Path) -> None:
    """The declaration yields a key, a variable, an option, a row and a part of the keeper's key."""
    copy = shutil.copytree(Path(jetmap.__file__).parent, elsewhere / "jetmap")
    limits = copy / "settings" / "limits.py"
    before, heading, after = limits.read_text(encoding="utf-8").partition('= "Limits"\n')
    limits.write_text(before + heading + NEW_SETTING + after, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(elsewhere)}
    subprocess.run([sys.executable, "-c", USES_IT], check=True, env=environment)


def test_values_alone_make_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper's settings are those it was sent, whatever its environment says."""
    monkeypatch.setenv("JETMAP_PORT", "3")
    monkeypatch.setenv("JETMAP_GRACE", "3")
    made = Settings.of({"grace": 7})
    assert (made.gateway.port, made.workers.grace) == (8000, 7)
    assert made.was_given("grace") and not made.was_given("port")


def test_a_copy_differs_in_what_was_replaced() -> None:
    settings = Settings.load(pool="a")
    copy = settings.replace(pool="b", grace=1.0)
    assert (copy.broker.pool, copy.workers.grace, settings.broker.pool) == ("b", 1.0, "a")
    assert copy.limits is settings.limits
    with pytest.raises(TypeError, match="unknown settings: prot"):
        settings.replace(prot=1)


def test_settings_for_another_broker_keep_no_other_credentials(elsewhere: Path) -> None:
    secret = elsewhere / "secret"
    secret.write_text("s", encoding="utf-8")
    file = str(secret)
    settings = Settings.load(nats_token_file=file, nats_creds=file, nats_js_domain="d")
    there = settings.replace(nats_tls_ca=file).at("nats://b:1", "me", "word")
    assert there.broker.read_nats_password() == "word"
    broker = there.broker
    assert (broker.nats_token_file, broker.nats_creds, broker.nats_js_domain) == (None, None, None)
    assert broker.nats_tls_ca == file


def test_items_must_fit_into_a_message() -> None:
    limits = LimitSettings(max_item_bytes=100)
    assert limits.fitting(100) is limits
    assert limits.fitting(99).max_item_bytes == 99


def test_option_beats_variable_beats_file_beats_default(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load().gateway.port == 8000
    (elsewhere / "config").mkdir()
    (elsewhere / "config" / "jetmap.toml").write_text("port = 1\n", encoding="utf-8")
    assert Settings.load().gateway.port == 1
    (elsewhere / "jetmap.toml").write_text("port = 2\n", encoding="utf-8")
    assert Settings.load().gateway.port == 2
    monkeypatch.setenv("JETMAP_PORT", "3")
    assert Settings.load().gateway.port == 3
    assert Settings.load(port=4).gateway.port == 4
    assert Settings.load(port=None).gateway.port == 3


def test_a_chosen_file_replaces_the_others(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "jetmap.toml").write_text("port = 2\n", encoding="utf-8")
    chosen = elsewhere / "chosen.toml"
    chosen.write_text('pool = "blue"\n', encoding="utf-8")
    monkeypatch.setenv("JETMAP_CONFIG", str(chosen))
    settings = Settings.load()
    assert (settings.gateway.port, settings.broker.pool) == (8000, "blue")


def test_empty_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_NATS_URL", "")
    monkeypatch.setenv("JETMAP_PORT", "")
    settings = Settings.load(cores="")
    assert (settings.broker.nats_url, settings.gateway.port, settings.workers.cores) == (
        None,
        8000,
        None,
    )


def test_lists_and_sizes_as_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_TASKS", "tasks.py, myapp.tasks")
    monkeypatch.setenv("JETMAP_NATS_URL", "nats://a:4222, nats://b:4222")
    monkeypatch.setenv("JETMAP_CHUNK_BYTES", "64KiB")
    settings = Settings.load(cors_origins=("http://a", "http://b"))
    assert settings.workers.tasks == ["tasks.py", "myapp.tasks"]
    assert settings.broker.servers() == ["nats://a:4222", "nats://b:4222"]
    assert settings.chunks.chunk_bytes == 65536
    assert settings.gateway.cors_origins == ["http://a", "http://b"]


def test_all_problems_at_once_with_their_origin(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "jetmap.toml").write_text('prot = 1\nwork_storage = "disk"\n', encoding="utf-8")
    monkeypatch.setenv("JETMAP_GRACE", "-1")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(cores="0,x", port=99999)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "unknown setting prot in jetmap.toml: did you mean port?" in problems
    assert "work_storage in jetmap.toml must be 'memory' or 'file', not 'disk'" in problems
    assert "JETMAP_GRACE must be " in problems
    assert "--" not in problems
    assert "cores must be a number of cores up to 4,096" in problems
    assert "port must be " in problems


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
    (elsewhere / "jetmap.toml").write_text("[workers]\ncores = 2\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"^\[workers\] in jetmap\.toml: settings are not"):
        Settings.load()
    monkeypatch.setenv("JETMAP_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml, which is not a file"):
        Settings.load()
    monkeypatch.setenv("JETMAP_CONFIG", "x" * 300)
    with pytest.raises(ConfigurationError, match="xxx, which is not a file"):
        Settings.load()


def test_secrets_come_from_files_or_variables_and_stay_secret(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = elsewhere / "token"
    secret.write_text("from-file\n", encoding="utf-8")
    monkeypatch.setenv("JETMAP_TOKEN_FILE", str(secret))
    monkeypatch.setenv("JETMAP_NATS_PASSWORD", "from-variable")
    settings = Settings.load()
    assert settings.gateway.read_token() == "from-file"
    assert settings.broker.read_nats_password() == "from-variable"
    assert settings.broker.read_nats_token() is None
    assert "from-variable" not in repr(settings)

    monkeypatch.setenv("JETMAP_TOKEN", "other")
    with pytest.raises(ConfigurationError, match="token and token_file are both set"):
        Settings.load()
    monkeypatch.delenv("JETMAP_TOKEN")
    secret.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is empty"):
        settings.gateway.read_token()


def test_mistyped_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_NATSURL", "nats://a")
    monkeypatch.setenv("JETMAP_POOL", "blue")
    assert unknown_variables() == ["unknown setting JETMAP_NATSURL: did you mean JETMAP_NATS_URL?"]


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        Settings.load().gateway.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nats_password": "a", "nats_password_file": __file__}, "are both set: keep one"),
        ({"nats_tls_cert": __file__}, "go together: set both or neither"),
        ({"chunk_min_seconds": 1, "chunk_seconds": 0.5}, "larger than chunk_seconds"),
        ({"token": "a", "token_file": __file__}, "token and token_file are both set"),
    ],
)
def test_settings_that_exclude_each_other(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Settings.load(**given)


def test_no_name_is_in_two_sections() -> None:
    names = [name for section in SECTIONS.values() for name in vars(section())]
    assert len(names) == len(set(names)) == len(FIELDS)


@pytest.mark.parametrize("module", ["jetmap", "jetmap.worker.main"])
def test_importing_it_imports_no_settings(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "bad = {'jetmap.settings', 'pydantic', 'typer', 'rich'} & {*sys.modules}; "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
