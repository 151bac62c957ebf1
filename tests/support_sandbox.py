"""Sandboxes for tests: short delays, no limits by default, always a free port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from support_sandbox_forks import start_forked

from bltybench.sandbox.process import SandboxProcess
from bltybench.sandbox.quota import Grant, KeyQuota, Refusal
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.target import SANDBOX_KEY, Delay, SandboxLimits, SandboxSettings

NO_LIMITS = SandboxLimits(requests=None, tokens=None, concurrency=None)
QUICK_TTFT = Delay(median_ms=5, p95_ms=8)
QUICK_ITL = Delay(median_ms=1, p95_ms=2)


def quick_settings(**changes: Any) -> SandboxSettings:
    """Return settings with short delays and no limits, except for ``changes``."""
    fields: dict[str, Any] = {"limits": NO_LIMITS, "ttft": QUICK_TTFT, "itl": QUICK_ITL}
    return SandboxSettings(**(fields | changes))


@contextmanager
def running_sandbox(log_path: Path | None = None, **changes: Any) -> Iterator[SandboxProcess]:
    """A sandbox with ``quick_settings(**changes)``. After it, the log is complete."""
    with start_forked(quick_settings(**changes), log_path) as sandbox:
        yield sandbox


def chat_body(text: str = "Tell me about the sea.", **fields: Any) -> dict[str, Any]:
    """The JSON of a short chat request."""
    return {
        "model": "deepseek-chat",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
    } | fields


def bearer(key: str = SANDBOX_KEY) -> dict[str, str]:
    """The header with ``key``."""
    return {"Authorization": f"Bearer {key}"}


def quota(**limits: Any) -> KeyQuota:
    """Return the limits of one key, without those that are not given."""
    return KeyQuota(SandboxLimits(**(NO_LIMITS.model_dump() | limits)))


def headers_of(verdict: Grant | Refusal) -> dict[str, str]:
    """Return the headers of a decision."""
    headers = verdict.headers if isinstance(verdict, Grant) else verdict.error.headers
    return {name.decode(): value.decode() for name, value in headers}


def read_truth(path: Path) -> list[TruthRow]:
    """Return the complete rows of a log, without a line cut off by a kill."""
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    return [msgspec.json.decode(line, type=TruthRow) for line in complete.splitlines()]
