"""Answers that real servers gave and that were recorded wrongly once, in one run of Locust over sockets."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from support_locust import run_locust, write_scenarios

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
EVENT_STREAM, JSON = b"text/event-stream", b"application/json"


def event(value: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps(value).encode()


def delta(content: Any, finish: str | None = None, **more: Any) -> bytes:
    """Return an event with one delta."""
    inner = {} if content is None else content if isinstance(content, dict) else {"content": content}
    return event({"choices": [{"index": 0, "delta": inner, "finish_reason": finish}], **more})


def thinking(text: str) -> bytes:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]
    return delta({"content": parts})


@dataclass(frozen=True)
class Case:
    """What a server sends, piece by piece after waits in seconds, and what must be recorded."""

    origin: str
    expected: dict[str, Any]
    pieces: list[tuple[float, bytes]]
    status: int = 200
    content_type: bytes | None = EVENT_STREAM
    keep_open: bool = False
    notes: set[str] = field(default_factory=set)

    @property
    def stream(self) -> bool:
        """Whether the client requests a stream."""
        return self.content_type != JSON


FOX = "the quick brown fox jumps over the lazy dog " * 6
EXHAUSTED = {
    "code": 429,
    "message": "Resource has been exhausted",
    "status": "RESOURCE_EXHAUSTED",
    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.3s"}],
}
FOX_ANSWER = {"choices": [{"index": 0, "message": {"content": FOX}, "finish_reason": "stop"}]}
CASES = {
    "thinking-parts": Case(
        "Mistral's reasoning models",
        {"outcome": "ok", "completion_tokens": 10},
        [(0.1, thinking("hm")), (0.3, delta("w")), (0.05, delta(None, "stop", usage=USAGE)), (0, DONE)],
    ),
    "silent-stream": Case(
        "any server that stalls within a stream",
        {"outcome": "timeout", "error_type": "between_events_timeout", "status": 200},
        [(0.05, delta("w")), (0.01, delta("w"))],
        keep_open=True,
    ),
    "plain-without-usage": Case(
        "servers and gateways that count no tokens",
        {"outcome": "ok", "tokens_source": "tokenizer", "completion_tokens": 55},
        [(0, json.dumps(FOX_ANSWER).encode())],
        content_type=JSON,
    ),
    "empty-stream": Case(
        "overloaded servers that end a stream before its first token",
        {"outcome": "no_answer", "completion_tokens": None},
        [(0, delta({"role": "assistant", "content": ""})), (0, delta(None, "stop")), (0, DONE)],
    ),
    "flat-error": Case(
        "Alibaba Cloud",
        {
            "outcome": "rate_limited",
            "error_code": "Throttling.RateQuota",
            "error_message": "Requests rate limit exceeded",
        },
        [(0, event({"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded"})), (0, DONE)],
    ),
    "status-object": Case(
        "MiniMax",
        {"outcome": "rate_limited", "error_code": "1002", "error_message": "rate limit"},
        [(0, b'{"choices": null, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}')],
        content_type=JSON,
    ),
    "unpaid-bill": Case(
        "Moonshot",
        {"outcome": "client_error", "status": 429, "error_type": "exceeded_current_quota_error"},
        [(0, b'{"error": {"type": "exceeded_current_quota_error", "message": "insufficient balance"}}')],
        status=429,
        content_type=JSON,
    ),
    "open-after-done": Case(
        "gateways that keep the body of a stream open",
        {"outcome": "ok", "completion_tokens": 10},
        [(0.05, delta("w")), (0.05, delta(None, "stop", usage=USAGE)), (0, DONE)],
        keep_open=True,
        notes={"open_after_done"},
    ),
    "no-content-type": Case(
        "proxies that drop headers",
        {"outcome": "ok", "completion_tokens": 10},
        [(0.05, delta("w")), (0.05, delta(None, "stop", usage=USAGE)), (0, DONE)],
        content_type=None,
        notes={"no_content_type"},
    ),
    "time-in-body": Case(
        "Google's API, which lists errors and announces waits in them",
        {
            "outcome": "rate_limited",
            "retry_after_s": 0.3,
            "waited_s": 0.3,
            "error_message": "Resource has been exhausted",
        },
        [(0, json.dumps([{"error": EXHAUSTED}]).encode())],
        status=429,
        content_type=JSON,
    ),
}
SCENARIO = """
duration_s = 30
users = 1
arrivals = { kind = "closed" }
retry = { policy = "retry_after", max_attempts = 2 }
"""
TARGET = "timeouts = { connect_s = 2, headers_s = 3, between_events_s = 0.5, total_s = 10 }"
LOCUSTFILE = f"""
from locust import task
from bltybench.load import ChatUser


class EachCase(ChatUser):
    @task
    def send(self):
        for name, stream in {[(name, case.stream) for name, case in CASES.items()]}:
            messages = [{{"role": "user", "content": "Hi"}}]
            self.client.chat(messages, stream=stream, model=name, name=name, max_tokens=60)
        self.environment.runner.quit()
"""


class Handler(socketserver.StreamRequestHandler):
    """Sends the case that the request's model names, in chunks."""

    def handle(self) -> None:
        while self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) not in {b"\r\n", b""}:
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            case = CASES[json.loads(self.rfile.read(length))["model"]]
            head = b"HTTP/1.1 %d X\r\n" % case.status
            if case.content_type is not None:
                head += b"Content-Type: %s\r\n" % case.content_type
            self.wfile.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for wait_s, data in case.pieces:
                time.sleep(wait_s)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            if case.keep_open:
                self.rfile.readline()  # until the client closes the connection
                return
            self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def serving() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the attempts of one run that sends every case once."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "cases.py").write_text(LOCUSTFILE)
    with serving() as base_url:
        write_scenarios(folder, base_url, SCENARIO, target=TARGET)
        done = run_locust(
            folder / "cases.py", "--scenario", "quickstart", cwd=folder, BLTYBENCH_TEST_KEY="sk-test"
        )
    return done.attempts


@pytest.mark.parametrize("name", CASES, ids=[f"{name}, {case.origin}" for name, case in CASES.items()])
def test_answer_is_recorded_as_it_was(name: str, attempts: list[dict[str, Any]]) -> None:
    case = CASES[name]
    first = next(row for row in attempts if row["name"] == name)
    assert {column: first[column] for column in case.expected} == case.expected
    assert case.notes <= set((first["notes"] or "").split(","))


def test_first_token_is_the_first_thought_and_first_output_the_first_word(
    attempts: list[dict[str, Any]],
) -> None:
    row = next(row for row in attempts if row["name"] == "thinking-parts")
    assert row["first_output_ns"] - row["first_token_ns"] >= 290_000_000


def test_timeout_between_events_is_the_one_of_the_target(attempts: list[dict[str, Any]]) -> None:
    row = next(row for row in attempts if row["name"] == "silent-stream")
    assert row["end_ns"] - row["last_token_ns"] >= 500_000_000


def test_refusals_are_retried_and_an_unpaid_bill_is_not(attempts: list[dict[str, Any]]) -> None:
    retried = {row["name"] for row in attempts if row["attempt"] == 1}
    assert retried >= {"flat-error", "status-object", "time-in-body"}
    assert "unpaid-bill" not in retried
