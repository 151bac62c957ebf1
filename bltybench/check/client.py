"""HTTP client of the check: synchronous, one request at a time, with bounded time, size, and count."""

import json
import logging
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from bltybench.check.deadline import RequestDeadline
from bltybench.check.reach import tls_context
from bltybench.errors import UserError
from bltybench.scenario.api.access import Access, maskable
from bltybench.scenario.api.proxy import Proxy
from bltybench.scenario.target import Target
from bltybench.text import sanitize

_sending = threading.local()
# httpx logs each URL, whose query can hold a secret. Requests of others in this process stay in the log.
logging.getLogger("httpx").addFilter(lambda _: not getattr(_sending, "now", False))

MAX_BODY_BYTES = 2_000_000
"""Maximum body to keep, decompressed."""
MAX_PIECE_BYTES = 64 * 1024
"""Maximum size of one decompressed piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResponse:
    """The response to one request."""

    status: int | None = None
    """None if there was no response."""
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytes = b""
    failure: str | None = None
    """Why there was no response, or why it broke off."""
    sent_s: float
    """Start time, in seconds since the Unix epoch."""
    ended_s: float
    secrets: tuple[str, ...] = ()
    """Secrets to mask whenever text is shown."""

    def object(self) -> dict[str, Any]:
        """Return the body as a JSON object, or an empty object if it is anything else."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def show(self, value: Any) -> str:
        """Return server-sent text in a form that is safe to show."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return sanitize(text, self.secrets)

    def summary(self) -> str:
        """Return a short summary of the response."""
        if self.failure:
            return self.failure
        if self.status is not None and self.status < 400:
            return f"{self.status} {self.show(self.headers.get('content-type', 'without content-type'))}"
        error = self.object().get("error")
        if isinstance(error, dict):
            parts = [error[key] for key in ("type", "code", "message") if isinstance(error.get(key), str)]
            return f"{self.status} {self.show(': '.join(parts))}".strip()
        return f"{self.status} {self.show(self.body[:400].decode(errors='replace'))}".strip()


class Client:
    """Client for one target, with its key, headers, and query.

    Like load runs, it follows no redirects and uses no proxy but the target's.
    """

    def __init__(
        self, target: Target, access: Access, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.sent = 0
        self.target = target
        self._access = access
        self.key = access.key
        """The key of the next requests."""
        self._secrets = set(access.secrets)
        self._counting = threading.Lock()
        self._http = httpx.Client(
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(target.timeouts.headers_s, connect=target.timeouts.connect_s),
            verify=tls_context(target) if target.base_url.startswith("https:") else True,
            # A server can close a kept-alive connection just when the next request is sent.
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
            proxy=_httpx_proxy(access.proxy),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str) -> CheckResponse:
        """GET ``path`` (relative to the base URL) with the target's key."""
        return self._send("GET", path, None, self.key)

    def get_without_key(self, path: str) -> CheckResponse:
        """GET ``path`` without a key."""
        return self._send("GET", path, None, None)

    def post(self, path: str, payload: dict[str, Any] | bytes) -> CheckResponse:
        """POST ``payload``, as JSON or unchanged, with the target's key."""
        return self.post_as(self.key, path, payload)

    def post_as(self, key: SecretStr | None, path: str, payload: dict[str, Any] | bytes) -> CheckResponse:
        """POST ``payload`` with another key, or without one."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self._send("POST", path, body, key)

    def _send(self, method: str, path: str, body: bytes | None, key: SecretStr | None) -> CheckResponse:
        if key is not None:
            self._secrets.update(maskable([key.get_secret_value()]))
        defaults = [("User-Agent", "bltybench-check")]
        if body is not None:
            defaults.append(("Content-Type", "application/json"))
        headers = self._access.headers(defaults, key)
        with self._counting:
            self.sent += 1
        sent_s = time.time()
        timeouts = self.target.timeouts
        deadline = RequestDeadline(timeouts.headers_s, timeouts.total_s)
        url = self.target.base_url + path + self._access.query
        status, received, kept, failure = None, httpx.Headers(), bytearray(), None
        _sending.now = True
        try:
            extensions = {"trace": deadline.trace}
            with (
                deadline,
                self._http.stream(
                    method, url, headers=headers, content=body, extensions=extensions
                ) as response,
            ):
                status, received = response.status_code, response.headers
                for part in _decoded(response):
                    kept += part
                    if len(kept) > MAX_BODY_BYTES:
                        failure = f"longer than {MAX_BODY_BYTES // 1_000_000} MB: reading stopped"
                        break
        except httpx.TimeoutException as error:
            failure = f"timed out ({type(error).__name__})"
        except _UnreadableBodyError as error:
            failure = str(error)
        except httpx.TransportError as error:
            failure = sanitize(f"{type(error).__name__}: {error}", self._secrets)
        finally:
            _sending.now = False
        if deadline.passed is not None:
            failure = f"timed out: {deadline.passed}"
        return CheckResponse(
            status=status,
            headers=received,
            body=bytes(kept),
            failure=failure,
            sent_s=sent_s,
            ended_s=time.time(),
            secrets=tuple(self._secrets),
        )


def refuse_key(name: str, target: Target, response: CheckResponse, variable: str | None = None) -> None:
    """Raise UserError if the response says that the key, of the first or a given variable, is wrong."""
    if response.status != 401:
        return
    variable = variable or next(iter(target.key_names), None)
    if variable is None:
        raise UserError(
            f"the API needs a key, but target '{name}' names none ({response.summary()})",
            where=target.base_url,
            remedy=f"set api_key_env of [targets.{name}] to the name of the environment variable",
        )
    raise UserError(
        f"the API refuses the key in {variable} ({response.summary()})",
        where=target.base_url,
        remedy=f"export {variable}=… with a valid key",
    )


def _httpx_proxy(proxy: Proxy | None) -> httpx.Proxy | None:
    if proxy is None:
        return None
    user, _, password = (proxy.credentials.get_secret_value() if proxy.credentials else "").partition(":")
    return httpx.Proxy(f"http://{proxy.address}", auth=(user, password) if proxy.credentials else None)


class _UnreadableBodyError(Exception):
    """A compressed body that can't be read."""


def _decoded(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body in bounded pieces, because one compressed piece can expand to a thousand times its size.

    The check asks for an uncompressed body, but some servers compress anyway.
    """
    encoding = sanitize(response.headers.get("content-encoding", "").strip().lower())
    if encoding in {"", "identity"}:
        yield from response.iter_bytes()
        return
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise _UnreadableBodyError(f"compressed with {encoding}, but the request accepts only identity")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # detects gzip and zlib
    try:
        for part in response.iter_raw():
            compressed = part
            while compressed and not decoder.eof:
                yield decoder.decompress(compressed, MAX_PIECE_BYTES)
                compressed = decoder.unconsumed_tail
    except zlib.error as error:
        raise _UnreadableBodyError(f"not valid {encoding}: {error}") from None
