"""The probe against limiters that are not ours, over sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_limiters import express, limits_package, nginx
from support_locust import LOCUSTFILES, run_locust
from support_probe import write_scenario


def probe(folder: Path, base_url: str) -> dict[str, Any]:
    write_scenario(folder, base_url)
    done = run_locust(LOCUSTFILES / "limits.py", cwd=folder, BLTYBENCH_TEST_KEY="sk-sandbox")
    assert done.code == 0, done.output
    found: dict[str, Any] = json.loads((done.run.path / "limits.json").read_text())
    assert found["stopped"] is None, found
    return found


def named(found: dict[str, Any], family: str) -> dict[str, Any]:
    families = {each["family"]: each for each in found["consistent"]}
    assert family in families, found["says"]
    fit: dict[str, Any] = families[family]
    return fit


def test_nginx_is_a_bucket_of_its_burst_and_one(tmp_path: Path) -> None:
    zone = "limit_req_zone $binary_remote_addr zone=one:1m rate=5r/s;"
    with nginx(tmp_path, zone, "limit_req zone=one burst=7 nodelay;") as base_url:
        found = probe(tmp_path, base_url)
    fit = named(found, "token_bucket")
    assert fit["limit"] == 8
    assert fit["rate_per_min"] == pytest.approx(300, rel=0.02)
    assert found["refusal_status"] == 503


@pytest.mark.parametrize(
    ("strategy", "family"),
    [
        ("FixedWindowRateLimiter", "first_hit_window"),
        ("MovingWindowRateLimiter", "sliding_log"),
        ("SlidingWindowCounterRateLimiter", "sliding_counter"),
    ],
)
def test_the_package_limits_in_each_strategy(strategy: str, family: str, tmp_path: Path) -> None:
    with limits_package(strategy, 8, 2) as base_url:
        found = probe(tmp_path, base_url)
    fit = named(found, family)
    assert fit["limit"] == 8
    assert fit["period_s"] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("headers", "dialect"),
    [("legacy", "x-ratelimit"), ("draft-6", "ietf-6"), ("draft-7", "ietf-7"), ("draft-8", "ietf-8")],
)
def test_express_rate_limit_with_each_draft_of_the_headers(
    headers: str, dialect: str, tmp_path: Path
) -> None:
    with express(8, 2.0, headers) as base_url:
        found = probe(tmp_path, base_url)
    fit = {each["family"]: each for each in found["consistent"]}
    assert set(fit) & {"first_hit_window", "fixed_window"}, found["says"]
    assert found["observed"]["limit"] == 8
    assert found["observed"]["period_s"] == pytest.approx(2, rel=0.02)
    assert found["announced"] == {"limit": 8, "dialect": dialect}
