"""Scenario file for the probe."""

from __future__ import annotations

from pathlib import Path


def write_scenario(directory: Path, base_url: str, requests_per_min: int | None = None) -> None:
    """Write a scenarios.toml with the probe's scenario only, and the documented limit if given."""
    documented = f"[targets.here.limits]\nrequests_per_min = {requests_per_min}" if requests_per_min else ""
    (directory / "scenarios.toml").write_text(
        f"""
default_scenario = "limits"
[targets.here]
base_url = "{base_url}"
api_key_env = "BLTYBENCH_TEST_KEY"
{documented}
[scenarios.limits]
title = "For a test"
model = "deepseek-chat"
target = "here"
duration_s = 600
users = 1
arrivals = {{ kind = "closed", think_s = 0 }}
[[scenarios.limits.mix]]
name = "probe"
max_tokens = {{ kind = "fixed", tokens = 1 }}
"""
    )
