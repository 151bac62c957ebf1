"""The HTTP proxy between this machine and an API."""

import base64
import os
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from pydantic import SecretStr

from bltybench.errors import UserError

ENVIRONMENT = "environment"
"""Value of ``proxy`` that selects the proxy of the environment."""
ENVIRONMENT_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
"""Variables that name proxies, in upper or lower case."""
EXPECTED = f'must look like http://proxy.example.com:3128, or be "{ENVIRONMENT}"'


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """An HTTP proxy, with its credentials if it requires any."""

    host: str
    port: int
    credentials: SecretStr | None = None
    """``user:password``."""

    @property
    def address(self) -> str:
        """Host and port, without the credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """Value of the Proxy-Authorization header."""
        if self.credentials is None:
            return None
        return f"Basic {base64.b64encode(self.credentials.get_secret_value().encode()).decode()}"

    @property
    def secrets(self) -> list[str]:
        """Texts that must never be stored or shown."""
        if self.credentials is None:
            return []
        text = self.credentials.get_secret_value()
        return [text, text.partition(":")[2], (self.authorization or "").removeprefix("Basic ")]


def valid_proxy(text: str) -> str:
    """Return the value of ``proxy``. Raise ValueError for anything but an HTTP proxy's address."""
    if text == ENVIRONMENT:
        return text
    parts = _parse(text)
    if parts.username or parts.password:
        raise ValueError("must not contain a user name or password; set proxy_auth_env instead")
    return text


def read_proxy(value: str | None, auth_variable: str | None, base_url: str, target_name: str) -> Proxy | None:
    """Return the proxy to use for ``base_url``, if there is one.

    ``value`` and ``auth_variable`` are the target's ``proxy`` and ``proxy_auth_env``. Raise UserError for an
    unusable variable, without its value.
    """
    address = urlsplit(base_url)
    parts = _from_environment(address) if value == ENVIRONMENT else value and _parse(value)
    if not parts:
        return None
    credentials = None
    if auth_variable is not None:
        credentials = os.environ.get(auth_variable, "").strip()
        if not credentials:
            raise UserError(
                f"target '{target_name}' needs the credentials of its proxy, but {auth_variable} is not set",
                remedy=f"export {auth_variable}=user:password (read from the environment only, never stored)",
            )
        if ":" not in credentials:
            raise UserError("the proxy's credentials must be user:password", where=auth_variable)
    elif parts.username:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.hostname or "", parts.port or 80, SecretStr(credentials) if credentials else None)


def proxy_variables() -> set[str]:
    """Return the environment variables that name proxies. Their values can contain credentials."""
    return {name for name in os.environ if name.lower() in ENVIRONMENT_VARIABLES}


def _from_environment(address: SplitResult) -> SplitResult | None:
    proxies = getproxies_environment()
    if proxy_bypass_environment(address.netloc, proxies):
        return None
    name = address.scheme if proxies.get(address.scheme) else "all"
    text = proxies.get(name)
    if not text:
        return None
    try:
        return _parse(text if "://" in text else f"http://{text}")
    except ValueError:
        raise UserError(
            "is not the address of an HTTP proxy",
            where=f"{name.upper()}_PROXY",
            remedy="set it to an address like http://proxy.example.com:3128",
        ) from None


def _parse(text: str) -> SplitResult:
    """Return the parts of a proxy's address. Raise ValueError for anything else, without showing it."""
    try:
        parts = urlsplit(text)
        usable = parts.port != 0 and bool(parts.hostname)
        (parts.hostname or "").encode("idna")
    except ValueError:  # an invalid port, an incomplete IPv6 address, or an impossible name
        raise ValueError(EXPECTED) from None
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme != "http" or not usable or extra or not text.isprintable() or " " in text:
        raise ValueError(EXPECTED)
    return parts
