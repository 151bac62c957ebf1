from __future__ import annotations

import json
from array import array
from bisect import bisect
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.wire.sse import stream as stream_module
from bltybench.wire.sse.stream import StreamFold


def event(delta: dict[str, Any], *, ascii_only: bool = True, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    chunk = {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(chunk, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") + b"\n\n"


def fold(*reads: bytes) -> StreamFold:
    state = StreamFold()
    for number, data in enumerate(reads):
        state.take(data, 1000 * (number + 1))
    state.close()
    return state


def test_a_stream_gives_times_text_and_usage() -> None:
    state = fold(
        event({"role": "assistant", "content": ""}),
        event({"content": "Hel"}),
        event({"content": "lo \\"}),
        event({"content": 'wor"ld\n'}),
        event({"content": "é😀"}),
        event({}).replace(b'"finish_reason": null', b'"finish_reason": "stop"'),
        b'data: {"id":"c1","choices":[],"usage":{"completion_tokens":4}}\n\n',
        b"data: [DONE]\n\n",
    )
    assert list(state.times) == [2000, 3000, 4000, 5000]
    assert state.text == 'Hello \\wor"ld\né😀'
    assert state.first_output_ns == 2000
    assert (state.coalesced, state.done, state.finish_reason) == (0, True, "stop")
    assert state.usage == {"completion_tokens": 4}
    assert (state.response_id, state.model) == ("c1", "m")


@pytest.mark.parametrize(
    "delta",
    [
        {"content": ""},
        {"content": None},
        {},
        {"role": "assistant"},
        {"content": "", "reasoning_content": None},
        {"tool_calls": []},
        {"content": 5},
    ],
)
def test_an_event_without_content_is_not_a_token(delta: dict[str, Any]) -> None:
    state = fold(event({"content": "a"}), event(delta), event({"content": "b"}))
    assert list(state.times) == [1000, 3000]
    assert state.text == "ab"


@pytest.mark.parametrize(
    "delta",
    [
        {"content": " "},
        {"content": "\\"},
        {"content": '"'},
        {"content": '\\"'},
        {"reasoning_content": "r"},
        {"reasoning": "r"},
        {"content": None, "reasoning_content": "r"},
        {"content": [{"type": "text", "text": "part"}]},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]},
        {"function_call": {"name": "f"}},
    ],
)
def test_an_event_with_any_kind_of_content_is_a_token(delta: dict[str, Any]) -> None:
    state = fold(event({"content": "a"}), event(delta), event({"content": "b"}))
    assert list(state.times) == [1000, 2000, 3000]


def test_reasoning_counts_as_a_token_but_not_as_output() -> None:
    state = fold(
        event({"content": None, "reasoning_content": "think"}),
        event({"content": None, "reasoning_content": " more"}),
        event({"content": "say", "reasoning_content": None}),
    )
    assert (state.reasoning, state.text) == ("think more", "say")
    assert (state.times[0], state.first_output_ns) == (1000, 3000)


def test_events_that_share_a_read_are_counted_as_coalesced() -> None:
    a, b = event({"content": "a"}), event({"content": "b"})
    state = fold(a + b + a)
    assert (len(state.times), state.coalesced) == (3, 2)
    assert fold(a + b"data: [DONE]\n\n").coalesced == 1
    assert fold(a + b[:5], b[5:]).coalesced == 1
    spanning = fold(a[:20], a[20:])
    assert (list(spanning.times), spanning.coalesced) == ([2000], 0)


def test_first_token_that_shares_its_read_is_coalesced() -> None:
    role, a, b = event({"role": "assistant", "content": ""}), event({"content": "a"}), event({"content": "b"})
    assert fold(role).first_token_coalesced is None
    assert fold(role + a, b + b).first_token_coalesced is False
    assert fold(role, a + b, b).first_token_coalesced is True
    assert fold(a + b"data: [DONE]\n\n").first_token_coalesced is True
    assert fold(a[:9], a[9:] + b[:9], b[9:]).first_token_coalesced is True
    for arrivals, coalesced in (([1, 2, 2, 3, 4, 5, 6, 7], True), ([1, 2, 3, 3, 4, 5, 6, 7], False)):
        state = StreamFold()
        state.take_pieces([role, *[a] * 7], array("q", arrivals))
        assert state.first_token_coalesced is coalesced
    unended = StreamFold()
    unended.take(a[:-2], 1)
    unended.close(2)
    assert unended.first_token_coalesced is False


def test_parts_of_a_tool_call_are_joined() -> None:
    def part(**function: str) -> bytes:
        return event({"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": function}]})

    state = fold(part(name="f", arguments=""), part(arguments='{"a"'), part(arguments=":1}"))
    assert state.tool_calls == [
        {"function": {"name": "f", "arguments": '{"a":1}'}, "id": "t1", "type": "function"}
    ]


