"""Settings of gateways that limit all clients of one key together."""

from math import ceil, floor
from textwrap import dedent
from urllib.parse import urlsplit

from bltybench.policies.advice.setting import Setting, Values, quoted

NGINX_QUEUE_S = 60
"""Time for which the gateway holds a request at most, in seconds."""
MIN_ENVOY_FILL_S = 0.05
"""Shortest time between two fills of a bucket that Envoy accepts, in seconds."""


def gateways(values: Values) -> list[Setting]:
    """Return gateways that limit all clients of one key together; none if there is no pace to keep."""
    if values.spacing_s is None:
        return []
    prescription = values.prescription
    group_s = values.spacing_s * prescription.keys_per_client / prescription.sharing
    return [_nginx(values, 60 / group_s), _envoy(values, group_s)]


def _nginx(values: Values, per_min: float) -> Setting:
    rate = f"{max(1, floor(per_min))}r/m" if per_min < 6000 else f"{floor(per_min / 60)}r/s"
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
        note="Paces all clients of one key together, so no client needs a pace of its own."
        + (" Its lowest rate, 1r/m, is faster than the limits allow." if per_min < 1 else ""),
    )


def _envoy(values: Values, spacing_s: float) -> Setting:
    requests = ceil(MIN_ENVOY_FILL_S / spacing_s)
    url = urlsplit(values.url)
    tls = url.scheme == "https"
    host, port = quoted(url.hostname or ""), url.port or (443 if tls else 80)
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
