from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from bltybench.sandbox.delays import draw_s, request_rng
from bltybench.sandbox.reply import NATURAL_TOKENS, WORDS, PlannedChoice, cut, plan
from bltybench.sandbox.request import ChatRequest
from bltybench.sandbox.stream import ChunkWriter, usage_of
from bltybench.scenario.prompts import tokens
from bltybench.scenario.target import Delay


def request(**changes: Any) -> ChatRequest:
    return replace(ChatRequest("deepseek-chat", [], False, False, 20, 1, ()), **changes)


def test_every_word_is_one_token_with_and_without_a_space() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert [word for word in WORDS if tokens.count(word) != 1 or tokens.count(f" {word}") != 1] == []


@pytest.mark.parametrize("length", [1, 2, 37, 400])
def test_completion_has_max_tokens_tokens(length: int) -> None:
    (choice,) = plan(request(max_tokens=length), random.Random(3))
    assert (choice.tokens, choice.finish_reason) == (length, "length")
    assert tokens.count("".join(choice.content)) == length


def test_completion_ends_by_itself_without_max_tokens() -> None:
    for seed in range(50):
        (choice,) = plan(request(max_tokens=None), random.Random(seed))
        assert NATURAL_TOKENS[0] <= choice.tokens <= NATURAL_TOKENS[1]
        assert choice.finish_reason == "stop"


def test_reasoner_uses_half_of_its_tokens_for_reasoning() -> None:
    (choice,) = plan(request(model="deepseek-reasoner", max_tokens=21), random.Random(1))
    assert (len(choice.reasoning), len(choice.content), choice.tokens) == (10, 11, 21)


def test_choices_differ_and_repeat_with_the_same_seed() -> None:
    choices = plan(request(n=3), random.Random(9))
    assert len({choice.content for choice in choices}) == 3
    assert choices == plan(request(n=3), random.Random(9))


@pytest.mark.parametrize(
    ("stops", "kept"),
    [
        ((), ["the", " sea", " and", " sand"]),
        (("nowhere",), ["the", " sea", " and", " sand"]),
        ((" and",), ["the", " sea"]),
        (("and",), ["the", " sea", " "]),
        (("a and",), ["the", " se"]),
        ((" sand", "ea"), ["the", " s"]),
        (("the",), []),
        (("and sand",), ["the", " sea", " "]),
    ],
)
def test_text_ends_before_a_stop_string(stops: tuple[str, ...], kept: list[str]) -> None:
    assert cut(["the", " sea", " and", " sand"], stops) == kept


def test_stopped_completion_has_finish_reason_stop() -> None:
    (whole,) = plan(request(max_tokens=50), random.Random(4))
    (stopped,) = plan(request(max_tokens=50, stop=(whole.content[30],)), random.Random(4))
    assert stopped.finish_reason == "stop"
    assert stopped.content == whole.content[: stopped.tokens]
    assert stopped.tokens <= 30


def test_stop_at_the_last_token_is_a_stop() -> None:
    (whole,) = plan(request(max_tokens=1), random.Random(4))
    (stopped,) = plan(request(max_tokens=1, stop=(whole.content[0][1:],)), random.Random(4))
    assert stopped.finish_reason == "stop"
    assert "".join(stopped.content) == whole.content[0][:1]


def test_chunks_equal_json_encoding() -> None:
    choice = PlannedChoice(("deep",), ("the", " sea"), "length")
    writer = ChunkWriter("chatcmpl-1", 99, request(model='odd"\\model', include_usage=True, n=2))
    events = [writer.token(1, choice, step) for step in range(3)]
    deltas = []
    for event in events:
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        chunk = json.loads(event[6:])
        assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-1", 99, 'odd"\\model')
        assert chunk["usage"] is None
        (only,) = chunk["choices"]
        assert (only["index"], only["finish_reason"]) == (1, None)
        deltas.append(only["delta"])
    assert deltas == [{"reasoning_content": "deep"}, {"content": "the"}, {"content": " sea"}]


def test_usage_chunk_has_no_choices() -> None:
    writer = ChunkWriter("chatcmpl-1", 99, request(include_usage=True))
    chunk = json.loads(writer.usage(usage_of(5, 7, 3))[6:])
    assert chunk["choices"] == []
    assert chunk["usage"]["total_tokens"] == 12
    assert chunk["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}


def test_chunks_omit_usage_unless_requested() -> None:
    writer = ChunkWriter("chatcmpl-1", 99, request())
    assert "usage" not in json.loads(writer.role(0)[6:])


def test_delays_have_the_configured_median_and_p95() -> None:
    delay = Delay(median_ms=100, p95_ms=300)
    rng = random.Random(1)
    drawn = sorted(draw_s(delay, rng) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.1, rel=0.03)
    assert drawn[19_000] == pytest.approx(0.3, rel=0.05)


def test_equal_percentiles_give_a_constant_delay() -> None:
    rng = random.Random(1)
    assert {draw_s(Delay(median_ms=20, p95_ms=20), rng) for _ in range(5)} == {0.02}
    assert draw_s(Delay(median_ms=0, p95_ms=0), rng) == 0.0


def test_requests_have_independent_random_numbers() -> None:
    first = [request_rng(1, ordinal).random() for ordinal in range(100)]
    assert first == [request_rng(1, ordinal).random() for ordinal in range(100)]
    assert len(set(first)) == 100
    assert request_rng(2, 0).random() != first[0]
    assert math.isclose(sum(first) / 100, 0.5, abs_tol=0.15)
