"""Whole runs from scenarios.toml alone, against strict fakes of APIs that differ from OpenAI's."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

from support_cli import bltybench
from support_locust import LOCUSTFILES, REPO, WITH_PAGE, Finished, run_locust
from support_proxy import running_proxy
from support_strict_apis import TOKENS, Answer, Request, azure, mistral, openai_reasoning, openrouter, serving

KEY = "strict-0123456789abcdef"
SCENARIO = """
[scenarios.quickstart]
title = "For a test"
model = "{model}"
target = "{target}"
duration_s = 1
users = 2
arrivals = {{ kind = "closed", think_s = 0.2 }}
[[scenarios.quickstart.mix]]
name = "plain"
max_tokens = {{ kind = "fixed", tokens = 16 }}
{call}
[[scenarios.quickstart.mix]]
name = "streamed"
stream = true
max_tokens = {{ kind = "fixed", tokens = 16 }}
{call}
[scenarios.quickstart.checks]
"errors.share" = "<= 0%"
"""


RECORDED = """
[[scenarios.quickstart.mix]]
name = "recorded"
weight = 2
requests = { file = "bodies.jsonl", models = { old = "new" } }
"""
BODIES = [
    {"model": "old", "messages": [{"role": "user", "content": "Hi"}], "top_p": 0.25, "max_tokens": 8},
    {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 9},
]


def run(
    folder: Path,
    targets: str,
    *args: str,
    name: str = "t",
    model: str = "m",
    call: str = "",
    more: str = "",
    **changes: str,
) -> Finished:
    text = targets + SCENARIO.format(model=model, target=name, call=call) + more
    (folder / "scenarios.toml").write_text(text)
    return run_locust(LOCUSTFILES / "mixed.py", *args, cwd=folder, **changes)


def assert_all_ok(done: Finished) -> None:
    rows = done.attempts
    assert done.code == 0, done.output
    assert {(row["outcome"], row["completion_tokens"]) for row in rows} == {("ok", TOKENS)}
    assert {row["stream"] for row in rows} == {True, False}


def readme_target(name: str, real: str, fake: str) -> str:
    """Return a target of the README that is moved to a fake."""
    text = (REPO / "README.md").read_text()
    block: str
    (block,) = re.findall(rf"```toml\n(\[targets\.{name}\]\n.*?)```", text, re.DOTALL)
    assert len(block.strip().splitlines()) <= 7
    assert real in block
    return block.replace(real, fake) + "\n"


def test_azure_as_in_the_readme(tmp_path: Path) -> None:
    with serving(azure(KEY, "gpt-4o")) as api:
        target = readme_target("azure", "https://NAME.openai.azure.com", api.url)
        assert_all_ok(run(tmp_path, target, name="azure", AZURE_OPENAI_API_KEY=KEY))
    assert {"authorization" in request.headers for request in api.requests} == {False}


def test_openrouter_as_in_the_readme(tmp_path: Path) -> None:
    with serving(openrouter(KEY)) as api:
        target = readme_target("openrouter", "https://openrouter.ai", api.url)
        done = run(tmp_path, target, name="openrouter", model="openai/gpt-4o-mini", OPENROUTER_API_KEY=KEY)
        assert_all_ok(done)
    assert {request.headers["x-title"] for request in api.requests} == {"bltybench"}


def test_query_in_the_address_and_key_in_the_headers(tmp_path: Path) -> None:
    with serving(azure("x", "gpt")) as api:
        target = f"""
[targets.t]
base_url = "{api.url}/openai/deployments/gpt?api-version=2024-10-21"
headers = {{ "api-key" = "x" }}
"""
        assert_all_ok(run(tmp_path, target))


def test_no_stream_options_for_mistral(tmp_path: Path) -> None:
    with serving(mistral) as api:
        target = (
            f'[targets.t]\nbase_url = "{api.url}/v1"\nstream_options = false\nbody = {{ random_seed = 3 }}\n'
        )
        (tmp_path / "bodies.jsonl").write_text("\n".join(map(json.dumps, BODIES)))
        done = run(tmp_path, target, more=RECORDED)
        assert_all_ok(done)
    recorded = [request.body for request in api.requests if request.body["max_tokens"] in {8, 9}]
    composed = [request.body for request in api.requests if request.body not in recorded]
    assert {body["random_seed"] for body in composed} == {3}
    # Recorded bodies are sent as they are: without the target's keys, and with their own stream.
    sent = [BODIES[0] | {"model": "new"}, BODIES[1] | {"model": "m"}]
    assert recorded
    assert all(body in sent for body in recorded)
    rows = {(row["model"], row["stream"]) for row in done.attempts if row["name"] == "recorded"}
    assert rows <= {("new", False), ("m", True)}


def test_max_completion_tokens_for_reasoning_models(tmp_path: Path) -> None:
    call = 'body = { reasoning_effort = "low", stop = ["a", "b"] }'
    with serving(openai_reasoning) as api:
        target = f'[targets.t]\nbase_url = "{api.url}/v1"\nmax_tokens_key = "max_completion_tokens"\n'
        target += "[targets.t.budget]\ntokens = 100_000\n"
        done = run(tmp_path, target, call=call)
        assert_all_ok(done)
    assert {row["max_tokens"] for row in done.attempts} == {16}
    for request in api.requests:
        sent = request.body
        assert (sent["max_completion_tokens"], sent["reasoning_effort"], sent["stop"]) == (
            16,
            "low",
            ["a", "b"],
        )


def test_check_uses_the_targets_headers_query_and_body(tmp_path: Path) -> None:
    def rule(request: Request) -> Answer | None:
        return azure(KEY, "gpt")(request) or openai_reasoning(request) or mistral_streams(request)

    def mistral_streams(request: Request) -> Answer | None:
        return (422, {"error": {"message": "extra"}}) if "stream_options" in request.body else None

    with serving(rule) as api, running_proxy() as port:
        (tmp_path / "scenarios.toml").write_text(
            f"""
