"""Proxies of targets, from the file and from the environment."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.scenario.target import Target

URL = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def target(base_url: str = "https://api.example.com/v1", **keys: Any) -> Target:
    return Target.model_validate({"base_url": base_url} | keys)


@pytest.mark.parametrize(
    "value",
    [
        "proxy.example:3128",
        "https://proxy.example:3128",
        "socks5://proxy.example:1080",
        "http://",
        "http://proxy.example:99999",
        "http://proxy.example:3128/path",
        "http://proxy.example:3128?x=1",
        "http://proxy example",
        "",
    ],
)
def test_only_http_proxies_are_accepted(value: str) -> None:
    with pytest.raises(ValidationError, match="must look like http://proxy"):
        target(proxy=value)


def test_credentials_must_not_be_in_the_file() -> None:
    with pytest.raises(ValidationError, match="set proxy_auth_env instead"):
        target(proxy="http://user:pass@proxy.example:3128")
    with pytest.raises(ValidationError, match="proxy_auth_env requires proxy"):
        target(proxy_auth_env="UNIT_PROXY")


def test_credentials_come_from_the_environment_and_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_PROXY", "user:pass:word")
    api = target(proxy=URL, proxy_auth_env="UNIT_PROXY")
    access = api.access("t")
    assert access.proxy is not None
    assert access.proxy.address == "proxy.example:3128"
    assert access.proxy.authorization == "Basic dXNlcjpwYXNzOndvcmQ="
    assert {"user:pass:word", "pass:word", "dXNlcjpwYXNzOndvcmQ="} <= set(access.secrets)
    assert "UNIT_PROXY" in api.secret_variables
    assert "pass" not in repr(access.proxy)


@pytest.mark.parametrize(
    ("value", "message"), [(None, "UNIT_PROXY is not set"), ("token", "must be user:password")]
)
def test_unusable_credentials_are_refused_without_showing_them(
    value: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("UNIT_PROXY", value)
    with pytest.raises(UserError, match=message) as caught:
        target(proxy=URL, proxy_auth_env="UNIT_PROXY").access("t")
    assert "token" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "base_url", "address"),
    [
        ({"HTTPS_PROXY": URL}, "https://api.example.com/v1", "proxy.example:3128"),
        ({"https_proxy": "proxy.example:3128"}, "https://api.example.com/v1", "proxy.example:3128"),
        ({"HTTPS_PROXY": URL}, "http://api.example.com/v1", None),
        ({"HTTP_PROXY": URL}, "http://api.example.com/v1", "proxy.example:3128"),
        ({"ALL_PROXY": URL}, "https://api.example.com/v1", "proxy.example:3128"),
        ({"ALL_PROXY": URL, "NO_PROXY": "example.com"}, "https://api.example.com/v1", None),
        ({"ALL_PROXY": URL, "no_proxy": "api.example.com:8443"}, "https://api.example.com:8443/v1", None),
        ({"ALL_PROXY": URL, "NO_PROXY": "*"}, "https://api.example.com/v1", None),
        ({"HTTPS_PROXY": "http://[::1]"}, "https://api.example.com/v1", "[::1]:80"),
        ({}, "https://api.example.com/v1", None),
    ],
)
def test_environment_selects_the_proxy_as_other_programs_do(
    variables: dict[str, str], base_url: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = target(base_url, proxy="environment").access("t").proxy
    assert (proxy and proxy.address) == address
    assert target(base_url).access("t").proxy is None


def test_environment_can_hold_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p%40ss@proxy.example:3128")
    api = target(proxy="environment")
    proxy = api.access("t").proxy
    assert proxy is not None
    assert proxy.credentials is not None
    assert proxy.credentials.get_secret_value() == "user:p@ss"
    assert "HTTPS_PROXY" in api.secret_variables


def test_unusable_proxy_of_the_environment_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:hidden@proxy.example:1080")
    with pytest.raises(UserError) as caught:
        target(proxy="environment").access("t")
    assert str(caught.value).startswith("HTTPS_PROXY: is not the address of an HTTP proxy")
    assert "hidden" not in str(caught.value)
