"""The types of settings, each with right and wrong values."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.errors import ConfigurationError
from jetmap.settings import Secret, Settings, without_password


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("cores", 4, "4"),
        ("cores", "0,2-3", "0,2-3"),
        ("tasks", "a.py, b.py", ["a.py", "b.py"]),
        ("max_item_bytes", "64KiB", 65_536),
        ("max_item_bytes", " 1.5 kb ", 1500),
        ("max_item_bytes", "2m", 2_000_000),
        ("max_item_bytes", "8kbit", 1000),
        ("max_item_bytes", "9_007_199_254_740", 9_007_199_254_740),
        ("max_item_bytes", 5.0, 5),
        ("worker_memory", None, None),
        ("debug", "Yes", True),
        ("debug", False, False),
        ("nats_password", "s", Secret("s")),
        ("log_level", "debug", "debug"),
        ("grace", "2_000", 2000.0),
        ("root_path", "/jetmap/", "/jetmap"),
        (
            "cors_origins",
            "https://App.example.org/, http://localhost:3000,https://a-b.example:443",
            ["https://app.example.org", "http://localhost:3000", "https://a-b.example"],
        ),
        (
            "cors_origins",
            ["*", "null", "http://[::1]:8080", "http://a:443", "http://a:80", "app://x_1"],
            ["*", "null", "http://[::1]:8080", "http://a:443", "http://a", "app://x_1"],
        ),
        ("cors_origins", "", []),
        ("nats_url", "nats://a:1, tls://b:2", "nats://a:1, tls://b:2"),
        ("nats_url", "nats://u:p%2F@[::1]:1/", "nats://u:p%2F@[::1]:1/"),
    ],
)
def test_read(name: str, value: Any, read: Any) -> None:
    assert Settings.load(**{name: value}).get(name) == read


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cores", "0", "must be a number of cores"),
        ("cores", "1-", "must be a number of cores"),
        ("cores", "1-", "not '1-'"),
        ("pool", "a.b", "1 to 64 letters, digits, - and _, not 'a.b'"),
        ("nats_url", "nats://a:99999", "as in nats://broker:4222"),
        ("nats_url", "nats://a:b", "as in nats://broker:4222"),
        ("nats_url", "nats://a b:1", "as in nats://broker:4222"),
        ("nats_url", "nats://a:1/pool", "as in nats://broker:4222"),
        ("nats_url", "nats://a:1?x=1", "as in nats://broker:4222"),
        ("arena_bytes", False, "number of bytes"),
        ("root_path", "jetmap", "must be a path"),
        ("cors_origins", "foo", """such as "https://app.example.org" or"""),
        ("cors_origins", "http://a.example/path", "without a path"),
        ("cors_origins", "http://a.example, http://b?x", "not 'http://b?x'"),
        ("cors_origins", "http://a.example//", "must be origins"),
        ("cors_origins", "http://u@a.example", "must be origins"),
        ("cors_origins", "https://*.example.org", "must be origins"),
        ("cors_origins", "https://ü.example.org", "must be origins"),
        ("cors_origins", "http://a:99999", "must be origins"),
        ("cors_origins", ["http://"], "must be origins"),
        ("cors_origins", [""], "must be origins"),
        ("cors_origins", [1], "must be a list of strings"),
        ("nats_url", "http://u:p@host", "not 'http://…@host'"),
        ("nats_js_domain", "a.b", "one word without dots"),
        ("token_file", "/nowhere", "which is not a file"),
        ("token_file", "x" * 300, "which is not a file"),
        ("max_item_bytes", "1e400", "number"),
        ("max_item_bytes", "64KiB more", "number of bytes"),
        ("max_item_bytes", "9" * 5000, "number of bytes"),
        ("max_item_bytes", 5.5, "number of bytes"),
        ("debug", "maybe", "true or false, not 'maybe'"),
        ("debug", 2, "true or false"),
        ("nats_user", 5, "must be a string, not 5"),
        ("nats_password", 5, "must be a string"),
        ("tasks", [1], "must be a list of strings"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error', not 'loud'"),
        ("max_item_bytes", -1, "number of bytes"),
        ("grace", "nan", "number of seconds"),
        ("port", 65_536, "from 0 to 65,535"),
        ("max_header_bytes", "1", "number of bytes"),
    ],
)
def test_refused(name: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(**{name: value})
    assert said in str(refused.value)


def test_a_secret_is_not_shown() -> None:
    assert "pass" not in f"{Secret('pass')} {Secret('pass')!r}"
    assert {Secret("a"), Secret("b")} == {Secret("b"), Secret("a")} != {Secret("a")}


@pytest.mark.parametrize(
    ("url", "shown"),
    [("nats://u:p@host:1", "nats://…@host:1"), ("u:p@host", "…@host"), ("host", "host")],
)
def test_an_address_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
