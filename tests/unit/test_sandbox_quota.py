from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bltybench.errors import UserError
from bltybench.sandbox.errors import ApiError
from bltybench.sandbox.keys import KeyRing
from bltybench.sandbox.quota import Grant, KeyQuota, Refusal
from bltybench.sandbox.truth import TruthLog, TruthRow, read_truth
from bltybench.scenario.target import (
    SANDBOX_KEY,
    SANDBOX_RESTRICTED_KEY,
    Delay,
    RateLimit,
    SandboxLimits,
    SandboxSettings,
)

NOON = 1_795_348_800.0


def quota(**limits: Any) -> KeyQuota:
    return KeyQuota(SandboxLimits(**({"requests": None, "tokens": None, "concurrency": None} | limits)))


def headers_of(verdict: Grant | Refusal) -> dict[str, str]:
    headers = verdict.headers if isinstance(verdict, Grant) else verdict.error.headers
    return {name.decode(): value.decode() for name, value in headers}


def refused(verdict: Grant | Refusal) -> Refusal:
    assert isinstance(verdict, Refusal)
    return verdict


def granted(verdict: Grant | Refusal) -> Grant:
    assert isinstance(verdict, Grant)
    return verdict


def test_the_documented_limits_are_the_settings_default() -> None:
    limits = SandboxSettings().limits
    assert limits.requests == RateLimit(limit=60, period_s=60.0)
    assert limits.tokens == RateLimit(limit=100_000, period_s=60.0)
    assert limits.concurrency == 50


def test_false_switches_a_limit_off() -> None:
    limits = SandboxLimits.model_validate({"requests": False, "concurrency": False}, strict=True)
    assert (limits.requests, limits.concurrency) == (None, None)
    assert limits.tokens == RateLimit(limit=100_000)


def test_a_delay_of_zero_has_no_tail() -> None:
    with pytest.raises(ValueError, match="means no delay"):
        Delay(median_ms=0, p95_ms=5)


def test_headers_count_down_and_reset_at_the_minute() -> None:
    key = quota(requests=RateLimit(limit=2))
    assert headers_of(key.admit(NOON + 30.25, 1)) == {
        "x-ratelimit-limit": "2",
        "x-ratelimit-remaining": "1",
        "x-ratelimit-reset": str(int(NOON) + 60),
    }
    assert headers_of(key.admit(NOON + 31, 1))["x-ratelimit-remaining"] == "0"
    refusal = refused(key.admit(NOON + 32.5, 1))
    assert refusal.limit == "requests"
    assert (refusal.error.status, refusal.error.code) == (429, "rate_limit_exceeded")
    assert headers_of(refusal) == {
        "x-ratelimit-limit": "2",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(NOON) + 60),
        "retry-after": "28",
    }
    granted(key.admit(NOON + 60, 1))


def test_retry_after_is_at_least_one_second() -> None:
    key = quota(requests=RateLimit(limit=1, period_s=0.5))
    key.admit(NOON, 1)
    assert headers_of(key.admit(NOON + 0.1, 1))["retry-after"] == "1"


def test_a_token_refusal_is_charged_no_request() -> None:
    key = quota(requests=RateLimit(limit=10), tokens=RateLimit(limit=100))
    granted(key.admit(NOON, 90))
    refusal = refused(key.admit(NOON + 1, 20))
    assert (refusal.limit, refusal.error.code) == ("tokens", "token_limit_exceeded")
    assert "100 tokens per 60 s" in refusal.error.message
    assert headers_of(refusal)["x-ratelimit-remaining"] == "9"
    assert headers_of(refusal)["retry-after"] == "59"


def test_unused_tokens_come_back_when_the_answer_ends() -> None:
    key = quota(tokens=RateLimit(limit=100))
    first = granted(key.admit(NOON, 90))
    assert refused(key.admit(NOON + 1, 50)).limit == "tokens"
    first.settle(NOON + 2, 40)
    assert granted(key.admit(NOON + 3, 60))
    assert refused(key.admit(NOON + 4, 1)).limit == "tokens"


def test_tokens_of_the_last_window_do_not_come_back_in_this_one() -> None:
    key = quota(tokens=RateLimit(limit=100))
    old = granted(key.admit(NOON, 90))
    assert granted(key.admit(NOON + 61, 100))
    old.settle(NOON + 62, 0)
    assert refused(key.admit(NOON + 63, 1)).limit == "tokens"


def test_what_can_never_fit_is_told_no_time() -> None:
    refusal = refused(quota(tokens=RateLimit(limit=100)).admit(NOON, 101))
    assert "Request too large" in refusal.error.message
    assert "retry-after" not in headers_of(refusal)


def test_slots_are_free_when_settled() -> None:
    key = quota(requests=RateLimit(limit=10), concurrency=2)
    first = granted(key.admit(NOON, 1))
    granted(key.admit(NOON, 1))
    refusal = refused(key.admit(NOON, 1))
    assert (refusal.limit, refusal.error.code) == ("concurrency", "concurrency_limit_exceeded")
    assert headers_of(refusal)["x-ratelimit-remaining"] == "8"
    assert headers_of(refusal)["retry-after"] == "1"
    first.settle(NOON, 1)
    granted(key.admit(NOON, 1))


def test_a_rate_refusal_takes_no_slot() -> None:
    key = quota(requests=RateLimit(limit=1), concurrency=1)
    granted(key.admit(NOON, 1)).settle(NOON, 1)
    assert refused(key.admit(NOON, 1)).limit == "requests"
    assert refused(key.admit(NOON, 1)).limit == "requests"


def test_without_limits_there_are_no_headers() -> None:
    assert headers_of(quota().admit(NOON, 1)) == {}


def ring() -> KeyRing:
    settings = SandboxSettings()
    return KeyRing(settings.keys, settings.models)


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer  ", f"Basic {SANDBOX_KEY}", SANDBOX_KEY])
def test_a_missing_key_is_a_401(value: str | None) -> None:
    headers = [] if value is None else [(b"authorization", value.encode())]
    with pytest.raises(ApiError, match="didn't provide") as caught:
        ring().authenticate(headers)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("key", ["sk-verysecretkey", "verysecretkey", "sk-sandbox2", "sk-sandb\xf6x"])
def test_a_wrong_key_is_a_401_that_does_not_repeat_it(key: str) -> None:
    with pytest.raises(ApiError) as caught:
        ring().authenticate([(b"authorization", f"Bearer {key}".encode("latin-1"))])
    body = json.loads(caught.value.body())["error"]
    assert (caught.value.status, body["type"]) == (401, "authentication_error")
    assert "***" in body["message"]
    assert key.removeprefix("sk-") not in body["message"]


def test_a_key_opens_its_models_only() -> None:
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


def test_the_log_can_be_read_back_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
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


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't write the sandbox's log"):
        TruthLog(tmp_path)


def test_without_a_log_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = TruthLog(None)
    log.add(TruthRow(request_id="req_1", path="/", received_ns=1))
    log.close()
    assert list(tmp_path.iterdir()) == []
