"""Settings of clients that others wrote, to copy: each paces one client as prescribed."""

from math import ceil, floor, log10
from textwrap import dedent
from urllib.parse import urlsplit

import msgspec

from bltybench.policies.advice.prescription import Prescription

NGINX_QUEUE_S = 60
"""Time for which the gateway holds a request at most, in seconds."""
MIN_ENVOY_FILL_S = 0.05
"""Shortest time between two fills of a bucket that Envoy accepts, in seconds."""

MIN_TIMEOUT_S, DEFAULT_TIMEOUT_S = 30, 120
"""Shortest timeout, and that without a measured latency, in seconds."""
TIMEOUT_FACTOR = 3
"""Timeout, as a multiple of the slowest response."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One client library or gateway."""

    name: str
    language: str
    text: str
    note: str


def settings(prescription: Prescription, *, model: str, base_url: str, timeout_s: int) -> list[Setting]:
    """Return the settings that pace a client as prescribed. Keys are read from the environment."""
    values = _Values(prescription, model, base_url, timeout_s)
    return [_openai(values), _litellm(values), _langchain(values), _tenacity(values), *_gateways(values)]


def timeout_s(slowest_s: float | None) -> int:
    """Return a timeout in whole seconds, by the slowest response that was measured."""
    if slowest_s is None:
        return DEFAULT_TIMEOUT_S
    return max(MIN_TIMEOUT_S, 10 * ceil(TIMEOUT_FACTOR * slowest_s / 10))


class _Values:
    """The numbers and names that the settings need."""

    def __init__(self, prescription: Prescription, model: str, base_url: str, timeout_s: int) -> None:
        self.prescription = prescription
        self.model_id = model
        self.model = _quoted(model)
        self.base_url = _quoted(base_url)
        self.url = base_url
        self.timeout_s = timeout_s
        self.retries = prescription.max_retries
        self.spacing_s = prescription.spacing_s


def _openai(values: _Values) -> Setting:
    spacing_s, slots = values.spacing_s, values.prescription.in_flight
    lines = ["import asyncio", ""] if slots is not None else []
    if spacing_s is not None:
        lines += ["from aiolimiter import AsyncLimiter"]
    lines += [
        "from openai import AsyncOpenAI",
        "",
        "client = AsyncOpenAI(",
        f"    base_url={values.base_url}, max_retries={values.retries}, timeout={values.timeout_s}",
        ")",
    ]
    holds = []
    if slots is not None:
        lines.append(f"slots = asyncio.Semaphore({slots})")
        holds.append("slots")
    if spacing_s is not None:
        lines.append(f"pace = AsyncLimiter(1, {spacing_s:g})  # one request every {spacing_s:g} s")
        holds.append("pace")
    call = "return await client.chat.completions.create(**request)"
    lines += ["", "", "async def chat(**request):"]
    lines += [f"    async with {', '.join(holds)}:", f"        {call}"] if holds else [f"    {call}"]
    return Setting(
        name="openai with aiolimiter",
        language="python",
        text="\n".join(lines) + "\n",
        note="The SDK's own retries are not paced."
        if spacing_s is None
        else "The pace is a little slower than the limit, because requests don't arrive evenly. "
        "AsyncLimiter(1, …) sends no bursts; AsyncLimiter(60, 60) would send 60 requests immediately.",
    )


def _litellm(values: _Values) -> Setting:
    prescription = values.prescription
    found = {
        "rpm": prescription.requests_per_min,
        "tpm": prescription.tokens_per_min,
        "max_parallel_requests": prescription.in_flight,
    }
    limits = "".join(f'\n                "{name}": {value},' for name, value in found.items() if value)
    text = f"""\
from litellm import Router

router = Router(
    model_list=[
        {{
            "model_name": {values.model},
            "litellm_params": {{
                "model": {_quoted("openai/" + values.model_id)},
                "api_base": {values.base_url},{limits}
            }},
        }}
    ],
    num_retries={values.retries},
    timeout={values.timeout_s},
    optional_pre_call_checks=["enforce_model_rate_limits"],
)
"""
    return Setting(
        name="LiteLLM router",
        language="python",
        text=text,
        note="Without the check, rpm and tpm only choose between deployments. It refuses instead of pacing.",
    )


