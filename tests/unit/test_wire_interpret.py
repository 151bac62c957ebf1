from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_wire import ended_exchange

from bltybench.limits.observations.classify import Decision, classify_response
from bltybench.runs.attempt import Outcome
from bltybench.text import MAX_MESSAGE_CHARS
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret
from bltybench.wire.result import ExchangeResult
from bltybench.wire.sse.stream import StreamFold

REFUSED = Decision.REFUSED

EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"tok"},"finish_reason":null}]}\n\n'


def response(status: int, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


def error(message: str = "", kind: str = "", code: str = "") -> bytes:
    return f'{{"error":{{"message":"{message}","type":"{kind}","code":"{code}"}}}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "headers", "outcome"),
    [
        (429, b"", b"", Outcome.RATE_LIMITED),
        (429, error("slow", "requests", "rate_limit_exceeded"), b"", Outcome.RATE_LIMITED),
        (429, error("pay", "insufficient_quota", "insufficient_quota"), b"", Outcome.CLIENT_ERROR),
        (429, error("pay", "", "billing_hard_limit_reached"), b"", Outcome.CLIENT_ERROR),
        (429, error("busy", "engine_overloaded_error"), b"", Outcome.SERVER_ERROR),
        (429, error("The engine is currently overloaded"), b"", Outcome.SERVER_ERROR),
        (503, error("overloaded"), b"X-RateLimit-Remaining: 0\r\n", Outcome.SERVER_ERROR),
        (503, b"", b"Retry-After: 3\r\n", Outcome.SERVER_ERROR),
        (503, error("Rate limit reached"), b"", Outcome.RATE_LIMITED),
        (503, b"<title>503 Too Many Requests</title>", b"", Outcome.RATE_LIMITED),
        (503, b"", b"X-RateLimit-Remaining: 0\r\n", Outcome.RATE_LIMITED),
        (403, b"", b"X-RateLimit-Remaining: 0\r\n", Outcome.RATE_LIMITED),
        (403, error("not yours"), b"X-RateLimit-Remaining: 3\r\n", Outcome.CLIENT_ERROR),
        (401, error("key"), b"X-RateLimit-Remaining: 0\r\n", Outcome.CLIENT_ERROR),
        (400, error("rate limit is not a word here"), b"", Outcome.CLIENT_ERROR),
        (529, error("overloaded"), b"", Outcome.SERVER_ERROR),
        (500, b"", b"", Outcome.SERVER_ERROR),
        (302, b"", b"Location: //[bad\r\n", Outcome.CLIENT_ERROR),
        (204, b"", b"", Outcome.SERVER_ERROR),
        (200, b'{"object":"list","data":[]}', b"", Outcome.NO_ANSWER),
        (200, b"[]", b"", Outcome.NO_ANSWER),
        (200, error("inside"), b"", Outcome.SERVER_ERROR),
        (200, b'{"choices":[{}]}', b"Content-Encoding: br\r\n", Outcome.SERVER_ERROR),
        (200, b'{"choices":[{"text":"a"}]}', b"Content-Encoding: identity\r\n", Outcome.OK),
    ],
)
def test_status_body_and_headers_decide_the_outcome(
    status: int, body: bytes, headers: bytes, outcome: Outcome
) -> None:
    assert interpret(ended_exchange(response(status, body, headers))).outcome is outcome


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (Fault.CANCELLED, Outcome.CANCELLED),
        (Fault.TOTAL_TIMEOUT, Outcome.TIMEOUT),
        (Fault.IDLE_TIMEOUT, Outcome.TIMEOUT),
        (Fault.RESET, Outcome.TRANSPORT_ERROR),
    ],
)
def test_a_cancellation_or_timeout_decides_before_the_status(kind: Fault, outcome: Outcome) -> None:
    exchange = ended_exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", failure=Failure(kind, "why"))
    result = interpret(exchange)
    assert (result.outcome, result.error_type, result.error_message) == (outcome, kind, "why")


def test_a_truncated_refusal_is_still_a_refusal() -> None:
    exchange = ended_exchange(
        b"HTTP/1.1 429 X\r\nContent-Length: 9\r\n\r\n{", failure=Failure(Fault.RESET, "why")
    )
    assert interpret(exchange).outcome is Outcome.RATE_LIMITED


HEADS = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-RateLimit-Reset: 1e9\r\n\r\n",
        b"HTTP/1.1 429 No\r\nRetry-After: Foo, 99\r\nLocation: \xff\r\n\r\n",
        b"HTTP/1.1 307 Go\r\nLocation: http://[\r\n\r\n",
    ]
)
BODIES = st.lists(
    st.binary(max_size=60)
    | st.sampled_from([EVENT, b"data: [DONE]\n\n", b"5\r\ndata:\r\n", b'{"error":', b"\x1b[2J"]),
    max_size=6,
).map(b"".join)


