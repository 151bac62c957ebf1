"""Whole runs through gateways of other projects: nginx behind an HTTP proxy, and lm-proxy."""

from __future__ import annotations

from pathlib import Path

import trustme
from support_limiters import lm_proxy, nginx
from support_locust import LOCUSTFILES, free_port, run_locust
from support_proxy import running_proxy
from support_sandbox import read_truth, running_sandbox
from support_strict_apis import TOKENS, serving

from bltybench.scenario.target import SANDBOX_KEY

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


KEY = "gateway-key-0123456789"
OWN_KEYS = """
[targets.gateway]
base_url = "{base_url}/v1"
api_key_env = "GATEWAY_KEY"

[scenarios.quickstart]
title = "For a test"
model = "deepseek-chat"
target = "gateway"
duration_s = 1
users = 2
arrivals = {{ kind = "closed" }}
[[scenarios.quickstart.mix]]
name = "plain"
max_tokens = {{ kind = "fixed", tokens = 8 }}
[[scenarios.quickstart.mix]]
name = "streamed"
stream = true
max_tokens = {{ kind = "fixed", tokens = 8 }}
"""


def test_gateway_that_drops_usage_is_measured_with_tokens_counted_here(tmp_path: Path) -> None:
    with (
        running_sandbox(tmp_path / "truth.jsonl") as sandbox,
        lm_proxy(tmp_path, sandbox.base_url, KEY, SANDBOX_KEY) as base_url,
    ):
        (tmp_path / "scenarios.toml").write_text(OWN_KEYS.format(base_url=base_url))
        done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, GATEWAY_KEY=KEY)
    assert done.code == 0, done.output
    rows = [row for row in done.attempts if row["outcome"] != "cancelled"]
    assert {(row["outcome"], row["tokens_source"]) for row in rows} == {("ok", "tokenizer")}
    for stream in (True, False):
        counts = [row["completion_tokens"] for row in rows if row["stream"] is stream]
        assert counts
        assert all(1 <= count <= 16 for count in counts)
    assert all(row["first_token_ns"] <= row["last_token_ns"] for row in rows if row["stream"])
    accepted = [row for row in read_truth(tmp_path / "truth.jsonl") if row.status == 200]
    assert len(accepted) >= len(rows)
    files = [path for path in done.run.path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in done.output