def _langchain(values: _Values) -> Setting:
    imports = ["from langchain_openai import ChatOpenAI"]
    pace: list[str] = []
    options = {
        "model": values.model,
        "base_url": values.base_url,
        "max_retries": values.retries,
        "timeout": values.timeout_s,
    }
    if values.spacing_s is not None:
        imports.insert(0, "from langchain_core.rate_limiters import InMemoryRateLimiter")
        per_s, check_s = _rounded_down(1 / values.spacing_s), _rounded_down(min(0.1, values.spacing_s / 2))
        pace = [
            "pace = InMemoryRateLimiter(",
            f"    requests_per_second={per_s:g}, check_every_n_seconds={check_s:g}, max_bucket_size=1",
            ")",
        ]
        options["rate_limiter"] = "pace"
    lines = [*imports, "", *pace, "model = ChatOpenAI("]
    lines += [f"    {name}={value}," for name, value in options.items()]
    return Setting(
        name="LangChain",
        language="python",
        text="\n".join([*lines, ")"]) + "\n",
        note="The bucket of size 1 sends no bursts. Retries are not paced.",
    )


def _tenacity(values: _Values) -> Setting:
    text = dedent(
        f"""\
        from openai import OpenAI, RateLimitError
        from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        client = OpenAI(base_url={values.base_url}, max_retries=0, timeout={values.timeout_s})
        backoff = wait_random_exponential(multiplier=1, max=60)


        def announced_or_backoff(state):
            announced = state.outcome.exception().response.headers.get("retry-after", "")
            return min(float(announced), 120) if announced.isdigit() else backoff(state)


        @retry(
            retry=retry_if_exception_type(RateLimitError),
            wait=announced_or_backoff,
            stop=stop_after_attempt({values.retries + 1}),
            reraise=True,
        )
        def chat(**request):
            return client.chat.completions.create(**request)
        """
    )
    return Setting(
        name="tenacity",
        language="python",
        text=text,
        note="It decides when to retry, and does not pace: combine it with a pace.",
    )


def _gateways(values: _Values) -> list[Setting]:
    """Return gateways that limit all clients of one key together; none if there is no pace to keep."""
    if values.spacing_s is None:
        return []
    prescription = values.prescription
    group_s = values.spacing_s * prescription.keys_per_client / prescription.sharing
    return [_nginx(values, 60 / group_s), _envoy(values, group_s)]


def _nginx(values: _Values, per_min: float) -> Setting:
    rate = f"{floor(per_min)}r/m" if per_min < 6000 else f"{floor(per_min / 60)}r/s"
    queue = max(1, floor(per_min / 60 * NGINX_QUEUE_S))
    scheme, _, rest = values.url.partition("://")
    host = rest.partition("/")[0]
    text = dedent(
        f"""\
        limit_req_zone $http_authorization zone=egress:10m rate={rate};

        server {{
            listen 127.0.0.1:8080;
            location / {{
                limit_req zone=egress burst={queue};
                limit_req_status 429;
                proxy_pass {scheme}://{host};
                proxy_buffering off;
                proxy_read_timeout {values.timeout_s + NGINX_QUEUE_S}s;
                proxy_ssl_server_name on;
            }}
        }}
        """
    )
    return Setting(
        name="nginx as egress",
        language="nginx",
        text=text,
        note="Paces all clients of one key together, so no client needs a pace of its own.",
    )


def _envoy(values: _Values, spacing_s: float) -> Setting:
    requests = ceil(MIN_ENVOY_FILL_S / spacing_s)
    url = urlsplit(values.url)
    tls = url.scheme == "https"
    host, port = _quoted(url.hostname or ""), url.port or (443 if tls else 80)
    extensions = "type.googleapis.com/envoy.extensions"
    text = f"""\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 8080}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: egress
          route_config:
            virtual_hosts:
            - name: api
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: api, host_rewrite_literal: {host}, timeout: {values.timeout_s}s}}
          http_filters:
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": {extensions}.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: egress
              token_bucket:
                max_tokens: {requests}
                tokens_per_fill: {requests}
                fill_interval: {requests * spacing_s:.9f}s
              filter_enabled: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
              filter_enforced: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
          - name: envoy.filters.http.router
            typed_config:
              "@type": {extensions}.filters.http.router.v3.Router
  clusters:
  - name: api
    type: LOGICAL_DNS
    load_assignment:
      cluster_name: api
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}
"""
    if tls:
        text += f"""\
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": {extensions}.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {host}
        common_tls_context:
          validation_context:
            trusted_ca: {{filename: /etc/ssl/certs/ca-certificates.crt}}
            match_typed_subject_alt_names:
            - {{san_type: DNS, matcher: {{exact: {host}}}}}
"""
    return Setting(
        name="Envoy as egress",
        language="yaml",
        text=text,
        note="For the clients of one key. It refuses requests beyond the pace with 429 instead of holding "
        "them, so the clients need their own pace or retries.",
    )


def _quoted(text: str) -> str:
    """Return a Python literal with double quotes."""
    return msgspec.json.encode(text).decode()


def _rounded_down(value: float) -> float:
    """Round down to four significant digits."""
    unit = 10.0 ** (floor(log10(value)) - 3)
    return float(f"{floor(value / unit + 1e-6) * unit:.4g}")
