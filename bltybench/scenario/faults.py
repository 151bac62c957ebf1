"""Faults that the sandbox injects, each with its rate."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from bltybench.scenario.base import PositiveFloat, Table

Rate = Annotated[float, Field(ge=0, le=1)]
MAX_ROUNDING = 1e-9
"""Maximum by which a sum of rates can exceed 1, because decimals have no exact binary form."""


CONNECTION_FAULTS = ("tls_handshake", "tls_untrusted")
"""Faults of a connection instead of a request. They require a base_url with https."""


class SandboxFaults(Table):
    """Faults that the sandbox injects, drawn from its seed.

    Rates are fractions of the accepted chat requests, each of which has at most one fault, or of the TLS
    connections. In plain responses, the faults of streams occur in the middle of the body.
    """

    latency_spike: Rate = 0.0
    """The response begins ``spike_ms`` later."""
    json_500: Rate = 0.0
    html_500: Rate = 0.0
    json_502: Rate = 0.0
    html_502: Rate = 0.0
    json_503: Rate = 0.0
    html_503: Rate = 0.0
    """An error with that status, and a body in that format."""
    slow_headers: Rate = 0.0
    """The headers arrive byte by byte, until the client gives up."""
    reset_before_headers: Rate = 0.0
    """The connection is reset (TCP RST) instead of a response."""
    reset_mid_stream: Rate = 0.0
    """The connection is reset after half of the tokens."""
    truncated_chunk: Rate = 0.0
    """The connection closes within a chunk."""
    stall: Rate = 0.0
    """Nothing follows half of the tokens, until the client gives up."""
    malformed_json: Rate = 0.0
    """One event, or the body, is cut JSON."""
    invalid_json: Rate = 0.0
    """JSON that the request asks for, also the arguments of a tool call, lacks its second half."""
    null_values: Rate = 0.0
    """All values of that JSON are null, which its schema may not allow."""
    error_event: Rate = 0.0
    """A 200 whose stream, or body, ends with an error."""
    long_content_length: Rate = 0.0
    """Content-Length announces more than is sent before the connection closes."""
    short_content_length: Rate = 0.0
    """Content-Length announces less than is sent."""

    tls_handshake: Rate = 0.0
    """The server ends the connection during the handshake."""
    tls_untrusted: Rate = 0.0
    """The server's certificate is from an authority that the client does not trust."""
    spike_ms: PositiveFloat = 2000.0
    """Additional latency of a ``latency_spike``."""

    @model_validator(mode="after")
    def _at_most_one_each(self) -> Self:
        for kind, rates in (("request", self.of_requests()), ("connection", self.of_connections())):
            total = sum(rates.values())
            if total > 1 + MAX_ROUNDING:
                raise ValueError(
                    f"the rates of {', '.join(rates)} add up to {total:.4g}; at most 1, because a {kind} has "
                    "at most one fault"
                )
        return self

    def of_requests(self) -> dict[str, float]:
        """Return the faults of requests that can occur, with their rates."""
        return {name: rate for name, rate in self._rates().items() if name not in CONNECTION_FAULTS}

    def of_connections(self) -> dict[str, float]:
        """Return the faults of connections that can occur, with their rates."""
        return {name: rate for name, rate in self._rates().items() if name in CONNECTION_FAULTS}

    def _rates(self) -> dict[str, float]:
        values = ((name, getattr(self, name)) for name in type(self).model_fields if name != "spike_ms")
        return {name: rate for name, rate in values if rate > 0}


def check_tls(base_url: str, ca_file: str | None, faults: SandboxFaults) -> None:
    """Raise ValueError if a sandbox at ``base_url`` can't serve TLS, or can't inject its faults."""
    https = urlsplit(base_url).scheme == "https"
    if https and ca_file is None:
        raise ValueError("a sandbox with https needs ca_file, to which it writes its certificate authority")
    if not https and (needing_tls := faults.of_connections()):
        raise ValueError(f"{', '.join(needing_tls)} in sandbox.faults needs a base_url with https")
