"""Whole runs against servers whose answers are no ordinary ones: what the record and the summary say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support_locust import LOCUSTFILES, Finished, run_locust, write_scenarios
from support_probe import write_scenario

SCENARIO = """
duration_s = 2
users = 1
arrivals = { kind = "closed", think_s = 0.2 }
"""
NO_MONEY = {"error": {"type": "exceeded_current_quota_error", "message": "suspended: insufficient balance"}}
PLAIN: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"content": "the quick brown fox"}, "finish_reason": "stop"}]
}


@contextmanager
def serving(plain: tuple[int, object], stream: bytes = b"data: [DONE]\n\n") -> Iterator[str]:
    """Serve a plain answer, and a stream to those who request one. Yield the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            wants_stream = request.get("stream", False)
            status, body = (200, stream) if wants_stream else (plain[0], json.dumps(plain[1]).encode())
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream" if wants_stream else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def run(tmp_path: Path, locustfile: str) -> Finished:
    return run_locust(LOCUSTFILES / locustfile, cwd=tmp_path, BLTYBENCH_TEST_KEY="sk-test")


def test_a_rate_limit_in_a_stream_is_a_refusal_and_its_words_are_shown(tmp_path: Path) -> None:
    # Alibaba Cloud reports errors of streams flat, in a 200.
    flat = (
        b'data: {"code":"Throttling.RateQuota","message":"Requests rate limit exceeded"}\n\ndata: [DONE]\n\n'
    )
    with serving((200, PLAIN), flat) as base_url:
        write_scenarios(tmp_path, base_url, SCENARIO)
        done = run(tmp_path, "stream.py")
    assert {row["outcome"] for row in done.attempts} == {"rate_limited"}
    assert {row["completion_tokens"] for row in done.attempts} == {None}
    summary = json.loads(done.run.summary_json.read_bytes())
    assert (summary["refused_share"], summary["calls_ok"]) == (1.0, 0)
    (message,) = summary["refusal_messages"]
    assert (message["sample"], message["count"]) == ("Requests rate limit exceeded", len(done.attempts))
    assert "Requests rate limit exceeded" in done.output


def test_plain_answers_without_usage_are_estimated(tmp_path: Path) -> None:
    with serving((200, PLAIN)) as base_url:
        write_scenarios(tmp_path, base_url, SCENARIO)
        done = run(tmp_path, "chat.py")
    counts = {(row["outcome"], row["completion_tokens"], row["tokens_source"]) for row in done.attempts}
    assert counts == {("ok", 4, "tokenizer")}


def test_streams_without_usage_are_estimated(tmp_path: Path) -> None:
    chunk = {"choices": [{"index": 0, "delta": PLAIN["choices"][0]["message"], "finish_reason": "stop"}]}
    with serving((200, PLAIN), b"data: %s\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode()) as base_url:
        write_scenarios(tmp_path, base_url, SCENARIO)
        done = run(tmp_path, "stream.py")
    counts = {(row["outcome"], row["completion_tokens"], row["tokens_source"]) for row in done.attempts}
    assert counts == {("ok", 4, "tokenizer")}


def test_an_unpaid_bill_ends_the_probe_with_the_words_of_the_server(tmp_path: Path) -> None:
    # Moonshot
    with serving((429, NO_MONEY)) as base_url:
        write_scenario(tmp_path, base_url)
        done = run(tmp_path, "limits.py")
    stopped = json.loads((done.run.path / "limits.json").read_bytes())["stopped"]
    assert "unpaid bill" in stopped
    assert "insufficient balance" in stopped
    assert [(row["outcome"], row["attempt"]) for row in done.attempts] == [("client_error", 0)]