@given(HEADS, BODIES, st.booleans())
def test_any_response_has_a_consistent_result(head: bytes, body: bytes, stream: bool) -> None:
    result = interpret(ended_exchange(head + body, stream=stream))
    assert result.outcome in Outcome
    if result.outcome is Outcome.OK:
        assert (result.error_type, result.error_message) == (None, None)
    assert len(result.error_message or "") <= MAX_MESSAGE_CHARS
    assert (result.first_token_ns is None) == (result.gaps_us is None)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def events(*values: Any, done: bool = True) -> ExchangeResult:
    """Return the result of a stream of these events: JSON values, or bytes as they are."""
    parts = [
        part if isinstance(part, bytes) else b"data: " + json.dumps(part).encode() + b"\n\n"
        for part in values
    ]
    body = b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    return interpret(ended_exchange(head + body, stream=True))


def plain(value: Any, status: int = 200) -> ExchangeResult:
    return interpret(ended_exchange(response(status, json.dumps(value).encode())))


def completion(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more}


HELLO = chunk({"content": "hello"})
STOP = chunk({}, "stop")
ROLE = chunk({"role": "assistant", "content": ""})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"choices": None}, '{"choices":null}'),  # gateways, while a model loads
        ({"choices": []}, '{"choices":[]}'),
        ({"id": "x", "object": "chat.completion"}, "chat.completion"),
        ([], "without an answer"),
        ([{"generated_text": "hi"}], "generated_text"),  # TGI's own API
        ({"message": "starting"}, "starting"),  # load balancers
        ({"choices": None, "base_resp": {"status_code": 0, "status_msg": "success"}}, "base_resp"),  # MiniMax
        ({"code": 0, "message": "ok", "data": None}, "ok"),
        (completion({"role": "assistant", "content": ""}), "choices"),
        (completion({"role": "assistant", "content": None, "tool_calls": []}), "choices"),
    ],
)
def test_a_plain_200_without_an_answer_is_not_ok(value: Any, words: str) -> None:
    result = plain(value)
    assert (result.outcome, result.error_type) == (Outcome.NO_ANSWER, Fault.NO_ANSWER)
    assert words in (result.error_message or "")


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b": keep-alive\n\n"],  # proxies that stay silent after their comments
        [ROLE],
        [ROLE, STOP],
        [{"choices": []}],
        [b'event: ping\ndata: {"type": "ping"}\n\n'],
        [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}],
    ],
)
def test_a_stream_without_content_is_not_an_answer(parts: list[Any]) -> None:
    result = events(*parts)
    assert (result.outcome, result.error_type) == (Outcome.NO_ANSWER, Fault.NO_ANSWER)
    assert (result.events, result.first_token_ns) == (0, None)
    assert result.error_message


@pytest.mark.parametrize(
    ("finish", "counts", "outcome"),
    [
        ("length", {"prompt_tokens": 3, "completion_tokens": 2}, Outcome.OK),  # half a character (llama.cpp)
        ("stop", {"prompt_tokens": 3, "completion_tokens": 1}, Outcome.OK),  # only the end token
        (
            "length",  # hidden reasoning (OpenAI)
            {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}},
            Outcome.OK,
        ),
        ("stop", {"prompt_tokens": 3, "completion_tokens": 0}, Outcome.NO_ANSWER),
        ("stop", None, Outcome.NO_ANSWER),
        (None, {"prompt_tokens": 3, "completion_tokens": 2}, Outcome.NO_ANSWER),
    ],
)
def test_an_answer_without_text_is_ok_only_if_the_server_ended_and_counted_it(
    finish: str | None, counts: dict[str, Any] | None, outcome: Outcome
) -> None:
    message = {"role": "assistant", "content": ""}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": counts}
    for result in (events(ROLE, chunk({}, finish), {"choices": [], "usage": counts}), plain(whole)):
        assert result.outcome is outcome
        noted = "no_text" in (result.notes or "").split(",")
        assert noted == (outcome is Outcome.OK)
        assert (result.events, result.first_token_ns) in {(0, None), (None, None)}
        if outcome is Outcome.OK:
            assert counts is not None
            assert result.completion_tokens == counts["completion_tokens"]