def test_each_choice_is_an_event_and_the_first_gives_the_text() -> None:
    second = event({"content": "other"}).replace(b'"index": 0', b'"index": 1')
    state = fold(event({"content": "one"}), second, event({"content": " two"}))
    assert len(state.times) == 3
    assert state.text == "one two"


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"error":{"message":"boom","type":"server_error"}}\n\n',
        b'event: error\ndata: {"message":"boom"}\n\n',
        b"event: error\ndata: boom\n\n",
        b'data: {"error":"boom"}\n\n',
        b'data: {"choices":3,"error":{"message":"boom"}}\n\n',
    ],
)
def test_an_error_in_the_stream_is_found_in_each_form(data: bytes) -> None:
    assert "boom" in str(fold(event({"content": "a"}), data).error)


def test_done_is_recognized_without_a_final_blank_line() -> None:
    assert fold(event({"content": "a"}), b"data: [DONE]").done
    assert fold(event({"content": "a"}), b"data:[DONE]\r\n").done
    assert not fold(event({"content": "a"})).done
    assert not fold(event({"content": "[DONE]"})).done


def test_junk_is_kept_as_a_bad_event_but_named_pings_are_not() -> None:
    assert fold(b"data: <html>\n\n").bad_event == b"<html>"
    assert fold(b"event: ping\ndata: hello\n\n").bad_event is None


def test_too_many_events_and_too_large_events_are_overruns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENTS", 3)
    monkeypatch.setattr(stream_module, "MAX_EVENT_BYTES", 100)
    few = fold(b": ping\n\n" * 3)
    assert few.overrun() is None
    many = fold(b": ping\n\n" * 4).overrun()
    large = fold(b"data: " + b"x" * 100).overrun()
    assert many is not None
    assert many.kind == "too_many_events"
    assert large is not None
    assert large.kind == "event_too_large"


TEXT = st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace").decode())
DELTAS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"content": TEXT}),
    st.fixed_dictionaries({"content": TEXT}),
    st.fixed_dictionaries(
        {"content": st.sampled_from(['"', "\\", '\\"', '"content":"x"', "\ud83d", "a\\", ""])}
    ),
    st.fixed_dictionaries({"content": st.none(), "reasoning_content": TEXT}),
    st.just({}),
)


@given(st.lists(DELTAS, max_size=12), st.booleans(), st.lists(st.integers(0, 3000), max_size=12))
def test_text_and_times_do_not_depend_on_where_reads_end(
    deltas: list[dict[str, Any]], ascii_only: bool, cuts: list[int]
) -> None:
    if not ascii_only:
        deltas = [delta for delta in deltas if "\ud83d" not in (delta.get("content") or "")]
    stream = b"".join(event(delta, ascii_only=ascii_only) for delta in deltas)
    edges = [0, *sorted(at % (len(stream) + 1) for at in cuts), len(stream)]
    reads = [stream[a:b] for a, b in pairwise(edges)]
    kept = fold(*reads)
    texts = [delta.get("content") or delta.get("reasoning_content") for delta in deltas]
    assert len(kept.times) == sum(1 for text in texts if text)
    text = "".join(delta.get("content") or "" for delta in deltas)
    if "\ud83d" not in text:
        assert kept.text == text
        assert kept.reasoning == "".join(delta.get("reasoning_content") or "" for delta in deltas)