[targets.t]
base_url = "{api.url}/openai"
chat_path = "/deployments/{{model}}/chat/completions"
api_key_env = "STRICT_KEY"
api_key_header = "api-key"
query = {{ api-version = "2024-10-21" }}
max_tokens_key = "max_completion_tokens"
stream_options = false
body = {{ temperature = 1 }}
proxy = "environment"
"""
            + SCENARIO.format(model="gpt", target="t", call="")
        )
        proxies = {"HTTP_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": "", "no_proxy": ""}
        done = bltybench("check", "--target", "t", "--json", cwd=tmp_path, env={"STRICT_KEY": KEY} | proxies)
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    for name in ("a completion is made", "a stream is made"):
        assert found[name]["status"] == "holds", found[name]
    assert found["no key"]["observed"].startswith("401")
    assert KEY not in done.stdout


def test_probe_uses_the_targets_headers_query_and_body(tmp_path: Path) -> None:
    unpaid = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}

    def rule(request: Request) -> Answer | None:
        return azure(KEY, "gpt")(request) or openai_reasoning(request) or (429, unpaid)

    with serving(rule) as api:
        (tmp_path / "scenarios.toml").write_text(
            f"""
default_scenario = "limits"
[targets.t]
base_url = "{api.url}/openai/deployments/gpt?api-version=2024-10-21"
api_key_env = "STRICT_KEY"
api_key_header = "api-key"
max_tokens_key = "max_completion_tokens"
body = {{ user = "probe" }}
"""
            + SCENARIO.format(model="gpt", target="t", call="")
            .replace("quickstart", "limits")
            .replace("duration_s = 1", "duration_s = 60")
        )
        done = run_locust(LOCUSTFILES / "limits.py", cwd=tmp_path, STRICT_KEY=KEY)
    # Only an accepted request is answered with the unpaid bill, which ends the probe.
    assert "unpaid bill" in json.loads((done.run.path / "limits.json").read_bytes())["stopped"]
    assert {request.body["user"] for request in api.requests} == {"probe"}


def test_secret_headers_and_queries_are_in_no_file_and_no_output(tmp_path: Path) -> None:
    secrets = {
        "STRICT_KEY": "key 0123456789".replace(" ", "-"),
        "STRICT_TOKEN": "token/0123+456",
        "STRICT_SIGNATURE": "sig natur=0123",
        "STRICT_PROXY": "user:proxy-pass-0123",
    }
    basic = b64encode(secrets["STRICT_PROXY"].encode()).decode()
    written = "cookie-in-the-file-0123"

    def echo(request: Request) -> Answer:
        words = f"{request.headers} {request.query} {request.path} {basic} proxy-pass-0123"
        return 401, {"error": {"message": words[:3000], "type": written, "code": words[-100:]}}

    with serving(echo) as api, running_proxy(secrets["STRICT_PROXY"]) as port:
        target = f"""
[targets.t]
base_url = "{api.url}/v1"
api_key_env = "STRICT_KEY"
api_key_header = "X-Key"
headers = {{ X-Auth = {{ env = "STRICT_TOKEN", prefix = "Bearer " }}, Cookie = "{written}" }}
query = {{ sig = {{ env = "STRICT_SIGNATURE" }} }}
proxy = "http://127.0.0.1:{port}"
proxy_auth_env = "STRICT_PROXY"
"""
        refused = run(tmp_path, target, **secrets)
        done = run(tmp_path, target, "--no-preflight", **WITH_PAGE, **secrets)
    assert (refused.code, done.code) == (2, 1)
    assert "the API refuses the key in STRICT_KEY" in refused.output
    assert api.requests[0].headers["x-auth"] == "Bearer token/0123+456"
    assert api.requests[0].query == {"sig": "sig natur=0123"}
    forms = [*secrets.values(), written, "token%2F0123%2B456", "sig%20natur%3D0123", basic, "proxy-pass"]
    texts: dict[Any, bytes] = {path: path.read_bytes() for path in done.run.path.rglob("*") if path.is_file()}
    assert done.run.report_html in texts
    texts["output"] = done.output.encode() + refused.output.encode()
    for where, text in texts.items():
        assert not [secret for secret in forms if secret.encode() in text], where
    target_info = done.run.manifest().target
    assert target_info.header_names == ["Cookie", "X-Auth"]
    assert target_info.query_names == ["sig"]
    assert target_info.proxy == f"127.0.0.1:{port}"


def test_host_option_reaches_any_server_on_this_machine(tmp_path: Path) -> None:
    def only_chat(request: Request) -> Answer | None:
        return None if request.path == "/v1/chat/completions" else (404, {"error": {"message": request.path}})

    with serving(only_chat) as api:
        target = '[targets.t]\nbase_url = "http://127.0.0.1:8910/v1"\n[targets.t.sandbox]\n'
        done = run(tmp_path, target, "--host", api.url)
        assert_all_ok(done)
    assert done.run.manifest().target.base_url == f"{api.url}/v1"
    assert "Started the sandbox" not in done.output