@pytest.mark.parametrize("finish", ["error", "abort"])
def test_counted_tokens_do_not_turn_a_failed_answer_without_text_into_one(finish: str) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    assert events(ROLE, chunk({}, finish), usage).error_type is Fault.FINISH_REASON


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"reasoning_content": "a"},  # DeepSeek
        {"reasoning": "a"},  # OpenRouter
        {"refusal": "I cannot"},  # OpenAI
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"function_call": {"name": "f"}},
        {"audio": {"id": "a", "data": "AAAA"}},  # OpenAI
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},  # Mistral
    ],
)
def test_any_kind_of_output_is_an_answer(delta: dict[str, Any]) -> None:
    assert events(chunk(delta), STOP).outcome is Outcome.OK
    assert plain(completion(delta)).outcome is Outcome.OK


REPORTED = [
    # An error in a 200: the value, the outcome of a plain response, the decision, and a part of the message
    ({"error": {"message": "boom", "type": "server_error"}}, "server_error", Decision.BROKEN, "boom"),
    ({"code": "InternalError", "message": "boom"}, "server_error", Decision.BROKEN, "boom"),
    ({"object": "error", "message": "boom", "code": 4}, "server_error", Decision.BROKEN, "boom"),
    ([{"error": {"code": 500, "message": "boom"}}], "server_error", Decision.BROKEN, "boom"),
    ({"errors": [{"code": 7, "message": "boom"}], "success": False}, "server_error", Decision.BROKEN, "boom"),
    ({"choices": [{"error": {"code": 502, "message": "boom"}}]}, "server_error", Decision.BROKEN, "boom"),
    ({"choices": [{}, {"error": {"code": 502, "message": "boom"}}]}, "server_error", Decision.BROKEN, "boom"),
    ({"choices": [], "x_groq": {"error": "boom"}}, "server_error", Decision.BROKEN, "boom"),  # Groq
    # Alibaba Cloud
    ({"code": "Throttling.RateQuota", "message": "wait", "request_id": "x"}, "rate_limited",
     Decision.REFUSED_BY_REQUESTS, "wait"),
    # MiniMax, Baidu, OpenRouter, Anthropic, Google
    ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "rate_limited",
     REFUSED, "rate limit"),
    ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, "rate_limited",
     Decision.REFUSED_BY_REQUESTS, "qps"),
    ({"error": {"code": 429, "message": "Provider returned error"}}, "rate_limited", REFUSED, "Provider"),
    ({"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, "rate_limited", REFUSED, "x"),
    ([{"error": {"status": "RESOURCE_EXHAUSTED", "message": "y"}}], "rate_limited", REFUSED, "y"),
    ({"message": "API rate limit exceeded"}, "rate_limited", REFUSED, "API"),  # Kong
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "server_error",
     Decision.OVERLOAD, "Overloaded"),
    ({"error": {"code": "1305", "message": "busy"}}, "server_error", Decision.OVERLOAD, "busy"),  # Zhipu
    ({"error": {"code": "slow_down", "message": "Slow down"}}, "server_error", Decision.SLOW_DOWN, "Slow"),
    ({"error": {"code": "1113", "message": "pay"}}, "client_error", Decision.BILLING, "pay"),  # Zhipu
    ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "client_error",
     Decision.BILLING, "insufficient balance"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "outcome", "decision", "words"), REPORTED)
def test_an_error_in_a_200_is_recognized_in_every_shape(
    value: Any, outcome: str, decision: Decision, words: str
) -> None:
    whole = plain(value)
    first = events(value)
    later = events(HELLO, value)
    named = events(HELLO, b"event: error\ndata: " + json.dumps(value).encode() + b"\n\n", done=False)
    for result in (whole, first, later, named):
        expected = "broken_stream" if outcome == "server_error" and result.streamed else outcome
        assert result.outcome == expected
        assert classify_response(result) is decision
        assert words in (result.error_message or "")


@pytest.mark.parametrize("where", ["error", "x_groq"])
def test_an_error_next_to_content_is_an_error(where: str) -> None:
    reported: Any = {"message": "boom"}
    if where == "x_groq":
        reported = {"error": reported}
    for result in (
        events(HELLO | {where: reported}),
        events(HELLO, STOP | {where: reported}),
        plain(completion({"content": "hello"}) | {where: reported}),
    ):
        outcome = Outcome.BROKEN_STREAM if result.streamed else Outcome.SERVER_ERROR
        assert (result.outcome, result.error_message) == (outcome, "boom")


def test_an_error_event_in_plain_text_is_an_error() -> None:
    result = events(HELLO, b"event: error\ndata: out of memory\n\n")
    assert (result.outcome, result.error_message) == (Outcome.BROKEN_STREAM, "out of memory")