@given(st.lists(st.one_of(st.binary(max_size=80), st.just(event({"content": "a"}))), max_size=8))
def test_any_bytes_are_accepted(reads: list[bytes]) -> None:
    state = fold(*reads)
    assert state.coalesced <= len(state.times)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "index", "error", "usage", "id", "tool_calls", "function"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=5))
def test_any_json_is_accepted(values: list[Any]) -> None:
    state = fold(*[b"data: " + json.dumps(value).encode() + b"\n\n" for value in values])
    assert len(state.times) <= len(values)


@given(st.lists(DELTAS, min_size=1, max_size=12), st.integers(0, 11))
def test_events_in_one_read_give_the_same_as_in_reads_of_their_own(
    deltas: list[dict[str, Any]], split: int
) -> None:
    events = [event({"content": "first"}), *[event(delta) for delta in deltas]]
    apart, together = fold(*events), fold(b"".join(events[: split + 1]), b"".join(events[split + 1 :]))
    assert len(together.times) == len(apart.times)
    assert (together.text, together.reasoning) == (apart.text, apart.reasoning)
    assert together.other_events == apart.other_events


@pytest.mark.parametrize("odd", [' "quoted"', "\\", "two\nlines", ""])
def test_a_run_of_matching_events_can_contain_one_that_differs(odd: str) -> None:
    texts = ["a", " b", odd, " c", "d", "e"]
    state = fold(b"".join(event({"content": text}) for text in texts))
    assert len(state.times) == sum(1 for text in texts if text)
    assert state.text == "".join(texts)


USAGES = st.sampled_from([None, {"completion_tokens": 0}, {"completion_tokens": 3}, "none"])
OTHER_EVENTS = st.one_of(
    st.builds(lambda text: event({"content": [{"type": "text", "text": text}]}), TEXT),
    st.builds(lambda text: event({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}), TEXT),
    st.builds(lambda text, usage: event({"content": text}, usage=usage), TEXT, USAGES),
    st.builds(lambda text: event({"content": text}, id=None, model=None), TEXT),
    st.builds(
        lambda text, reason: event({"content": text}).replace(b'"finish_reason": null', reason),
        TEXT,
        st.sampled_from([b'"finish_reason": "stop"', b'"finish_reason": ""', b'"finish_reason": 1']),
    ),
    st.sampled_from(
        [
            b": ping\n\n",
            b"data: [DONE]\n\n",
            b"data: x\n\n",
            b'data: {"choices":[]}\n\n',
            b'data: {"choices":[{"index":1,"delta":{"content":"b"}}]}\n\n',
            b'data:{"choices":[{"delta":{"content":"c"}}]}\n\n',
            b'data: {"choices":[{"delta":\ndata: {"content":"d"}}]}\n\n',
            b'data: {"choices":[{"delta":{"content":"e"}}]}\r\n\r\n',
            b"\n",
            b'event: error\ndata: {"message":"boom"}\n\n',
            b'data: {"error":{"message":"boom"}}\n\n',
        ]
    ),
)
TEXT_EVENT, REASONING_EVENT = event({"content": "text"}), event({"content": None, "reasoning": "r"})
CALL, OTHER_CALL = (
    event({"tool_calls": [{"index": index, "id": "c", "function": {"name": "f", "arguments": ""}}]})
    for index in (0, 1)
)
ARGUMENTS, OTHER_ARGUMENTS = (
    event({"tool_calls": [{"index": index, "function": {"arguments": '{"a'}}]}) for index in (0, 1)
)
FINISH = event({}).replace(b'"finish_reason": null', b'"finish_reason": "stop"')
# Runs of plain text are decoded in one call, and other events end them.
RUNS = st.sampled_from(
    [
        [TEXT_EVENT] * 6,
        [REASONING_EVENT] * 6,
        [REASONING_EVENT] * 3 + [TEXT_EVENT] * 3,
        [TEXT_EVENT] * 3 + [REASONING_EVENT] * 3,
        [event({"content": "text", "reasoning": "r"})] * 6,
        [event({"content": [{"type": "text", "text": "part"}]})] * 6,
        [event({"content": "text"}, usage={"completion_tokens": 3 - count}) for count in range(6)],
        [event({"content": ""}), *[TEXT_EVENT] * 5],
        [CALL, *[ARGUMENTS] * 6],
        [CALL, OTHER_CALL, *[ARGUMENTS, OTHER_ARGUMENTS] * 3],
        [ARGUMENTS] * 5,
        [CALL, *[ARGUMENTS] * 3, *[TEXT_EVENT] * 3],
        [*[ARGUMENTS] * 3, OTHER_CALL, *[OTHER_ARGUMENTS] * 3],
        [event({"content": "a", "tool_calls": [{"index": 0, "function": {"arguments": "b"}}]})] * 5,
        [FINISH],
        [TEXT_EVENT, b"\n", TEXT_EVENT],
        [b"\n"] * 2,
    ]
)
EVENTS = st.lists(
    st.one_of(DELTAS.map(event).map(lambda data: [data]), OTHER_EVENTS.map(lambda data: [data]), RUNS, RUNS),
    max_size=8,
).map(lambda runs: [data for run in runs for data in run])


