"""The probe over sockets against limiters from other projects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support_cli import bltybench
from support_limiters import express, nginx, python_limiters
from support_locust import LOCUSTFILES, run_locust, write_scenarios
from support_probe import write_scenario
from support_sandbox import running_sandbox

from bltybench.scenario.target import Delay

LIMIT, PERIOD_S = 8, 2
QUICK = ("--quick", "--probe-period", str(PERIOD_S))
NODES_PERIOD_S = 6
"""Period in seconds. Two nodes start their windows with one request each and contradict each other in
between: tens of milliseconds on a busy machine, so the period must be hundreds."""
AT_ONCE = 4
"""Concurrent probes, which mostly wait."""

Found = dict[str, Any]


def probe(folder: Path, base_url: str, *args: str) -> Found:
    folder.mkdir()
    per_min = LIMIT * 60 // int(args[args.index("--probe-period") + 1]) if "--quick" in args else None
    write_scenario(folder, base_url, per_min)
    command = ("--probe-ask", "requests", *args)
    done = run_locust(LOCUSTFILES / "limits.py", *command, cwd=folder, BLTYBENCH_TEST_KEY="sk-sandbox")
    assert done.code == 0, done.output
    found: Found = json.loads((done.run.path / "limits.json").read_text())
    assert found["stopped"] is None, found
    return found


def probes(folder: Path, asked: Mapping[str, tuple[str, ...]]) -> dict[str, Found]:
    """Probe several APIs concurrently: name -> address and options."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {name: pool.submit(probe, folder / name, *rest) for name, rest in asked.items()}
        return {name: probing.result() for name, probing in running.items()}


def named(found: Found, *families: str) -> dict[str, Any]:
    """Return the fit of the first family of ``families`` that is consistent."""
    fits = {fit["family"]: fit for fit in found["consistent"]}
    family = next((name for name in families if name in fits), None)
    assert family is not None, found["says"]
    fit: dict[str, Any] = fits[family]
    return fit


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with python_limiters(LIMIT, PERIOD_S) as url:
        yield url


STRATEGIES = {
    "fixed-window": "first_hit_window",
    "moving-window": "sliding_log",
    "sliding-window-counter": "sliding_counter",
}


def test_slowapi_strategies_are_identified(python: str, tmp_path: Path) -> None:
    found = probes(tmp_path, {name: (f"{python}/slowapi-{name}/v1",) for name in STRATEGIES})
    for strategy, family in STRATEGIES.items():
        fit = named(found[strategy], family)
        assert fit["limit"] == LIMIT, strategy
        assert fit["period_s"] == pytest.approx(PERIOD_S, rel=0.02), strategy
        assert set(STRATEGIES.values()) & {fit["family"] for fit in found[strategy]["consistent"]} == {family}
        assert found[strategy]["announced"] == {"limit": LIMIT, "dialect": "x-ratelimit"}


def test_express_rate_limit_is_identified_with_each_header_draft(tmp_path: Path) -> None:
    dialects = {"legacy": "x-ratelimit", "draft-6": "ietf-6", "draft-7": "ietf-7", "draft-8": "ietf-8"}
    with express(LIMIT, PERIOD_S) as url:
        found = probes(tmp_path, {draft: (f"{url}/{draft}/v1", *QUICK) for draft in dialects})
    for draft, dialect in dialects.items():
        fit = named(found[draft], "first_hit_window", "fixed_window")
        assert fit["limit"] == LIMIT, draft
        assert found[draft]["announced"] == {"limit": LIMIT, "dialect": dialect}
        assert found[draft]["headers"]["without_retry_after"]["count"] == 0
        steps = found[draft]["headers"]["remaining_steps"]
        assert steps["count"] == steps["of"] > 0


def test_refusals_with_503_or_403_and_slow_responses_are_identified(python: str, tmp_path: Path) -> None:
    asked: dict[str, tuple[str, ...]] = {
        f"status-{code}": (f"{python}/status-{code}/v1", *QUICK) for code in (503, 403)
    }
    asked["slow"] = (f"{python}/slow/v1", "--probe-budget", "60")
    found = probes(tmp_path, asked)
    for name, code in (("status-503", 503), ("status-403", 403), ("slow", 429)):
        assert found[name]["refusal_status"] == code
        # On a busy machine, slow probes can leave a limit open that the others determine exactly.
        least, most = named(found[name], "sliding_log")["limit_range"]
        assert least <= LIMIT <= most, name
    for name in ("status-503", "status-403"):
        assert found[name]["announced"]["limit"] is None
        findings = found[name]["headers"]["without_retry_after"]
        assert findings["count"] == findings["of"] == found[name]["refused"]


