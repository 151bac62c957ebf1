"""Dialects of OpenAI-compatible servers, from the bytes of a response to its result (docs/dialects.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support_wire import ended_exchange

from bltybench.runs.attempt import Outcome
from bltybench.wire import ExchangeResult, Failure, Fault
from bltybench.wire.interpret import interpret

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = b"Content-Type: text/event-stream\r\n"


def event(delta: dict[str, Any], finish: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **more}).encode() + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
TEXT = event({"content": "a"}) + event({"content": "b"})
STOP = event({}, "stop")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'


def stream(body: bytes, headers: bytes = EVENT_STREAM, failure: Failure | None = None) -> ExchangeResult:
    head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (headers, len(body) + (failure is not None))
    return interpret(ended_exchange(head + body, stream=True, failure=failure))


@pytest.mark.parametrize(
    ("body", "notes"),
    [
        pytest.param(TEXT + STOP + DONE, None, id="openai"),
        pytest.param(ROLE + TEXT + STOP + USAGE, "missing_done", id="missing_done"),  # a CPU inference server
        pytest.param(TEXT + DONE, "no_finish_reason", id="no_finish_reason"),  # gateways
        pytest.param(TEXT + STOP.removesuffix(b"\n\n"), "missing_done", id="no_blank_line"),  # hand-written
        pytest.param(TEXT + STOP + DONE[:-2], None, id="done_without_blank_line"),  # hand-written servers
        pytest.param(TEXT + STOP + DONE + USAGE, "events_after_done", id="events_after_done"),  # proxies
        pytest.param(TEXT + STOP + DONE + event({"content": "c"}), "events_after_done", id="late_content"),
        pytest.param(TEXT + STOP + DONE + b": ping\n\n" + DONE, "events_after_done", id="done_twice"),
        pytest.param(
            TEXT + STOP + DONE + b'data: {"error":"late"}\n\n', "events_after_done", id="late_error"
        ),
        pytest.param(TEXT + event({}, {"type": "stop"}) + DONE, None, id="finish_object"),  # SGLang
    ],
)
def test_streams_that_ended_are_complete_and_their_deviations_are_noted(
    body: bytes, notes: str | None
) -> None:
    result = stream(body)
    assert (result.outcome, result.text, result.events, result.notes) == (Outcome.OK, "ab", 2, notes)
    assert result.finish_reason == (None if notes == "no_finish_reason" else "stop")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        pytest.param(TEXT, Fault.MISSING_DONE, id="cut_short"),  # a proxy that gives up
        pytest.param(b"", Fault.MISSING_DONE, id="empty_body"),
        pytest.param(DONE, Fault.EMPTY_STREAM, id="only_done"),  # gateways whose upstream failed
        pytest.param(ROLE + DONE, Fault.EMPTY_STREAM, id="role_and_done"),
        pytest.param(b": ping\n\n" * 3 + DONE, Fault.EMPTY_STREAM, id="comments_and_done"),  # OpenRouter
        pytest.param(DONE + TEXT + STOP, Fault.EMPTY_STREAM, id="all_after_done"),
        pytest.param(TEXT + event({}, "error") + DONE, Fault.FINISH_REASON, id="failed_error"),  # OpenRouter
        pytest.param(TEXT + event({}, "abort") + DONE, Fault.FINISH_REASON, id="failed_abort"),  # vLLM
        pytest.param(TEXT + event({}, "ABORT"), Fault.FINISH_REASON, id="failed_upper_case"),
        pytest.param(
            TEXT + event({}, "insufficient_system_resource") + DONE,  # DeepSeek
            Fault.FINISH_REASON,
            id="failed_resource",
        ),
        pytest.param(
            TEXT + event({}, {"type": "abort", "message": "x"}),  # SGLang
            Fault.FINISH_REASON,
            id="failed_object",
        ),
    ],
)
def test_streams_without_a_complete_answer_fail(body: bytes, fault: Fault) -> None:
    result = stream(body)
    assert (result.outcome, result.error_type) == (Outcome.BROKEN_STREAM, fault)
    assert result.error_message


@pytest.mark.parametrize("kind", [Fault.RESET, Fault.BAD_HTTP, Fault.IDLE_TIMEOUT, Fault.CLOSED_EARLY])
def test_a_failure_after_done_damages_nothing_and_one_before_it_does(kind: Fault) -> None:
    failure = Failure(kind, "why")
    assert stream(TEXT + STOP + DONE, failure=failure).outcome is Outcome.OK
    result = stream(TEXT + STOP, failure=failure)
    assert (result.outcome is Outcome.TIMEOUT) == (kind is Fault.IDLE_TIMEOUT)
    assert (result.outcome is not Outcome.OK, result.error_type) == (True, kind)


def test_a_plain_answer_that_the_server_gave_up_is_an_error() -> None:
    body = b'{"choices":[{"message":{"content":"a"},"finish_reason":"insufficient_system_resource"}]}'
    result = interpret(ended_exchange(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)))
    assert (result.outcome, result.error_type) == (Outcome.SERVER_ERROR, Fault.FINISH_REASON)
    assert "insufficient_system_resource" in (result.error_message or "")
