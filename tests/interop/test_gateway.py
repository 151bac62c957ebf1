"""A whole run through nginx as a gateway: TLS, a path prefix, a token, and a query, behind an HTTP proxy."""

from __future__ import annotations

from pathlib import Path

import trustme
from support_limiters import nginx
from support_locust import LOCUSTFILES, free_port, run_locust
from support_proxy import running_proxy
from support_strict_apis import TOKENS, serving

TOKEN = "gateway-token-0123456789"
SCENARIOS = """
[targets.gateway]
base_url = "https://127.0.0.1:{port}/team/llm/v1"
query = {{ tenant = "blue" }}
headers = {{ X-Gateway = {{ env = "GATEWAY_TOKEN", prefix = "Token " }} }}
ca_file = "{ca_file}"
proxy = "http://127.0.0.1:{proxy_port}"
proxy_auth_env = "GATEWAY_PROXY"
[targets.gateway.timeouts]
headers_s = 20

[scenarios.quickstart]
title = "For a test"
model = "m"
target = "gateway"
duration_s = 1
users = 2
arrivals = {{ kind = "closed", think_s = 0.2 }}
[[scenarios.quickstart.mix]]
name = "streamed"
stream = true
"""


def test_gateway_is_reached_from_scenarios_toml_alone(tmp_path: Path) -> None:
    authority, pem, ca_file = trustme.CA(), tmp_path / "server.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(ca_file))
    port = free_port()
    with serving(lambda _request: None) as api:
        gateway = f"""
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    location /team/llm/v1/ {{
      if ($http_x_gateway != "Token {TOKEN}") {{ return 401; }}
      if ($arg_tenant != "blue") {{ return 404; }}
      proxy_http_version 1.1;
      proxy_pass {api.url}/v1/;
    }}
  }}
"""
        with nginx(tmp_path, gateway, ""), running_proxy("user:pass-0123") as proxy_port:
            text = SCENARIOS.format(port=port, ca_file=ca_file, proxy_port=proxy_port)
            (tmp_path / "scenarios.toml").write_text(text)
            secrets = {"GATEWAY_TOKEN": TOKEN, "GATEWAY_PROXY": "user:pass-0123"}
            done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, **secrets)
    assert done.code == 0, done.output
    rows = done.attempts
    assert {(row["outcome"], row["completion_tokens"], row["stamp"]) for row in rows} == {
        ("ok", TOKENS, "kernel")
    }
    assert {request.path for request in api.requests} == {"/v1/chat/completions"}