def state_of(fold: StreamFold) -> dict[str, Any]:
    """Return everything that a fold knows."""
    hidden = {"_framer", "_text", "_reasoning", "_uncommon", "_starts", "_settled"}
    known = {name: value for name, value in vars(fold).items() if name not in hidden}
    return known | {"text": fold.text, "reasoning": fold.reasoning, "generated": fold.generated_text}


@given(
    EVENTS,
    st.lists(st.integers(0, 3000), max_size=4),
    st.just([]) | st.lists(st.integers(1, 9), max_size=12),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_batches_of_pieces_give_the_same_as_one_event_at_a_time(
    events: list[bytes], cuts: list[int], in_a_read: list[int], folds: list[int]
) -> None:
    whole = b"".join(events)
    edges = sorted({0, len(whole), *[at % (len(whole) + 1) for at in cuts]})
    for pieces in (events, [whole[a:b] for a, b in pairwise(edges)]):
        ends = accumulate(in_a_read) if in_a_read else range(len(pieces))
        marks = sorted({*(min(at, len(pieces)) for at in ends), len(pieces)})
        arrivals = array("q", [1000 * (1 + bisect(marks, at)) for at in range(len(pieces))])
        cut = StreamFold()
        for a, b in pairwise(sorted({0, *(marks[at % len(marks)] for at in folds), len(pieces)})):
            cut.take_pieces(pieces[a:b], arrivals[a:b])
        cut.close()
        reads = [(b"".join(pieces[a:b]), arrivals[a]) for a, b in pairwise([0, *marks]) if a < b]
        uncut = StreamFold()
        for read, arrival_ns in reads:
            uncut.take(read, arrival_ns)
        uncut.close()
        assert state_of(cut) == state_of(uncut)


def test_a_line_end_after_an_event_in_its_read_follows_it_however_the_read_is_split() -> None:
    split, whole = StreamFold(), StreamFold()
    split.take_pieces([TEXT_EVENT, b"\n"], array("q", [1, 1]))
    whole.take(TEXT_EVENT + b"\n", 1)
    assert split.coalesced == whole.coalesced == 1


@pytest.mark.parametrize("before", [event({"content": ""}), FINISH, b"data: [DONE]\n\n"])
@pytest.mark.parametrize("apart", [True, False])
def test_a_run_of_text_after_another_event_is_as_the_same_events_one_by_one(
    before: bytes, apart: bool
) -> None:
    batches, single = StreamFold(), StreamFold()
    text = [TEXT_EVENT] * 5
    for number, pieces in enumerate(
        ([TEXT_EVENT, before], text) if apart else ([TEXT_EVENT], [before, *text])
    ):
        batches.take_pieces(pieces, array("q", [number] * len(pieces)))
        single.take(b"".join(pieces), number)
    assert state_of(batches) == state_of(single)


def test_a_stream_of_events_that_are_not_json_is_not_examined_to_its_end() -> None:
    # A compressed body of 70 kB can hold millions of them, each as dear as several good events.
    state = StreamFold()
    state.take(b"data: x\n\n" * stream_module.MAX_BAD_EVENTS, 1)
    state.take(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', 2)
    assert (len(state.times), state.bad_event) == (0, b"x")
    assert state.other_events == stream_module.MAX_BAD_EVENTS + 1