def test_an_error_in_a_stream_that_then_stays_open_is_not_a_timeout() -> None:
    body = b'data: {"error":{"code":429,"message":"wait"}}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\n"
    exchange = ended_exchange(head + body, stream=True, failure=Failure(Fault.IDLE_TIMEOUT, "why"))
    assert interpret(exchange).outcome is Outcome.RATE_LIMITED


@pytest.mark.parametrize("nothing", [None, False, "", {}])
def test_an_empty_error_field_is_no_error(nothing: Any) -> None:
    assert events(HELLO | {"error": nothing}, STOP).outcome is Outcome.OK
    assert plain(completion({"content": "a"}, error=nothing)).outcome is Outcome.OK


THINKING = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}


def test_reasoning_is_the_first_token_but_not_output() -> None:
    for delta in (THINKING, {"content": [{"type": "thinking", "thinking": "hm"}]}, {"reasoning": "hm"}):
        state = StreamFold()
        for number, part in enumerate([chunk(delta), chunk(delta), HELLO, STOP]):
            state.take(b"data: " + json.dumps(part).encode() + b"\n\n", 10 * (number + 1))
        state.close()
        assert (list(state.times), state.first_output_ns) == ([10, 20, 30], 30)
        assert (state.reasoning, state.text) == ("hmhm", "hello")


USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    "parts",
    [
        [HELLO, chunk({}, "stop", usage=USAGE)],
        [
            HELLO,
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]},
        ],  # Moonshot
        [HELLO, chunk({}, "stop", x_groq={"id": "r", "usage": USAGE})],  # Groq
        [HELLO | {"usage": {"prompt_tokens": 20, "completion_tokens": 1}}, STOP | {"usage": USAGE}],  # vLLM
        [HELLO | {"usage": USAGE}, STOP | {"usage": ZERO}],  # gateways that zero the last chunk
        [HELLO | {"usage": None}, STOP, {"choices": [], "usage": USAGE}],  # OpenAI
    ],
)
def test_usage_is_read_wherever_the_server_puts_it(parts: list[Any]) -> None:
    result = events(*parts)
    assert (result.outcome, result.prompt_tokens, result.completion_tokens) == (Outcome.OK, 20, 10)


def test_a_usage_of_zeros_is_no_usage() -> None:
    result = plain(completion({"content": "a"}, usage=ZERO))
    assert (result.prompt_tokens, result.completion_tokens) == (None, None)


@pytest.mark.parametrize("can_be_empty", [False, True])
@pytest.mark.parametrize("finish", ["stop", "length", None])
def test_an_answer_that_begins_with_a_stop_string_is_empty_but_complete(
    finish: str | None, can_be_empty: bool
) -> None:
    whole = completion({"content": ""}) | {"usage": {"prompt_tokens": 3, "completion_tokens": 0}}
    whole["choices"][0]["finish_reason"] = finish
    data = [b"data: " + json.dumps(part).encode() + b"\n\n" for part in (ROLE, chunk({}, finish))]
    for body, stream in ((json.dumps(whole).encode(), False), (b"".join([*data, b"data: [DONE]\n\n"]), True)):
        exchange = ended_exchange(response(200, body), stream=stream)
        exchange.can_be_empty = can_be_empty
        complete = can_be_empty and finish == "stop"
        assert interpret(exchange).outcome is (Outcome.OK if complete else Outcome.NO_ANSWER)


CALL = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}]}


def test_the_text_to_count_is_kept_only_if_the_server_counted_nothing() -> None:
    parts = [chunk({"reasoning": "hm"}), HELLO, HELLO, HELLO, chunk(CALL), chunk({"refusal": "no"})]
    other = {"choices": [{"index": 1, "delta": {"content": "second"}}]}
    whole = completion({"content": "a b", "function_call": {"name": "g", "arguments": "{}"}})
    for keep_text in (True, False):
        for usage, expected in ((None, 'hmhellohellohellonosecondf{"a":1}'), (USAGE, "")):
            body = [*parts, other, STOP | {"usage": usage}]
            data = b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in body)
            exchange = ended_exchange(response(200, data), stream=True)
            exchange.keep_text = keep_text
            result = interpret(exchange)
            assert (result.uncounted_text, bool(result.text)) == (expected, keep_text)
        exchange = ended_exchange(response(200, json.dumps(whole).encode()))
        exchange.keep_text = keep_text
        result = interpret(exchange)
        assert (result.uncounted_text, result.text) == ("a bg{}", "a b" if keep_text else "")


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (b'{"content":"\xe2\x82"}', b'{"content":"\xac"}', "€"),  # a character split across events
        (b'{"content":"\xff"}', b'{"content":"b"}', "\ufffdbb"),
        (b'{"content":"\\ud83d"}', b'{"content":"\\ude00"}', "😀"),
    ],
)
def test_a_stream_survives_text_that_is_not_utf8(first: bytes, second: bytes, text: str) -> None:
    wrap = b'data: {"choices":[{"index":0,"delta":%s}]}\n\n'
    result = events(b"\xef\xbb\xbf" + wrap % first, wrap % second, wrap % second, STOP)
    assert (result.outcome, result.events) == (Outcome.OK, 3)
    assert result.text.startswith(text)


