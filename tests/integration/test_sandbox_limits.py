"""The sandbox's limits in real time, with short periods, and its ground-truth log row by row."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support_sandbox import NO_LIMITS, bearer, chat_body, read_truth, running_sandbox

from bltybench.sandbox.process import SandboxProcess
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.prompts import tokens
from bltybench.scenario.target import SANDBOX_RESTRICTED_KEY, Delay, RateLimit, SandboxLimits

QUOTA_HEADERS = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


def limits(**changes: Any) -> SandboxLimits:
    return NO_LIMITS.model_copy(update=changes)


def client_of(sandbox: SandboxProcess) -> httpx.Client:
    return httpx.Client(base_url=sandbox.base_url, headers=bearer(), timeout=30)


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/chat/completions", json=chat_body(**fields))


def chat_rows(path: Path) -> list[TruthRow]:
    return [row for row in read_truth(path) if row.path == "/v1/chat/completions"]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_log", "sliding_counter", "token_bucket"])
def test_retry_after_is_long_enough_for_every_algorithm(algorithm: Algorithm) -> None:
    rule = RateLimit(limit=4, period_s=2.0, algorithm=algorithm)
    with running_sandbox(limits=limits(requests=rule)) as sandbox, client_of(sandbox) as client:
        answer = ask(client, max_tokens=1)
        for _ in range(20):
            answer = ask(client, max_tokens=1)
            if answer.status_code == 429:
                break
        assert answer.status_code == 429
        assert answer.json()["error"]["type"] == "rate_limit_error"
        wait_s = int(answer.headers["retry-after"])
        assert 1 <= wait_s <= 2
        assert answer.headers["x-ratelimit-limit"] == "4"
        time.sleep(wait_s)
        assert ask(client, max_tokens=1).status_code == 200


def test_remaining_counts_down_within_a_window() -> None:
    rule = RateLimit(limit=5, period_s=3600, algorithm="sliding_log")
    with running_sandbox(limits=limits(requests=rule)) as sandbox, client_of(sandbox) as client:
        answers = [ask(client, max_tokens=1) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == list("4321000")
    assert all(("retry-after" in answer.headers) == (answer.status_code == 429) for answer in answers)
    first = int(answers[0].headers["x-ratelimit-reset"])
    assert 3590 < first - time.time() <= 3601


def test_fixed_window_resets_with_the_clock() -> None:
    rule = RateLimit(limit=2, period_s=2.0)
    with running_sandbox(limits=limits(requests=rule)) as sandbox, client_of(sandbox) as client:
        resets = {int(ask(client, max_tokens=1).headers["x-ratelimit-reset"]) for _ in range(6)}
    assert all(reset % 2 == 0 for reset in resets)


def test_errors_before_the_limits_cost_nothing_and_have_no_limit_headers() -> None:
    rule = RateLimit(limit=2, period_s=3600, algorithm="sliding_log")
    with running_sandbox(limits=limits(requests=rule)) as sandbox, client_of(sandbox) as client:
        free = [
            ask(client, temperature=9),
            ask(client, model="nope"),
            client.post("/chat/completions", json=chat_body(), headers=bearer("sk-wrong")),
            client.get("/models"),
        ]
        assert all(not QUOTA_HEADERS & set(answer.headers) for answer in free)
        assert [ask(client).status_code for _ in range(3)] == [200, 200, 429]


def test_limits_apply_per_key() -> None:
    rule = RateLimit(limit=1, period_s=3600, algorithm="sliding_log")
    with running_sandbox(limits=limits(requests=rule)) as sandbox, client_of(sandbox) as client:
        assert [ask(client).status_code for _ in range(2)] == [200, 429]
        other = client.post("/chat/completions", json=chat_body(), headers=bearer(SANDBOX_RESTRICTED_KEY))
        assert other.status_code == 200


def test_unused_reserved_tokens_are_refunded() -> None:
    prompt = tokens.count_messages(chat_body()["messages"])
    rule = RateLimit(limit=2 * prompt + 100, period_s=3600, algorithm="sliding_log")
    with running_sandbox(limits=limits(tokens=rule)) as sandbox, client_of(sandbox) as client:
        # The first stops early and uses few of its 100 tokens, so the second fits next to it with 90.
        first = ask(client, max_tokens=100, stop=["e", "a", "o", "i"])
        assert first.json()["usage"]["completion_tokens"] < 10
        second = ask(client, max_tokens=90)
        third = ask(client, max_tokens=10)
    assert (second.status_code, third.status_code) == (200, 429)
    assert third.json()["error"]["code"] == "token_limit_exceeded"
    assert not QUOTA_HEADERS & set(third.headers)
    assert int(third.headers["retry-after"]) > 3500


def test_concurrency_limit_releases_a_slot_when_a_response_ends() -> None:
    slow = Delay(median_ms=400, p95_ms=400)
    with (
        running_sandbox(limits=limits(concurrency=3), ttft=slow) as sandbox,
        client_of(sandbox) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: ask(client, max_tokens=1), range(8)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 5
        assert {answer.json()["error"]["code"] for answer in refused} == {"concurrency_limit_exceeded"}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert ask(client, max_tokens=1).status_code == 200


def test_disconnected_client_releases_its_slot_and_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    itl = Delay(median_ms=50, p95_ms=50)
    with (
        running_sandbox(log, limits=limits(concurrency=1), itl=itl) as sandbox,
        client_of(sandbox) as client,
    ):
        with client.stream(
            "POST", "/chat/completions", json=chat_body(stream=True, max_tokens=1000)
        ) as answer:
            lines = answer.iter_lines()
            for _ in range(8):
                next(lines)
            assert ask(client).status_code == 429
        # httpx closes the connection in the middle of a stream that would last 50 s.
        deadline = time.monotonic() + 5
        while ask(client, max_tokens=1).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    left, *others = sorted(chat_rows(log), key=lambda row: row.received_ns)
    assert left.disconnected
    assert left.completion_tokens == len(left.event_ns)
    assert 1 <= len(left.event_ns) < 150
    assert not any(row.disconnected for row in others)


def test_client_that_disconnects_before_a_plain_response_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    slow = Delay(median_ms=60_000, p95_ms=60_000)
    with (
        running_sandbox(log, limits=limits(concurrency=1), ttft=slow) as sandbox,
        client_of(sandbox) as client,
    ):
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                client.post("/chat/completions", json=chat_body(), timeout=0.3)
            time.sleep(0.1)
    rows = chat_rows(log)
    assert [(row.decision, row.status, row.disconnected) for row in rows] == [("accepted", None, True)] * 2
    assert [row.completion_tokens for row in rows] == [0, 0]


def test_log_has_a_row_per_exchange(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    rule = RateLimit(limit=2, period_s=3600, algorithm="sliding_log")
    before_ns = time.monotonic_ns()
    with running_sandbox(log, limits=limits(requests=rule)) as sandbox, client_of(sandbox) as client:
        answers = [
            ask(client, stream=True, max_tokens=6),
            ask(client, max_tokens=4),
            ask(client),
            ask(client, n=0),
            client.post("/chat/completions", json=chat_body(), headers=bearer("sk-wrong")),
        ]
    # The sandbox notes the end of a response after writing it, when the client may have read it already.
    ended_ns = time.monotonic_ns()
    rows = chat_rows(log)
    assert [row.request_id for row in rows] == [answer.headers["x-request-id"] for answer in answers]
    assert [row.status for row in rows] == [200, 200, 429, 400, 401]
    assert [row.decision for row in rows] == ["accepted", "accepted", "refused:requests", "error", "error"]
    assert [row.key for row in rows] == ["public"] * 4 + [None]
    assert [row.model for row in rows] == ["deepseek-chat"] * 3 + [None, None]
    assert [row.stream for row in rows] == [True, False, False, False, False]
    assert [row.completion_tokens for row in rows] == [6, 4, None, None, None]
    assert {row.prompt_tokens for row in rows[:3]} == {tokens.count_messages(chat_body()["messages"])}
    assert [len(row.event_ns) for row in rows] == [6, 0, 0, 0, 0]
    for row in rows:
        assert row.decided_ns is not None
        assert row.end_ns is not None
        times = [before_ns, row.received_ns, row.decided_ns, *row.event_ns, row.end_ns, ended_ns]
        assert times == sorted(times)
    assert "sk-" not in log.read_text()


def test_log_is_written_while_the_sandbox_runs(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log) as sandbox, client_of(sandbox) as client:
        ask(client)
        deadline = time.monotonic() + 10
        while not chat_rows(log):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_responses_follow_the_drawn_delays(tmp_path: Path) -> None:
    """Not earlier than drawn, except for the millisecond by which the event loop's timers round."""
    log = tmp_path / "truth.jsonl"
    pace = {"ttft": Delay(median_ms=100, p95_ms=100), "itl": Delay(median_ms=20, p95_ms=20)}
    with running_sandbox(log, **pace) as sandbox, client_of(sandbox) as client:
        for stream in (False, True):
            ask(client, stream=stream, max_tokens=11)
    rows = chat_rows(log)
    for row in rows:
        assert row.end_ns is not None
        assert row.end_ns - row.received_ns >= 298e6
        for step, at_ns in enumerate(row.event_ns):
            assert at_ns - row.received_ns >= (100 + 20 * step - 2) * 1e6
    assert [(row.stream, len(row.event_ns)) for row in rows] == [(False, 0), (True, 11)]


