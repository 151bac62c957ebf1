"""The address, TLS settings, and timeouts of a target."""

from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from bltybench.errors import UserError
from bltybench.scenario.api.endpoint import Timeouts
from bltybench.scenario.api.proxy import Proxy
from bltybench.wire.http.tls import tls_context

PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
"""Characters of a path, besides letters and digits, that are sent as they are."""


class Origin:
    """Address, TLS settings, and timeouts of a target, shared by all connections to it.

    ``base_url`` looks like ``https://host/v1``. Request paths are appended to it, and ``query`` to them.
    ``secrets``, for example the API key, must never appear in a message. Raises UserError for an invalid
    ``base_url`` or an unreadable ``ca_file``. Proxies in the environment are ignored: the run would
    measure them instead of the API.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        *,
        verify_tls: bool = True,
        ca_file: str | None = None,
        secrets: Sequence[str] = (),
        query: str = "",
        proxy: Proxy | None = None,
    ) -> None:
        try:
            parts = urlsplit(base_url)
            host, port = parts.hostname, parts.port
            # Names can have any script. The resolver's thread would print a traceback for a bad one.
            self.authority = parts.netloc.rpartition("@")[2].encode("idna").decode()
            (host or "").encode("idna")
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in {"http", "https"} or not host:
            raise UserError("the base URL must look like https://api.example.com/v1", where="base_url")
        self.host = host
        self.port = port or (443 if parts.scheme == "https" else 80)
        self.prefix = quote(parts.path.rstrip("/"), safe=PATH_CHARACTERS)
        self.query = query
        self.proxy = proxy
        self.timeouts = timeouts
        self.secrets = tuple(secret for secret in secrets if secret)
        self.tls = tls_context(verify_tls, ca_file) if parts.scheme == "https" else None
