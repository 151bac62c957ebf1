"""Run folders made of seeded synthetic attempts, in the recorder's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from bltybench.metrics.frame import attempts_frame, to_frame
from bltybench.runs.attempt import Attempt, GeneratorSecond, Outcome, Stamp, TokensSource
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock, Host, Manifest, TargetInfo, read_scenario
from bltybench.runs.store import ATTEMPT_SCHEMA, GENERATOR_SCHEMA
from bltybench.scenario.api.documented_limits import usual_limits
from bltybench.scenario.workload import Scenario

WALL_NS = 1_795_356_910_000_000_000
"""2026-11-22 14:15:10 UTC: ten seconds into a calendar minute."""

S = 1_000_000_000


def attempt(**fields: Any) -> Attempt:
    """Make a plain accepted attempt of one second. ``fields`` override its values."""
    sent = fields.get("sent_ns", fields.get("due_ns", 0))
    base: dict[str, Any] = {
        "worker": "w0",
        "user": 0,
        "scenario": "made",
        "call_id": "c0",
        "attempt": 0,
        "due_ns": sent if sent is not None else 0,
        "sent_ns": sent,
        "end_ns": (sent or 0) + S,
        "outcome": Outcome.OK,
        "status": 200,
        "endpoint": "/v1/chat/completions",
        "model": "deepseek-chat",
        "stream": False,
        "bytes_sent": 640,
        "bytes_received": 900,
        "in_flight": 1,
    }
    return Attempt(**{**base, **fields})


def attempt_at(at_s: float, outcome: str = "ok", **fields: Any) -> Attempt:
    """Return an attempt that was sent at ``at_s``, took 20 ms, and has the usual status of its outcome."""
    sent = round(at_s * S)
    usual = {"ok": 200, "rate_limited": 429, "server_error": 503, "client_error": 400}
    base: dict[str, Any] = {
        "sent_ns": sent,
        "headers_ns": sent + S // 50,
        "end_ns": sent + S // 50,
        "status": usual.get(outcome),
    }
    return attempt(outcome=Outcome(outcome), **(base | fields))


def table(*attempts: Attempt) -> pa.Table:
    """Return attempts as a table of the store."""
    rows = [msgspec.to_builtins(record) for record in attempts]
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in ATTEMPT_SCHEMA.names} for row in rows], schema=ATTEMPT_SCHEMA
    )


def frame(*attempts: Attempt) -> pd.DataFrame:
    """Return attempts as a frame of the metrics."""
    return attempts_frame(table(*attempts))


def audit_frame(seconds: Sequence[GeneratorSecond]) -> pd.DataFrame:
    """Return seconds of the self-audit as a frame of the metrics."""
    return to_frame(audit_table(seconds))


def audit_table(seconds: Sequence[GeneratorSecond]) -> pa.Table:
    """Return seconds of the self-audit as a table of the store."""
    rows = [msgspec.to_builtins(record) for record in seconds]
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in GENERATOR_SCHEMA.names} for row in rows], schema=GENERATOR_SCHEMA
    )


def manifest(**fields: Any) -> Manifest:
    """Make a manifest of a 90-second Poisson run against the sandbox."""
    base: dict[str, Any] = {
        "run_id": "20261122-141510-made",
        "created": "2026-11-22T14:15:10Z",
        "scenario": "made",
        "resolved": {
            "title": "Plain chat and streaming, past the documented rate",
            "answers": "What happens at 60 requests a minute, and how fast is it below?",
            "target": "sandbox",
            "model": "deepseek-chat",
            "duration_s": 90.0,
            "users": 50,
            "seed": 1,
            "arrivals": {"kind": "poisson", "rate_per_min": 110.0},
            "retry": {"policy": "retry_after", "max_attempts": 2},
            "mix": [
                {"name": "chat", "weight": 1.0, "stream": False},
                {"name": "stream", "weight": 2.0, "stream": True},
            ],
            "checks": {"accepted.rpm": ">= 55", "refused.share": "<= 50%", "audit.valid": True},
        },
        "target": TargetInfo(
            name="sandbox",
            base_url="http://127.0.0.1:8808/v1",
            limits=usual_limits(60, 100_000, 50),
        ),
        "command": ["locust", "-f", "locustfiles/mixed.py", "--headless", "--scenario", "made"],
        "versions": {"python": "3.11.9", "bltybench": "0.1.0", "locust": "2.47.0", "pandas": "3.1.1"},
        "host": Host(name="made", system="Linux 6.1 x86_64", cpus=4, memory_bytes=8 << 30),
        "clock": Clock(monotonic_ns=0, wall_ns=WALL_NS),
        "ended_ns": 90 * S,
        "ended": "completed",
    }
    return Manifest(**{**base, **fields})


def scenario(**fields: Any) -> Scenario:
    """Make the scenario of that run, with some keys replaced."""
    return read_scenario(manifest(resolved=manifest().resolved | fields))


def generator_seconds(seconds: int, *, seed: int = 1, **fields: Any) -> list[GeneratorSecond]:
    """Make the self-audit of an idle generator."""
    rng = np.random.default_rng(seed)
    return [
        GeneratorSecond(
            **{
                "worker": "w0",
                "at_ns": (second + 1) * S,
                "stall_us": int(rng.integers(200, 4_000)),
                "cpu_share": float(rng.uniform(0.02, 0.12)),
                "steal_share": 0.0,
                "rss_bytes": 120 << 20,
                "users": 50,
                "in_flight": int(rng.integers(0, 9)),
                "sent": 1,
                "observer_lag_p99_us": int(rng.integers(40, 300)),
                "events": 60,
                "coalesced_events": 0,
                "bytes_received": 20_000,
                "backlog": 0,
                **fields,
            }
        )
        for second in range(seconds)
    ]


CHECKED = {"tool_calls": 1, "json_valid": True, "schema_valid": False}
"""Columns of an answer that was checked, as the plain ones of ``realistic`` are."""


def realistic(
    duration_s: float = 90.0, rate_per_min: float = 110.0, limit: int = 60, seed: int = 1
) -> list[Attempt]:
    """Make the attempts of an open-loop run against a fixed window aligned to the minute.

    Two thirds are streams. Refusals have a Retry-After until the end of the window and are retried once after
    it. About 1% of the calls fail with a server error.
    """
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(60 / rate_per_min, int(rate_per_min * duration_s / 60 * 1.5) + 20))
    queue = [(float(t), index, 0) for index, t in enumerate(due[due < duration_s])]
    used: dict[int, int] = {}
    made: list[Attempt] = []
    ends: list[float] = []
    offset = WALL_NS / S % 60
    while queue:
        queue.sort()
        at, index, number = queue.pop(0)
        sent = at + float(rng.gamma(1.5, 0.0004))
        window = int((sent + offset) // 60)
        reset = (window + 1) * 60 - (sent + offset)
        flying = sum(end > sent for end in ends) + 1
        common = {
            "call_id": f"c{index}",
            "attempt": number,
            "user": index % 50,
            "due_ns": int(at * S),
            "sent_ns": int(sent * S),
            "limit_requests": limit,
            "remaining_requests": max(0, limit - used.get(window, 0) - 1),
            "reset_requests_s": float(np.ceil(reset)),
            "header_dialect": "blty",
            "stamp": Stamp.KERNEL,
            "observer_lag_us": int(rng.gamma(2, 60)),
            "in_flight": flying,
            "bytes_sent": 640,
            "max_tokens": 64,
            "request_id": f"req-{index}-{number}",
        }
        stream = index % 3 != 0
        if used.get(window, 0) >= limit:
            wait = float(np.ceil(reset))
            again = number == 0 and at + wait < duration_s
            made.append(_refused(common, sent, wait, stream, again=again, rng=rng))
            ends.append(made[-1].end_ns / S)
            if again:
                queue.append((made[-1].end_ns / S + wait, index, 1))
            continue
        used[window] = used.get(window, 0) + 1
        made.append(_answered(common | CHECKED if not stream else common, sent, stream, rng))
        ends.append(made[-1].end_ns / S)
    return sorted(made, key=lambda record: record.end_ns)


def _refused(
    common: dict[str, Any], sent: float, wait: float, stream: bool, *, again: bool, rng: np.random.Generator
) -> Attempt:
    end = int((sent + float(rng.gamma(3, 0.0008))) * S)
    return attempt(
        **common,
        stream=stream,
        headers_ns=end,
        end_ns=end,
        outcome=Outcome.RATE_LIMITED,
        status=429,
        error_type="rate_limit_error",
        error_code="rate_limit_exceeded",
        error_message="Rate limit reached for requests per minute: limit 60",
        retry_after_s=wait,
        waited_s=wait if again else None,
        bytes_received=310,
    )


def _answered(common: dict[str, Any], sent: float, stream: bool, rng: np.random.Generator) -> Attempt:
    ttft = 0.18 * float(np.exp(rng.normal(0, 0.5)))
    tokens = int(rng.integers(20, 64))
    prompt = int(rng.integers(40, 90))
    gaps = 0.018 * np.exp(rng.normal(0, 0.45, tokens - 1))
    last = sent + ttft + float(gaps.sum())
    if rng.random() < 0.015:
        end = int((sent + ttft) * S)
        return attempt(
            **common,
            stream=stream,
            end_ns=end,
            outcome=Outcome.SERVER_ERROR,
            status=500,
            error_type="server_error",
            error_message="The server had an error while processing your request",
        )
    times: dict[str, Any] = {}
    if stream:
        times = {
            "first_token_ns": int((sent + ttft) * S),
            "first_output_ns": int((sent + ttft) * S),
            "last_token_ns": int(last * S),
            "gaps_us": [int(gap * 1e6) for gap in gaps],
            "coalesced_events": 0,
            "first_token_coalesced": False,
        }
    return attempt(
        **common,
        **times,
        stream=stream,
        headers_ns=int((sent + ttft * 0.9) * S),
        end_ns=int((last + 0.0004) * S),
        prompt_tokens=prompt,
        completion_tokens=tokens,
        tokens_source=TokensSource.USAGE,
        finish_reason="stop",
        bytes_received=tokens * 210,
    )


def write_run(
    path: Path,
    attempts: Sequence[Attempt],
    *,
    seconds: Sequence[GeneratorSecond] | None = None,
    about: Manifest | None = None,
) -> RunFolder:
    """Write an unsealed run folder: manifest and spools."""
    folder = RunFolder(path)
    folder.attempts_spool.mkdir(parents=True)
    folder.generator_spool.mkdir()
    folder.write_manifest(about or manifest(run_id=path.name))
    encoder = msgspec.json.Encoder()
    lines = [encoder.encode(record) + b"\n" for record in attempts]
    (folder.attempts_spool / "w0.jsonl").write_bytes(b"".join(lines))
    audit = generator_seconds(90) if seconds is None else seconds
    (folder.generator_spool / "w0.jsonl").write_bytes(b"".join(encoder.encode(s) + b"\n" for s in audit))
    return folder
