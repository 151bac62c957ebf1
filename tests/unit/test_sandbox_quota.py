from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_sandbox import headers_of, quota, read_truth

from bltybench.errors import UserError
from bltybench.sandbox.errors import ApiError
from bltybench.sandbox.keys import KeyRing
from bltybench.sandbox.quota import Grant, Refusal
from bltybench.sandbox.truth import TruthLog, TruthRow
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import (
    SANDBOX_KEY,
    SANDBOX_RESTRICTED_KEY,
    Delay,
    RateLimit,
    SandboxLimits,
    SandboxSettings,
)

NOON = 1_795_348_800.0


def refused(verdict: Grant | Refusal) -> Refusal:
    assert isinstance(verdict, Refusal)
    return verdict


def granted(verdict: Grant | Refusal) -> Grant:
    assert isinstance(verdict, Grant)
    return verdict


def test_default_limits_are_the_documented_ones() -> None:
    limits = SandboxSettings().limits
    assert limits.requests == RateLimit(limit=60, period_s=60.0)
    assert limits.tokens == RateLimit(limit=100_000, period_s=60.0)
    assert limits.concurrency == 50


def test_false_disables_a_limit() -> None:
    limits = SandboxLimits.model_validate({"requests": False, "concurrency": False}, strict=True)
    assert (limits.requests, limits.concurrency) == (None, None)
    assert limits.tokens == RateLimit(limit=100_000)


def test_zero_median_requires_zero_p95() -> None:
    with pytest.raises(ValueError, match="means no delay"):
        Delay(median_ms=0, p95_ms=5)


def test_headers_count_down_and_reset_each_minute() -> None:
    key = quota(requests=RateLimit(limit=2))
    assert headers_of(key.admit(NOON + 30.25, CallSize(1, 0))) == {
        "x-ratelimit-limit": "2",
        "x-ratelimit-remaining": "1",
        "x-ratelimit-reset": str(int(NOON) + 60),
    }
    assert headers_of(key.admit(NOON + 31, CallSize(1, 0)))["x-ratelimit-remaining"] == "0"
    refusal = refused(key.admit(NOON + 32.5, CallSize(1, 0)))
    assert refusal.limit == "requests"
    assert (refusal.error.status, refusal.error.code) == (429, "rate_limit_exceeded")
    assert headers_of(refusal) == {
        "x-ratelimit-limit": "2",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(NOON) + 60),
        "retry-after": "28",
    }
    granted(key.admit(NOON + 60, CallSize(1, 0)))


def test_retry_after_is_at_least_one_second() -> None:
    key = quota(requests=RateLimit(limit=1, period_s=0.5))
    key.admit(NOON, CallSize(1, 0))
    assert headers_of(key.admit(NOON + 0.1, CallSize(1, 0)))["retry-after"] == "1"


def test_token_refusal_costs_no_request() -> None:
    key = quota(requests=RateLimit(limit=10), tokens=RateLimit(limit=100))
    granted(key.admit(NOON, CallSize(90, 0)))
    refusal = refused(key.admit(NOON + 1, CallSize(20, 0)))
    assert (refusal.limit, refusal.error.code) == ("tokens", "token_limit_exceeded")
    assert "100 tokens per 60 s" in refusal.error.message
    assert headers_of(refusal)["x-ratelimit-remaining"] == "9"
    assert headers_of(refusal)["retry-after"] == "59"


def test_unused_tokens_are_refunded_when_the_response_ends() -> None:
    key = quota(tokens=RateLimit(limit=100))
    first = granted(key.admit(NOON, CallSize(90, 0)))
    assert refused(key.admit(NOON + 1, CallSize(50, 0))).limit == "tokens"
    first.settle(NOON + 2, CallSize(40, 0))
    assert granted(key.admit(NOON + 3, CallSize(60, 0)))
    assert refused(key.admit(NOON + 4, CallSize(1, 0))).limit == "tokens"


def test_prompts_and_completions_can_have_limits_of_their_own() -> None:
    key = quota(input_tokens=RateLimit(limit=100), output_tokens=RateLimit(limit=50))
    first = granted(key.admit(NOON, CallSize(60, 40)))
    refusal = refused(key.admit(NOON + 1, CallSize(50, 5)))
    assert (refusal.limit, refusal.error.code) == ("input_tokens", "token_limit_exceeded")
    assert refusal.error.message == (
        "Rate limit reached: 100 input tokens per 60 s. Please try again in 59 s."
    )
    assert refused(key.admit(NOON + 2, CallSize(5, 20))).limit == "output_tokens"
    first.settle(NOON + 3, CallSize(60, 30))
    assert granted(key.admit(NOON + 4, CallSize(5, 20)))


