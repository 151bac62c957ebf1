"""Generated and damaged responses through the parser, the exchange, and the interpretation."""

from __future__ import annotations

import pytest

from benchmarks.campaign import Batch
from benchmarks.fuzz import check, play
from benchmarks.wire_inputs import WireInput, wire_input
from bltybench.runs.attempt import Outcome

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.fixture(scope="module")
def batch() -> Batch:
    return play(0, 4000)


def test_generated_responses_give_valid_records(batch: Batch) -> None:
    assert not batch.failures


def test_generated_responses_reach_every_outcome_that_needs_no_clock(batch: Batch) -> None:
    without_clock = set(Outcome) - {Outcome.TIMEOUT, Outcome.CANCELLED}
    assert set(batch.counts) == {outcome.value for outcome in without_clock}


def test_input_number_always_gives_the_same_input() -> None:
    assert [wire_input(number) for number in range(50)] == [wire_input(number) for number in range(50)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"object":"x","half":"\\ud83d"}',
        b'{"object":"x","half":"\xff"}',
        b'{"message":{"half":"\xff"}}',
        b'{"message":' + b"[" * 900 + b"]" * 900 + b"}",
        b"[" * 900 + b"]" * 900,
        b'{"error":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"choices":[{"delta":{"content":' + b'{"text":' * 320 + b'""' + b"}" * 320 + b"}}]}",
    ],
    ids=lambda body: f"{body[:24]!r}",
)
@pytest.mark.parametrize("frame", [b"data: %s\n\ndata: [DONE]\n\n", b"event: error\ndata: %s\n\n", b"%s"])
@pytest.mark.parametrize("stream", [True, False])
def test_half_characters_and_deep_nesting_end_in_a_typed_outcome(
    frame: bytes, body: bytes, stream: bool
) -> None:
    response = HEAD + frame % body
    outcome = check(WireInput(response, (len(response),), stream, True, 0), compare_splits=False)
    assert outcome in {"broken_stream", "server_error", "no_answer"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[{"delta":{"content":[{"type":["x"],"text":"a"}]}}]}',
        b'{"choices":[{"delta":{"content":[{"type":{},"text":"a"}],"reasoning":""}}]}',
        b'{"object":["a"],"detail":{"content":"b"}}',
        b'{"type":{},"message":"b"}',
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_lists_and_objects_in_place_of_names_are_accepted(body: bytes, stream: bool) -> None:
    response = HEAD + (b"data: %s\n\n" % body if stream else body)
    check(WireInput(response, (len(response),), stream, True, 0), compare_splits=True)


def test_an_invalid_escape_breaks_a_stream_wherever_reads_end() -> None:
    texts = (b"tok", b"\\u00e\xaa", b"\\u00e9", b"\\ud83d", b"\\ude00", b"tok")
    events = b"".join(b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % text for text in texts)
    response = HEAD + events + b"data: [DONE]\n\n"
    for size in (1, 7, 48, 150):
        assert check(WireInput(response, (size,), True, True, 3), compare_splits=True) == "broken_stream"