def test_a_byte_order_mark_opens_a_plain_answer() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(completion({"content": "a"})).encode()
    assert interpret(ended_exchange(response(200, body))).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("status", "value", "outcome", "decision"),
    [
        # Moonshot, Zhipu, Anthropic, DeepSeek, OpenAI, new-api, OpenRouter, LiteLLM: out of money
        (429, {"error": {"type": "exceeded_current_quota_error", "message": "suspended due to insufficient "
         "balance, please recharge"}}, "client_error", Decision.BILLING),
        (429, {"error": {"code": "1113", "message": "Insufficient balance or no resource package"}},
         "client_error", Decision.BILLING),
        (400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to "
         "access the API."}}, "client_error", Decision.BILLING),
        (402, {"error": {"message": "Insufficient Balance"}}, "client_error", Decision.BILLING),
        (429, {"error": {"message": "You exceeded your current quota, please check your plan and billing"}},
         "client_error", Decision.BILLING),
        (403, {"error": {"code": "insufficient_user_quota"}}, "client_error", Decision.BILLING),
        (429, {"message": "You are out of credits"}, "client_error", Decision.BILLING),
        (400, {"error": {"type": "budget_exceeded"}}, "client_error", Decision.BILLING),
        (403, {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier of the model has been "
         "exhausted."}, "client_error", Decision.BILLING),  # Alibaba
        # Alibaba: limits of requests and of tokens, the second in OpenAI's words for an unpaid bill
        (429, {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded, please try again "
         "later."}, "rate_limited", Decision.REFUSED_BY_REQUESTS),
        (429, {"error": {"code": "limit_requests", "message": "You exceeded your current requests list."}},
         "rate_limited", Decision.REFUSED_BY_REQUESTS),
        (429, {"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded, please increase "
         "your quota limit."}, "rate_limited", Decision.REFUSED_BY_TOKENS),
        (429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "You "
         "exceeded your current quota, please check your plan and billing details. For details, see: "
         "https://help.aliyun.com/zh/model-studio/error-code#token-limit"}}, "rate_limited",
         Decision.REFUSED_BY_TOKENS),
        (429, {"error": {"code": "insufficient_quota", "message": "Allocated quota exceeded, please increase "
         "your quota limit."}}, "rate_limited", Decision.REFUSED_BY_TOKENS),
        (429, {"code": "Throttling.BurstRate", "message": "Request rate increased too quickly."},
         "server_error", Decision.SLOW_DOWN),
        # Google: a quota that renews
        (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current "
         "quota. Please retry in 3s."}}, "rate_limited", REFUSED),
        # OpenAI, OpenRouter: a refusal that advertises
        (429, {"error": {"code": "rate_limit_exceeded", "message": "Limit 3. Please try again in 20s. Add a "
         "payment method at /account/billing"}}, "rate_limited", REFUSED),
        (429, {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day. Add 10 credits"}},
         "rate_limited", Decision.REFUSED_BY_DAILY_CAP),
        (429, {"error": {"type": "tokens", "message": "Rate limit reached on tokens per day (TPD)"}},
         "rate_limited", Decision.REFUSED_BY_DAILY_CAP),
        # TGI, Zhipu, Anthropic: overload
        (429, {"error": "Model is overloaded", "error_type": "overloaded"}, "server_error",
         Decision.OVERLOAD),
        (429, {"error": {"code": "1305", "message": "该模型当前访问量过大"}}, "server_error",
         Decision.OVERLOAD),
        (529, {}, "server_error", Decision.OVERLOAD),
        (503, {"error": {"code": "slow_down"}}, "server_error", Decision.SLOW_DOWN),
    ],
)  # fmt: skip
def test_an_error_of_any_vendor_has_its_decision(
    status: int, value: Any, outcome: str, decision: Decision
) -> None:
    result = plain(value, status)
    assert (result.outcome, classify_response(result)) == (outcome, decision)