def test_response_without_tokens_takes_one_ttft(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    slow = Delay(median_ms=300, p95_ms=300)
    with running_sandbox(ttft=slow) as sandbox, client_of(sandbox) as client:
        texts = [ask(client, max_tokens=1).json()["choices"][0]["message"]["content"] for _ in range(2)]
    with running_sandbox(log, ttft=slow) as sandbox, client_of(sandbox) as client:
        for text, stream in zip(texts, (False, True), strict=True):
            ask(client, max_tokens=5, stop=text[0], stream=stream)
    rows = chat_rows(log)
    assert [(row.stream, row.completion_tokens, row.event_ns) for row in rows] == [
        (False, 0, []),
        (True, 0, []),
    ]
    for row in rows:
        assert row.end_ns is not None
        assert row.end_ns - row.received_ns >= 298e6


def test_long_prompt_does_not_delay_a_stream(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    itl = Delay(median_ms=5, p95_ms=5)
    text = " ".join(f"word{index}" for index in range(40_000))
    with (
        running_sandbox(log, itl=itl) as sandbox,
        client_of(sandbox) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        streamed = pool.submit(ask, client, stream=True, max_tokens=300)
        large = client.post("/chat/completions", json=chat_body(text, max_tokens=1))
        assert streamed.result().status_code == 200
    assert large.status_code == 200
    stream, counted = sorted(chat_rows(log), key=lambda row: not row.stream)
    assert counted.decided_ns is not None
    counting = [at_ns for at_ns in stream.event_ns if counted.received_ns < at_ns < counted.decided_ns]
    # Counting takes about a second. In the event loop, it would block the stream.
    assert len(counting) > 5
    assert large.json()["usage"]["prompt_tokens"] == tokens.count_messages(chat_body(text)["messages"])