def test_tokens_of_a_past_window_are_not_refunded() -> None:
    key = quota(tokens=RateLimit(limit=100))
    old = granted(key.admit(NOON, CallSize(90, 0)))
    assert granted(key.admit(NOON + 61, CallSize(100, 0)))
    old.settle(NOON + 62, CallSize(0, 0))
    assert refused(key.admit(NOON + 63, CallSize(1, 0))).limit == "tokens"


def test_request_that_never_fits_has_no_retry_after() -> None:
    refusal = refused(quota(tokens=RateLimit(limit=100)).admit(NOON, CallSize(101, 0)))
    assert "Request too large" in refusal.error.message
    assert "retry-after" not in headers_of(refusal)


def test_settling_releases_the_slot() -> None:
    key = quota(requests=RateLimit(limit=10), concurrency=2)
    first = granted(key.admit(NOON, CallSize(1, 0)))
    granted(key.admit(NOON, CallSize(1, 0)))
    refusal = refused(key.admit(NOON, CallSize(1, 0)))
    assert (refusal.limit, refusal.error.code) == ("concurrency", "concurrency_limit_exceeded")
    assert headers_of(refusal)["x-ratelimit-remaining"] == "8"
    assert headers_of(refusal)["retry-after"] == "1"
    first.settle(NOON, CallSize(1, 0))
    granted(key.admit(NOON, CallSize(1, 0)))


def test_rate_refusal_takes_no_slot() -> None:
    key = quota(requests=RateLimit(limit=1), concurrency=1)
    granted(key.admit(NOON, CallSize(1, 0))).settle(NOON, CallSize(1, 0))
    assert refused(key.admit(NOON, CallSize(1, 0))).limit == "requests"
    assert refused(key.admit(NOON, CallSize(1, 0))).limit == "requests"


def test_no_limits_means_no_headers() -> None:
    assert headers_of(quota().admit(NOON, CallSize(1, 0))) == {}


def ring() -> KeyRing:
    settings = SandboxSettings()
    return KeyRing(settings.keys, settings.models)


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer  ", f"Basic {SANDBOX_KEY}", SANDBOX_KEY])
def test_missing_key_gives_401(value: str | None) -> None:
    headers = [] if value is None else [(b"authorization", value.encode())]
    with pytest.raises(ApiError, match="didn't provide") as caught:
        ring().authenticate(headers)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("key", ["sk-verysecretkey", "verysecretkey", "sk-sandbox2", "sk-sandb\xf6x"])
def test_wrong_key_gives_401_without_repeating_it(key: str) -> None:
    with pytest.raises(ApiError) as caught:
        ring().authenticate([(b"authorization", f"Bearer {key}".encode("latin-1"))])
    body = json.loads(caught.value.body())["error"]
    assert (caught.value.status, body["type"]) == (401, "authentication_error")
    assert "***" in body["message"]
    assert key.removeprefix("sk-") not in body["message"]


def test_key_allows_only_its_models() -> None:
    keys = ring()
    public = keys.authenticate([(b"authorization", f"Bearer {SANDBOX_KEY}".encode())])
    restricted = keys.authenticate([(b"authorization", f"bearer {SANDBOX_RESTRICTED_KEY}".encode())])
    assert (public.name, restricted.name) == ("public", "restricted")
    assert len(keys.models_for(public)) == 3
    assert keys.models_for(restricted) == ["deepseek-chat"]
    keys.authorize(restricted, "deepseek-chat")
    with pytest.raises(ApiError) as caught:
        keys.authorize(restricted, "gpt-4o-mini")
    assert (caught.value.status, caught.value.error_type) == (403, "permission_error")
    with pytest.raises(ApiError) as caught:
        keys.authorize(restricted, "gpt-5")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_log_is_read_back_without_an_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "truth.jsonl"
    log = TruthLog(path)
    rows = [TruthRow(request_id=f"req_{n}", path="/", received_ns=n, event_ns=[n, n + 1]) for n in range(3)]
    for row in rows[:2]:
        log.add(row)
    assert read_truth(path) == []
    log.flush()
    assert read_truth(path) == rows[:2]
    log.add(rows[2])
    log.close()
    log.close()
    with path.open("ab") as file:
        file.write(b'{"request_id":"req_9","pa')
    assert read_truth(path) == rows


def test_unwritable_log_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't write the sandbox's log"):
        TruthLog(tmp_path)


def test_no_rows_are_kept_without_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = TruthLog(None)
    log.add(TruthRow(request_id="req_1", path="/", received_ns=1))
    log.close()
    assert list(tmp_path.iterdir()) == []
