from __future__ import annotations

import subprocess
import sys
from typing import get_args

from bltybench.cli.sandbox import _greeting, changed_limit
from bltybench.limits.models.families import FAMILIES
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.target import RateLimit, SandboxLimits, SandboxSettings


def test_settings_and_models_have_the_same_algorithms() -> None:
    assert get_args(Algorithm) == tuple(FAMILIES)


def test_unset_options_keep_the_settings() -> None:
    limit = RateLimit(limit=60, period_s=30, algorithm="sliding_log")
    assert changed_limit(limit, None, None, None) == limit
    assert changed_limit(limit, 5, None, None) == limit.model_copy(update={"limit": 5})
    assert changed_limit(limit, None, 2.0, "token_bucket") == RateLimit(
        limit=60, period_s=2, algorithm="token_bucket"
    )
    assert changed_limit(limit, 0, 2.0, None) is None
    assert changed_limit(None, None, 2.0, None) is None
    assert changed_limit(None, 7, None, None) == RateLimit(limit=7)


def test_greeting_mentions_disabled_limits() -> None:
    none = SandboxLimits(requests=None, tokens=None, concurrency=None)
    greeting = _greeting(SandboxSettings(limits=none), "::1", 8910)
    assert "Limits    none" in greeting
    assert "http://[::1]:8910/v1" in greeting
    assert "curl -N http://[::1]:8910/v1" in greeting


def test_greeting_trusts_the_authority_of_a_sandbox_with_tls() -> None:
    greeting = _greeting(SandboxSettings(), "127.0.0.1", 8911, "ca.pem")
    assert "Base URL  https://127.0.0.1:8911/v1" in greeting
    assert "curl -N --cacert ca.pem https://127.0.0.1:8911/v1/chat" in greeting


def test_starting_a_sandbox_imports_no_web_framework() -> None:
    code = (
        "import sys, bltybench.sandbox.process; print({'starlette', 'uvicorn', 'uvloop'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
