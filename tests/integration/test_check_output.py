from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from support_strict_apis import openai_reasoning, serving
from typer.testing import CliRunner

from bltybench.check.drain import MAX_LIMIT
from bltybench.check.evidence import FIXED_REQUESTS
from bltybench.check.reach import reach
from bltybench.check.request_keys import MAX_REPEATS
from bltybench.check.run import check
from bltybench.cli.app import app
from bltybench.errors import UserError
from bltybench.scenario.api.documented_limits import Limits
from bltybench.scenario.target import Budget, SandboxLimits, SandboxSettings, Target

SCENARIOS = """\
default_scenario = "a"  # a comment

[targets.here]
base_url = "http://127.0.0.1:1/v1"

[scenarios.a]
title = "A"
target = "here"
model = "m"
duration_s = 1
users = 1
arrivals = { kind = "closed" }
"""
"""A scenarios.toml with a comment."""


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "no-such-host.invalid"])
def test_unresolvable_name_gives_a_dns_error(host: str) -> None:
    target = Target(base_url=f"http://{host}/v1")
    with pytest.raises(UserError, match="DNS"):
        reach(target, target.access("t"))


@pytest.mark.parametrize(
    ("target", "spend", "expected"),
    [
        (Target(base_url="http://h.invalid/v1"), None, f"at most {FIXED_REQUESTS + MAX_REPEATS} requests"),
        (Target(base_url="http://h.invalid/v1"), True, f"at most {FIXED_REQUESTS + MAX_REPEATS} requests"),
        (
            Target(base_url="http://h.invalid/v1", limits=Limits(requests_per_min=60)),
            True,
            f"at most {FIXED_REQUESTS + MAX_REPEATS + 129} requests",
        ),
        (
            Target(base_url="http://h.invalid/v1", limits=Limits(requests_per_min=MAX_LIMIT + 1)),
            True,
            f"at most {FIXED_REQUESTS + MAX_REPEATS} requests",
        ),
        (
            Target(
                base_url="http://localhost:1/v1",
                limits=Limits(requests_per_min=60),
                sandbox=SandboxSettings(limits=SandboxLimits(requests=None)),
                budget=Budget(requests=1),
            ),
            None,
            "budget of target 'unit' is 1",
        ),
    ],
)
def test_spend_is_printed_before_the_first_request(target: Target, spend: bool | None, expected: str) -> None:
    said: list[str] = []
    with pytest.raises(UserError) as raised:
        check("unit", target, spend_429=spend, tell=said.append)
    assert expected in "".join([*said, raised.value.what])


def test_check_writes_a_target_with_the_keys_that_the_api_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenarios.toml").write_text(SCENARIOS)
    with serving(openai_reasoning) as api:
        arguments = ["check", "--target", "mine", "--host", api.url, "--model", "o4-mini", "--write"]
        result = CliRunner().invoke(app, arguments)
    text = Path("scenarios.toml").read_text()
    assert result.stdout.startswith("Works: completions, streams, usage in completions, usage in streams")
    assert 'max_tokens_key = "max_completion_tokens"' in result.output
    assert text.startswith(SCENARIOS)
    added = tomllib.loads(text)["targets"]["mine"]
    assert added == {"base_url": api.url, "max_tokens_key": "max_completion_tokens"}
    again = CliRunner().invoke(app, [*arguments[:-1]])
    assert isinstance(again.exception, UserError)
    assert "is in the file already" in str(again.exception)
