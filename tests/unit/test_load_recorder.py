from __future__ import annotations

import json
from typing import Any

import pytest
from support_wire import ended_exchange

from bltybench.load.recorder import ENDPOINT, CallContext, TokenCounts, count_tokens
from bltybench.runs.attempt import Outcome, TokensSource
from bltybench.scenario.api.routes import Route
from bltybench.scenario.prompts import tokens
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret
from bltybench.wire.result import ExchangeResult

FOX = "the quick brown fox"
FOX_TOKENS = 4
PROMPT_TOKENS = 7
USAGE = {"prompt_tokens": 20, "completion_tokens": 10}


def event(delta: dict[str, Any], finish: str | None = None, *, index: int = 0, **more: Any) -> bytes:
    chunk = {"choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def streamed(*parts: bytes, failure: Failure | None = None) -> ExchangeResult:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    exchange = ended_exchange(head + b"".join(parts), stream=True, failure=failure)
    exchange.keep_text = False
    return interpret(exchange)


def counts(result: ExchangeResult, endpoint: str = ENDPOINT) -> TokenCounts:
    call = CallContext(
        route=Route("t", None, "m"),
        call_id="c",
        name="stream",
        body=b"",
        stream=True,
        model="m",
        prompt_tokens=PROMPT_TOKENS,
        endpoint=endpoint,
    )
    return count_tokens(call, result)


FUNCTION = {"name": "the", "arguments": " quick brown fox"}
STOP = event({}, "stop")
ESTIMATED = TokenCounts(PROMPT_TOKENS, FOX_TOKENS, TokensSource.TOKENIZER)


@pytest.mark.parametrize(
    "parts",
    [
        [event({"content": FOX}), STOP],  # servers that only pretend to stream
        [event({"content": letter}) for letter in FOX] + [STOP],
        [event({"reasoning_content": "the quick"}), event({"content": " brown fox"}), STOP],
        [event({"tool_calls": [{"index": 0, "function": FUNCTION}]}), STOP],
        [event({"function_call": FUNCTION}), STOP],
        [event({"refusal": FOX}), STOP],
        [event({"content": "the quick"}, "stop"), event({"content": " brown fox"}, "stop", index=1)],
        [event({"content": FOX}), event({}, "stop", usage={"prompt_tokens": 0, "completion_tokens": 0})],
    ],
)  # fmt: skip
def test_streams_without_usage_are_estimated_from_their_text_however_it_is_split(parts: list[bytes]) -> None:
    assert counts(streamed(*parts)) == ESTIMATED


@pytest.mark.parametrize("kind", [Fault.RESET, Fault.IDLE_TIMEOUT, Fault.CANCELLED])
def test_a_stream_that_breaks_off_before_its_usage_is_estimated(kind: Fault) -> None:
    assert counts(streamed(event({"content": FOX}), failure=Failure(kind, "why"))) == ESTIMATED


def test_usage_replaces_every_estimate_and_its_parts_are_kept() -> None:
    whole = streamed(event({"content": FOX}), event({}, "stop", usage=USAGE))
    assert counts(whole) == TokenCounts(20, 10, TokensSource.USAGE)
    half = streamed(event({"content": FOX}, "stop", usage={"prompt_tokens": 20}))
    assert counts(half) == TokenCounts(20, FOX_TOKENS, TokensSource.TOKENIZER)


def test_an_empty_answer_has_the_tokens_that_the_server_reports() -> None:
    result = ExchangeResult(outcome=Outcome.OK, prompt_tokens=20, completion_tokens=0)
    assert counts(result) == TokenCounts(20, 0, TokensSource.USAGE)


def test_nothing_is_estimated_without_an_answer_or_after_a_refusal_in_the_stream() -> None:
    nothing = TokenCounts(None, None, None)
    assert counts(streamed(b"data: [DONE]\n\n")) == nothing
    refused = b'data: {"error":{"code":429,"message":"rate limit"}}\n\n'
    assert counts(streamed(event({"content": FOX}), refused)) == nothing
    assert counts(streamed(event({"content": FOX}), STOP), "/models") == nothing


def test_audio_alone_has_no_estimate() -> None:
    sound = streamed(event({"audio": {"data": "AAAA"}}), STOP)
    assert counts(sound) == TokenCounts(PROMPT_TOKENS, None, TokensSource.TOKENIZER)


def test_long_texts_are_estimated_from_their_beginning() -> None:
    text = f"{FOX} jumps. " * 2000
    assert tokens.estimate(text) == pytest.approx(tokens.count(text), rel=0.02)
    assert tokens.estimate(FOX) == FOX_TOKENS