def test_nginx_and_a_limit_split_over_two_nodes_are_identified(tmp_path: Path) -> None:
    with (
        running_sandbox() as sandbox,
        python_limiters(LIMIT, NODES_PERIOD_S) as first,
        python_limiters(LIMIT, NODES_PERIOD_S) as second,
    ):
        settings = f"""
limit_req_zone $binary_remote_addr zone=one:1m rate=5r/s;
limit_req_zone $binary_remote_addr zone=waits:1m rate=2r/s;
upstream nodes {{ server {urlsplit(first).netloc}; server {urlsplit(second).netloc}; }}
upstream sandbox {{ server {urlsplit(sandbox.base_url).netloc}; }}
"""
        locations = """
location /req/ { limit_req zone=one burst=7 nodelay; proxy_pass http://sandbox/; }
location /waits/ { limit_req zone=waits burst=6 delay=2; proxy_pass http://sandbox/; }
location /nodes/ { proxy_pass http://nodes/slowapi-fixed-window/; }
"""
        with nginx(tmp_path, settings, locations) as url:
            asked: dict[str, tuple[str, ...]] = {name: (f"{url}/{name}/v1",) for name in ("req", "waits")}
            nodes = ("--quick", "--probe-period", str(NODES_PERIOD_S))
            found = probes(tmp_path, asked | {"nodes": (f"{url}/nodes/v1", *nodes)})
    bucket = named(found["req"], "token_bucket")
    assert bucket["limit"] == 8
    assert bucket["rate_per_min"] == pytest.approx(300, rel=0.02)
    assert found["req"]["refusal_status"] == 503
    queue = named(found["waits"], "leaky_queue")
    assert (queue["limit"], queue["free"]) == (7, 2)
    assert queue["rate_per_min"] == pytest.approx(120, rel=0.02)
    # Each node announces its own limit and counts half of the requests, so twice the limit is accepted and
    # Remaining alternates.
    assert found["nodes"]["announced"]["limit"] == LIMIT
    assert named(found["nodes"], "first_hit_window", "fixed_window")["limit"] == 2 * LIMIT
    steps = found["nodes"]["headers"]["remaining_steps"]
    assert steps["count"] < steps["of"]


def test_ordinary_run_distinguishes_nginx_limit_conn_from_a_rate(tmp_path: Path) -> None:
    with running_sandbox(ttft=Delay(median_ms=150, p95_ms=200)) as sandbox:
        settings = f"""
limit_conn_zone $binary_remote_addr zone=two:1m;
limit_conn_zone $binary_remote_addr zone=three:1m;
upstream sandbox {{ server {urlsplit(sandbox.base_url).netloc}; }}
"""
        locations = """
location /503/ { limit_conn two 3; proxy_pass http://sandbox/; }
location /429/ { limit_conn three 3; limit_conn_status 429; proxy_pass http://sandbox/; }
"""
        with nginx(tmp_path, settings, locations) as url, ThreadPoolExecutor() as pool:
            asked = {status: (tmp_path / status, f"{url}/{status}/v1") for status in ("503", "429")}
            running = {status: pool.submit(crowded, *rest) for status, rest in asked.items()}
            runs = {status: run.result() for status, run in running.items()}
    for status, (attempts, findings) in runs.items():
        refused = [attempt for attempt in attempts if attempt["status"] == int(status)]
        outcome = {"503": "server_error", "429": "rate_limited"}[status]
        assert {attempt["outcome"] for attempt in refused} == {outcome}
        assert findings["refusal_status"] == int(status)
        assert findings["refused"] == len(refused) > 5
        assert findings["status"] == "unknown"
        assert findings["in_flight"]["limit_range"] == [3, 3]


def crowded(folder: Path, base_url: str) -> tuple[list[dict[str, Any]], Found]:
    """Run eight users for two seconds. Return the attempts and the output of `bltybench limits`."""
    folder.mkdir()
    write_scenarios(
        folder, base_url, 'duration_s = 2\nusers = 8\narrivals = { kind = "closed", think_s = 0.1 }'
    )
    done = run_locust(LOCUSTFILES / "chat.py", cwd=folder, BLTYBENCH_TEST_KEY="sk-sandbox")
    assert done.code == 0, done.output
    findings = bltybench("limits", "--json", cwd=folder)
    assert findings.returncode == 0, findings.stderr
    found: Found = json.loads(findings.stdout)
    return done.attempts, found
