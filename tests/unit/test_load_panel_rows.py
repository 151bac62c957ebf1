"""What the tab in Locust's page is made of: the last minute, and what the server last said."""

from __future__ import annotations

from support_runs import attempt

from bltybench.load.locust_plugin.panel import rows
from bltybench.load.run.live import Counter, Live, decode_ticks, encode_ticks
from bltybench.runs.attempt import Outcome


def test_the_last_words_of_the_server_survive_ticks_that_heard_none() -> None:
    live, counter = Live(), Counter()
    counter.note_quota(attempt(remaining_requests=3, remaining_tokens=900))
    counter.note_quota(
        attempt(outcome=Outcome.RATE_LIMITED, status=429, retry_after_s=12.5, remaining_requests=0)
    )
    live.add("w0", decode_ticks(encode_ticks([counter.take(1.0, in_flight=2)])))
    live.add("w0", [counter.take(2.0, in_flight=1)])
    seen = live.snapshot(2.0)
    assert (seen.retry_after_s, seen.remaining_requests, seen.remaining_tokens) == (12.5, 0, 900)
    assert seen.in_flight == 1
    # A minute later nothing of it is news any more.
    assert live.snapshot(62.5).retry_after_s is None


def test_percentiles_and_sums_are_over_all_processes() -> None:
    live = Live()
    for worker, ttft_ms in (("w0", 100.0), ("w1", 300.0)):
        counter = Counter()
        counter.accepted, counter.refused, counter.tokens = 5, 2, 70
        counter.add_ttft(ttft_ms)
        live.add(worker, [counter.take(1.0, in_flight=4)])
    seen = live.snapshot(1.0)
    assert (seen.accepted, seen.refused, seen.tokens, seen.in_flight) == (10, 4, 140, 8)
    assert (seen.ttft_p50_ms, seen.ttft_p95_ms) == (100.0, 300.0)
    assert Live().snapshot(0.0).ttft_p50_ms is None


def test_before_a_run_there_is_one_line() -> None:
    assert rows(None) == [{"measure": "No run yet", "now": "–", "limit": "–"}]
