"""How requests are authorized and addressed: the key, fixed headers, query, and proxy of a target."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from pydantic import Field, SecretStr, ValidationError

from bltybench.errors import UserError
from bltybench.scenario.api.proxy import Proxy
from bltybench.scenario.base import Table

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""Pattern of an environment variable's name."""
MIN_SECRET_CHARS = 4
"""Minimum length of a value to mask. Masking shorter ones would make messages unreadable."""
OWN_HEADERS = {
    "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "keep-alive",
    "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers that bltybench sets, because timing or framing depends on them."""

CREDENTIAL = re.compile(r"key|token|secret|auth|passw|cookie|credential|signature|\bsig\b", re.IGNORECASE)
"""Part of a name that suggests that the value is a credential."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class FromEnvironment(Table):
    """A secret value from an environment variable."""

    env: str = Field(pattern=VARIABLE)
    prefix: str = ""
    """Text before the value, such as ``"Bearer "``."""


Value = str | FromEnvironment


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """What authorizes and addresses the requests to a target, read from the environment."""

    keys: Mapping[str, SecretStr]
    """By the name of their environment variable."""
    default_key: SecretStr | None
    """The key of a target that names none."""
    key_header: tuple[str, str]
    """Name of the key's header, and the text before the key."""
    fixed_headers: tuple[tuple[str, str], ...]
    query: str
    """Encoded, with its question mark; or empty."""
    proxy: Proxy | None
    secrets: tuple[str, ...]
    """Texts that must never be stored or shown."""

    @property
    def key(self) -> SecretStr | None:
        """The only key, or the first one."""
        return next(iter(self.keys.values()), self.default_key)

    def headers(
        self, defaults: Sequence[tuple[str, str]], key: SecretStr | None
    ) -> tuple[tuple[str, str], ...]:
        """Return a request's headers: the defaults, those of the target, and the key, the last of a name."""
        headers = {name.lower(): (name, value) for name, value in (*defaults, *self.fixed_headers)}
        if key is not None:
            name, before = self.key_header
            headers[name.lower()] = name, before + key.get_secret_value()
        return tuple(headers.values())


def read_access(
    target_name: str,
    keys: Mapping[str, SecretStr],
    *,
    default_key: SecretStr | None = None,
    key_header: str,
    headers: Mapping[str, Value],
    query: Mapping[str, Value],
    proxy: Proxy | None = None,
) -> Access:
    """Return a target's access. Raise UserError for a variable that is unset or that can't be sent."""
    sent_headers = [(name, _read(target_name, "headers", name, value)) for name, value in headers.items()]
    sent_query = [(name, _read(target_name, "query", name, value)) for name, value in query.items()]
    secrets = [key.get_secret_value() for key in (*keys.values(), default_key) if key is not None]
    secrets += proxy.secrets if proxy else []
    for values, sent in ((headers, sent_headers), (query, sent_query)):
        for name, text in sent:
            value = values[name]
            if isinstance(value, FromEnvironment):
                secrets += [text, text.removeprefix(value.prefix)]
            elif CREDENTIAL.search(name):
                secrets += [text, text.rpartition(" ")[2]]
    encoded = urlencode(sent_query, quote_via=quote)
    return Access(
        keys=keys,
        default_key=default_key,
        key_header=split_key_header(key_header),
        fixed_headers=tuple(sent_headers),
        query=f"?{encoded}" if encoded else "",
        proxy=proxy,
        secrets=maskable(secrets),
    )


def maskable(secrets: Sequence[str]) -> tuple[str, ...]:
    """Return the secrets to mask, also as they appear in a URL or in JSON, the longest first."""
    forms = set(secrets)
    for secret in secrets:
        escaped = json.dumps(secret)[1:-1]
        forms |= {quote(secret, safe=""), quote(secret), escaped, escaped.replace("/", "\\/")}
    return tuple(sorted((form for form in forms if len(form) >= MIN_SECRET_CHARS), key=len, reverse=True))


def variables(*tables: Mapping[str, Value]) -> Iterator[str]:
    """Yield the environment variables that the values name."""
    for table in tables:
        yield from (value.env for value in table.values() if isinstance(value, FromEnvironment))


def split_key_header(text: str) -> tuple[str, str]:
    """Return the header and the text before the key: ``Authorization: Bearer``, or ``api-key``."""
    name, _, scheme = text.partition(":")
    scheme = scheme.strip()
    return name.strip(), f"{scheme} " if scheme else ""


def valid_header(text: str) -> str:
    """Return the name of a header that a target may set. Raise ValueError for any other."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("is not the name of a header")
    if text.lower() in OWN_HEADERS:
        raise ValueError("is set by bltybench itself")
    return text


def valid_values(table: object) -> dict[str, Value]:
    """Return a table of names and values. Raise ValueError for one of another form, without showing it."""
    if not isinstance(table, Mapping):
        raise ValueError("must be a table")  # noqa: TRY004 - pydantic reports a ValueError with its key
    values: dict[str, Value] = {}
    for name, value in table.items():
        if isinstance(value, str | FromEnvironment):
            values[name] = value
            continue
        try:
            values[name] = FromEnvironment.model_validate(value)
        except ValidationError:
            raise ValueError(f'{name} must be text in quotes, or {{ env = "NAME" }}') from None
    return values


def valid_headers(table: object) -> dict[str, Value]:
    """Return a table of headers. Raise ValueError for a name or a text that can't be sent."""
    values = valid_values(table)
    names = [name.lower() for name in values]
    for name, value in values.items():
        try:
            valid_header(name)
        except ValueError as error:
            raise ValueError(f"{name[:60]!r} {error}") from None
        if names.count(name.lower()) > 1:
            raise ValueError(f"{name} appears twice")
        text = value.prefix if isinstance(value, FromEnvironment) else value
        if _unsendable(text):
            raise ValueError(f"the value of {name} must consist of printable ASCII characters")
    return values


def read_key(variable: str) -> SecretStr | None:
    """Return the key in an environment variable, without spaces around it; None if it is not set.

    Raise UserError for a key that an HTTP header can't carry. The message never shows the key.
    """
    key = os.environ.get(variable, "").strip()
    for position, character in enumerate(key, start=1):
        if not "!" <= character <= "~":
            raise _cannot_send("key", variable, key, position)
    return SecretStr(key) if key else None


def _read(target_name: str, table: str, name: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    text = os.environ.get(value.env, "").strip()
    if not text:
        raise UserError(
            f"target '{target_name}' needs {value.env} for {table}.{name}, but it is not set",
            remedy=f"export {value.env}=… (read from the environment only, never stored)",
        )
    if position := _unsendable(text):
        raise _cannot_send("value", value.env, text, position)
    return value.prefix + text


def _unsendable(text: str) -> int:
    """Return the position, from 1, of the first character that a header can't carry; 0 if there is none."""
    return next((at for at, character in enumerate(text, start=1) if not " " <= character <= "~"), 0)


def _cannot_send(what: str, variable: str, text: str, position: int) -> UserError:
    """Return the error for a value that no header can carry, without the value."""
    character = text[position - 1]
    kind = "a space or control character" if character <= " " or character == "\x7f" else "not ASCII"
    return UserError(
        f"the {what} can't be sent: character {position} of {len(text)} is {kind}",
        where=variable,
        remedy=f"export {variable}=… with printable ASCII characters only",
    )
