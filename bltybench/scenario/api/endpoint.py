"""The endpoint of an API: its address, credentials, headers, timeouts, and TLS settings."""

import ipaddress
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from bltybench.errors import UserError
from bltybench.scenario.api.access import (
    VARIABLE,
    Access,
    Value,
    read_access,
    read_key,
    split_key_header,
    valid_header,
    valid_headers,
    valid_values,
    variables,
)
from bltybench.scenario.api.proxy import ENVIRONMENT, proxy_variables, read_proxy, valid_proxy
from bltybench.scenario.api.request_options import RequestOptions
from bltybench.scenario.api.weights import KeyWeights
from bltybench.scenario.base import PositiveFloat, Table


class Timeouts(Table):
    """Timeouts of one attempt, in seconds."""

    connect_s: PositiveFloat = 10.0
    headers_s: PositiveFloat = 60.0
    between_events_s: PositiveFloat = 30.0
    total_s: PositiveFloat = 300.0


class Endpoint(RequestOptions):
    """How an API is reached. Its request options are the defaults of all calls."""

    base_url: str
    """Address up to and including ``/v1``, or of chat completions. A query in it is moved to ``query``."""
    api_key_env: str | None = Field(default=None, pattern=VARIABLE)
    """Name of the environment variable that holds the key."""
    keys: KeyWeights | None = None
    """Names of variables that hold keys, with weights: each call uses one of them."""
    api_key_header: str = "Authorization: Bearer"
    """Header that carries the key: its name and, after a colon, the text before the key."""
    headers: dict[str, Value] = Field(default_factory=dict)
    """Further headers of every request. A value is text, or ``{ env = "NAME", prefix = "Bearer " }``."""
    query: dict[str, Value] = Field(default_factory=dict)
    """Query parameters of every request, with the same kinds of values."""
    chat_path: str = Field(default="/chat/completions", pattern=r"^/[!-~]*$")
    """Path of chat completions after base_url. ``{model}`` stands for the model."""
    model_names: dict[str, str] = Field(default_factory=dict)
    """This API's names of the scenario's models."""
    proxy: str | None = None
    """Address of an HTTP proxy, or "environment" for that of HTTPS_PROXY, HTTP_PROXY, and NO_PROXY."""
    proxy_auth_env: str | None = Field(default=None, pattern=VARIABLE)
    """Name of the environment variable that holds the proxy's ``user:password``."""
    timeouts: Timeouts = Timeouts()
    verify_tls: bool = True
    ca_file: str | None = None
    """PEM file of trusted certificates, instead of the system's."""

    @model_validator(mode="before")
    @classmethod
    def _separate_query(cls, data: Any) -> Any:
        url = data.get("base_url") if isinstance(data, dict) else None
        if not isinstance(url, str) or "?" not in url or "#" in url:
            return data
        address, _, text = url.partition("?")
        pairs = parse_qsl(text, keep_blank_values=True)
        given = data.get("query", {})
        names = [name for name, _ in pairs] + list(given if isinstance(given, dict) else [])
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the query of base_url: {name[:60]} appears twice")
        query = dict(pairs) | given if isinstance(given, dict) else given
        return data | {"base_url": address, "query": query}

    @field_validator("headers", mode="before")
    @classmethod
    def _headers(cls, value: object) -> dict[str, Value]:
        return valid_headers(value)

    @field_validator("query", mode="before")
    @classmethod
    def _query(cls, value: object) -> dict[str, Value]:
        return valid_values(value)

    @field_validator("api_key_header")
    @classmethod
    def _key_header(cls, value: str) -> str:
        name, scheme = split_key_header(value)
        try:
            valid_header(name)
        except ValueError as error:
            raise ValueError(f'{error}; use for example "api-key" or "Authorization: Bearer"') from None
        if not (scheme.isascii() and (scheme + "x").isprintable()):
            raise ValueError("must consist of printable ASCII characters")
        return value

    @field_validator("proxy")
    @classmethod
    def _http_proxy(cls, value: str | None) -> str | None:
        return None if value is None else valid_proxy(value)

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        wrong = "must look like https://api.example.com/v1"
        try:
            parts = urlsplit(value)
            port_ok = parts.port != 0
        except ValueError:  # an invalid port, or an incomplete IPv6 address
            raise ValueError(wrong) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok:
            raise ValueError(wrong)
        if not value.isprintable() or " " in value:
            raise ValueError("must not contain spaces or control characters")
        if parts.username or parts.password:
            raise ValueError("must not contain a user name or password; set api_key_env instead")
        if parts.query or parts.fragment:
            raise ValueError("must not have a fragment")
        # Some consoles show the address of chat completions.
        return value.rstrip("/").removesuffix("/chat/completions")

    @model_validator(mode="after")
    def _proxy_for_credentials(self) -> Self:
        if self.proxy_auth_env and not self.proxy:
            raise ValueError("proxy_auth_env requires proxy")
        return self

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_env and self.keys:
            raise ValueError("set api_key_env for one key or keys for several, not both")
        name = split_key_header(self.api_key_header)[0].lower()
        if self.key_names and name in {header.lower() for header in self.headers}:
            setting = "keys" if self.keys else "api_key_env"
            raise ValueError(f"headers and {setting} set the same header: keep one of them")
        return self

    @property
    def key_names(self) -> list[str]:
        """The environment variables that hold the keys."""
        return list(self.keys or ()) or [name for name in (self.api_key_env,) if name]

    @property
    def is_local(self) -> bool:
        """Whether the target is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def secret_variables(self) -> set[str]:
        """The environment variables that hold secrets of this target."""
        own = {name for name in (*self.key_names, self.proxy_auth_env) if name}
        proxies = proxy_variables() if self.proxy == ENVIRONMENT else set()
        return own | proxies | set(variables(self.headers, self.query))

    def path_of_chat(self, model: str) -> str:
        """Return the path of chat completions after base_url."""
        path = self.chat_path
        return path.replace("{model}", quote(model, safe="")) if "{" in path else path

    def model_name(self, model: str) -> str:
        """Return this API's name of a model of the scenario."""
        return self.model_names.get(model, model)

    def access(self, name: str) -> Access:
        """Return the keys, headers, query, and proxy, read from the environment.

        ``name`` is the target's, for messages. Raise UserError for a variable that is unset or can't be sent.
        """
        proxy = read_proxy(self.proxy, self.proxy_auth_env, self.base_url, name)
        return read_access(
            name,
            self.read_keys(name),
            default_key=None if self.default_key is None else SecretStr(self.default_key),
            key_header=self.api_key_header,
            headers=self.headers,
            query=self.query,
            proxy=proxy,
        )

    @property
    def default_key(self) -> str | None:
        """The key to use if the target names none, or if the environment does not have it."""
        return None

    @property
    def public_keys(self) -> Mapping[str, str]:
        """Keys by the name of their variable, to use if the environment does not have them."""
        return {}

    def read_keys(self, name: str) -> dict[str, SecretStr]:
        """Return the keys by the name of their variable. ``name`` is the target's, for messages.

        Raise UserError if a required key is not set, or if a key can't be sent. The sandbox falls back to its
        public keys.
        """
        found: dict[str, SecretStr] = {}
        for variable in self.key_names:
            public = self.public_keys.get(variable)
            key = read_key(variable) or (SecretStr(public) if public else None)
            if key is not None:
                found[variable] = key
            elif self.keys or self.default_key is None:
                raise UserError(
                    f"target '{name}' needs an API key, but {variable} is not set",
                    remedy=f"export {variable}=… (read from the environment only, never stored)",
                )
        return found
