"""Traces in every format: reading, windows, scaling, composition, and errors by line."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from bltybench.errors import UserError
from bltybench.scenario.arrivals.arrivals import Arrival, schedule
from bltybench.scenario.patterns import Trace
from bltybench.scenario.prompts import tokens
from bltybench.scenario.prompts.compose import Composer
from bltybench.scenario.workload import Call, Scenario

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
MOONCAKE = "mooncake-conversation.jsonl"

BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
BURSTGPT_2 = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def read(folder: Path, text: str, duration_s: float = 60, **fields: Any) -> list[Arrival]:
    (folder / "t").write_text(text)
    return list(schedule(Trace(kind="trace", file="t", **fields), duration_s, 1, folder, ["a", "b"]))


def test_both_burstgpt_formats_are_read(tmp_path: Path) -> None:
    expected = [Arrival(0, 0.0, 472, 18), Arrival(1, 40.0, 1087, 1)]
    old = BURSTGPT + "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n"
    assert read(tmp_path, old) == expected
    new = BURSTGPT_2 + "5.0,s1,3.2,GPT-4,472,18,490,API log\n45.0,s2,0.1,ChatGPT,1087,0,1087,API log\n"
    assert [replace(row, session=None) for row in read(tmp_path, new)] == expected


def test_git_lfs_pointer_is_recognized(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Git LFS pointer"):
        read(tmp_path, "version https://git-lfs.github.com/spec/v1\noid sha256:4bb3\nsize 52283111\n")


def test_changed_trace_is_validated_again(tmp_path: Path) -> None:
    row = "5,ChatGPT,472,18,490,Conversation log\n"
    assert len(read(tmp_path, BURSTGPT + row)) == 1
    with pytest.raises(UserError, match="t:3: Timestamp 'x'"):
        read(tmp_path, BURSTGPT + row + row.replace("5", "x", 1))


def test_own_format_keeps_times_and_can_name_calls(tmp_path: Path) -> None:
    text = (
        '{"at_s": 0.5, "prompt_tokens": 7, "max_tokens": 3}\n\n'
        '{"at_s": 2, "prompt_tokens": 9, "max_tokens": 4, "call": "b"}\n'
    )
    assert read(tmp_path, text) == [Arrival(0, 0.5, 7, 3), Arrival(1, 2.0, 9, 4, call="b")]


def own(times_s: list[float]) -> str:
    return "".join(f'{{"at_s": {at}, "prompt_tokens": 5, "max_tokens": 1}}\n' for at in times_s)


def test_window_of_a_trace_is_replayed(tmp_path: Path) -> None:
    text = own([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert [a.at_s for a in read(tmp_path, text, start_s=3, length_s=4)] == [0, 1, 2, 3]
    assert [a.at_s for a in read(tmp_path, text, start_s=3, speed=2, duration_s=2)] == [0, 0.5, 1, 1.5]
    with pytest.raises(UserError, match="has no rows between 20 s and 80 s"):
        read(tmp_path, text, start_s=20)


def test_scaling_up_sends_copies_before_the_next_row(tmp_path: Path) -> None:
    text = own([0, 10, 20, 30])
    found = [a.at_s for a in read(tmp_path, text, scale=3)]
    assert len(found) == 12
    assert {0, 10, 20, 30} <= set(found)
    assert Counter(int(at / 10) for at in found) == {0: 3, 1: 3, 2: 3, 3: 3}
    assert found == sorted(found)
    assert found == [a.at_s for a in read(tmp_path, text, scale=3)]


def test_scaling_down_drops_rows_at_random_and_keeps_times(tmp_path: Path) -> None:
    rows = [float(number) for number in range(4000)]
    found = [a.at_s for a in read(tmp_path, own(rows), duration_s=5000, scale=0.25)]
    assert set(found) <= set(rows)
    assert len(found) == pytest.approx(1000, abs=5 * (4000 * 0.25 * 0.75) ** 0.5)
    more = read(tmp_path, own(rows), duration_s=5000, scale=1.5)
    assert len(more) == pytest.approx(6000, abs=5 * (4000 * 0.25) ** 0.5)


def mooncake(**fields: Any) -> str:
    return json.dumps({"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]} | fields)


def bailian(prompt: int, ids: list[int], at_s: float = 0.0) -> str:
    row = {"chat_id": 1, "parent_chat_id": -1, "timestamp": at_s, "type": "text", "turn": 1}
    return json.dumps(row | {"input_length": prompt, "output_length": 7, "hash_ids": ids}) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BURSTGPT + "5,ChatGPT,472,18,490\n", "t:2: has 5 fields, not 6"),
        (BURSTGPT + "soon,ChatGPT,472,18,490,x\n", "t:2: Timestamp 'soon' is not a number of seconds"),
        (BURSTGPT + "5,ChatGPT,-4,18,490,x\n", "t:2: Request tokens is -4, must be 0 or more"),
        (BURSTGPT + "5,C,4,1,5,x\n4,C,4,1,5,x\n", "t:3: is earlier than the row before it"),
        (own([1]) + "{", "t:2: not valid JSON"),
        (own([1]) + "[1]", "t:2: not a JSON object"),
        (own([1]) + '{"at_s": true, "prompt_tokens": 1, "max_tokens": 1}', "t:2: at_s is not a number"),
        (own([1]) + '{"at_s": 2, "prompt_tokens": 0, "max_tokens": 1}', "t:2: prompt_tokens is 0, must be 1"),
        (own([1]) + '{"at_s": 2, "prompt_tokens": 4, "max_tokens": -1}', "t:2: max_tokens is -1, must be 1"),
        (own([1]) + '{"at_s": 2, "prompt_tokens": 4, "max_token": 1}', "t:2: unknown key 'max_token'"),
        (
            own([1]) + '{"at_s": 2, "prompt_tokens": 4, "max_tokens": 1, "call": "c"}',
            "t:2: call 'c' is not in the scenario's mix\n  → known: a, b",
        ),
        (own([2, 1]), "t:2: is earlier than the row before it\n  → sort the rows by at_s"),
        (mooncake() + "\n" + mooncake(timestamp=-1), "t:2: timestamp is not a number >= 0"),
        (mooncake() + "\n" + mooncake(input_length=0), "t:2: input_length is 0, must be 1 or more"),
        (mooncake(hash_ids=[1]), "t:1: has 1 hash_ids, but an input_length of 600 needs 2 blocks of 512"),
        (
            bailian(40, [1, 2, 3]) + bailian(40, [1]),
            "t:2: has 1 hash_ids, but an input_length of 40 needs 3 blocks of 16",
        ),
        (
            mooncake() + "\n" + mooncake(timestamp=3000),
            't:2: timestamp 3000 can be in seconds or in milliseconds\n  → add time_unit = "ms"',
        ),
        (mooncake(hash_ids="x"), "t:1: hash_ids is not a list of integers"),
        ('{"timestamp": 1700000000, "body": {}}', "t:1: timestamp 1700000000 can be in seconds or in millis"),
        ('{"timestamp": 1.5, "messages": []}', "t:1: has no body, which holds the messages"),
        ('{"timestamp": "noon", "body": {}}', "t:1: timestamp 'noon' is not a time"),
        ('{"body": {}}', "t:1: timestamp is not a number >= 0"),
        (mooncake(chat_id=[1]), "t:1: chat_id is neither an integer nor text"),
        (mooncake(chat_id=1, parent_chat_id=True), "t:1: parent_chat_id is neither an integer nor text"),
        (mooncake(turn=0), "t:1: turn is 0, must be 1 or more"),
        ("{}\n", "t:1: input_length is not an integer"),
    ],
)
def test_trace_error_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def composer(**fields: Any) -> Composer:
    scenario = Scenario(
        title="t",
        model="m",
        duration_s=60,
        users=1,
        mix=(Call(name="a", **fields), Call(name="b", weight=1e-9, stream=True)),
        arrivals=Trace(kind="trace", file="t"),
    )
    return Composer(scenario, Path())


def test_timestamps_with_a_decimal_point_are_seconds(tmp_path: Path) -> None:
    rows = bailian(9, [1], 2.0) + bailian(9, [1], 3.5) + bailian(9, [1], 4)
    assert [arrival.at_s for arrival in read(tmp_path, rows)] == [0, 1.5, 2]


@pytest.mark.parametrize(("unit", "at_s"), [("ms", [0, 1.5]), ("s", [0, 1500])])
def test_whole_timestamps_have_the_given_unit(tmp_path: Path, unit: str, at_s: list[float]) -> None:
    rows = mooncake(timestamp=2000) + "\n" + mooncake(timestamp=3500)
    assert [arrival.at_s for arrival in read(tmp_path, rows, duration_s=9999, time_unit=unit)] == at_s


def test_unit_of_a_format_with_one_unit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at_s of this format has a unit of its own"):
        read(tmp_path, own([1]), time_unit="ms")


def test_trace_without_block_ids_has_lengths_only(tmp_path: Path) -> None:
    rows = '{"timestamp": 0, "input_length": 600, "output_length": 5}\n'
    (found,) = read(tmp_path, rows)
    assert (found.prompt_tokens, found.max_tokens, found.blocks) == (600, 5, ())
    assert composer().prepare(0, found).prompt_tokens == 600


@pytest.mark.parametrize("size", [16, 64, 256])
def test_block_size_follows_from_the_rows(tmp_path: Path, size: int) -> None:
    # The first row fits several sizes, but its text is the same with each of them.
    rows = bailian(12, [4]) + bailian(3 * size - 5, [7, 8, 9]) + bailian(3 * size - 5, [7, 8, 5])
    found = read(tmp_path, rows)
    assert [arrival.block_tokens for arrival in found][1:] == [size, size]
    made = composer()
    prepared = [made.prepare(arrival.index, arrival) for arrival in found]
    prompts = [one.messages[0]["content"] for one in prepared]
    for one, content in zip(prepared[1:], prompts[1:], strict=True):
        assert one.prompt_tokens == 3 * size - 5 == tokens.count(content) + 4
    shared = len(next(iter(_common(prompts[1], prompts[2]))))
    assert 2 * size - 2 <= tokens.count(prompts[1][:shared]) <= 2 * size + 8


def links(arrivals: list[Arrival]) -> list[tuple[int | None, int | None, int | None]]:
    return [(arrival.session, arrival.after, arrival.turn) for arrival in arrivals]


def chat(at_s: float, number: object, parent: object = -1, **fields: Any) -> str:
    row = {"chat_id": number, "parent_chat_id": parent, "timestamp": at_s, **fields}
    return json.dumps({**row, "type": "text", "input_length": 9, "output_length": 4})


def test_turns_of_a_session_follow_their_parents(tmp_path: Path) -> None:
    rows = [
        chat(0.0, 7, turn=1),
        chat(0.5, 8, turn=1),
        chat(1.5, 9, 7, turn=2),
        chat(2.5, 10, 9, turn=3),
        chat(2.5, 11, 7, turn=2),  # the user asked again
        chat(3.5, 12, 99, turn=5),  # its parent is not in the trace
        bailian(9, [1], 4.5),
    ]
    found = read(tmp_path, "\n".join(rows))
    expected = [(0, None, 1), (1, None, 1), (0, 0, 2), (0, 2, 3), (0, 0, 2), (5, None, 5), (6, None, 1)]
    assert links(found) == expected
    assert [arrival.worker(4) for arrival in found] == [0, 1, 0, 0, 0, 1, 2]
    later = read(tmp_path, "\n".join(rows), start_s=1.0)
    assert links(later)[:3] == [(0, None, 2), (0, 0, 3), (2, None, 2)]


def test_ids_of_sessions_can_be_text_and_no_parent_can_be_null(tmp_path: Path) -> None:
    rows = [chat(0.0, "a", None), chat(1.5, "b", "a"), chat(2.5, "c", "")]
    assert links(read(tmp_path, "\n".join(rows))) == [(0, None, None), (0, 0, None), (2, None, None)]
    same = [chat(0.0, 3), chat(1.5, 3)]
    rows = [row.replace('"parent_chat_id": -1, ', "") for row in same]
    assert links(read(tmp_path, "\n".join(rows))) == [(0, None, None), (0, 0, None)]
    own_rows = [
        {"at_s": 0, "chat_id": 1, "turn": 1},
        {"at_s": 1, "chat_id": 2, "parent_chat_id": 1, "turn": 2},
    ]
    assert links(read(tmp_path, "\n".join(map(json.dumps, own_rows)))) == [(0, None, 1), (0, 0, 2)]


def test_rows_of_a_burstgpt_session_follow_each_other(tmp_path: Path) -> None:
    rows = ["5,s1", "6,s2", "7,s1", "8,", "9,s1"]
    text = "".join(f"{row},0.1,GPT-4,4,1,5,Conversation log\n" for row in rows)
    found = links(read(tmp_path, BURSTGPT_2 + text))
    assert found == [(0, None, None), (1, None, None), (0, 0, None), (None, None, None), (0, 2, None)]


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_sessions_are_scaled_as_a_whole(tmp_path: Path, scale: float) -> None:
    rows = [
        chat(
            turn * 100.0 + number,
            100 * turn + number,
            100 * turn + number - 100 if turn else -1,
            turn=turn + 1,
        )
        for turn in range(3)
        for number in range(40)
    ]
    found = read(tmp_path, "\n".join(rows), 1000, scale=scale)
    sizes = Counter(arrival.session for arrival in found)
    assert set(sizes.values()) == {3}
    assert len(sizes) == pytest.approx(40 * scale, abs=12)
    by_index = {arrival.index: arrival for arrival in found}
    for arrival in found:
        if arrival.after is not None:
            assert (arrival.turn or 0) - 1 == by_index[arrival.after].turn


def test_a_request_of_a_session_has_its_turn_and_the_request_before_it(tmp_path: Path) -> None:
    _, second = read(tmp_path, "\n".join([chat(0.0, 7, turn=1), chat(1.5, 8, 7, turn=2)]))
    prepared = composer().prepare(second.index, second)
    assert (prepared.turn, prepared.after) == (2, 0)


def test_same_block_ids_give_the_same_text(tmp_path: Path) -> None:
    rows = [
        mooncake(input_length=1100, hash_ids=[7, 8, 9]),
        mooncake(input_length=1500, hash_ids=[7, 8, 10]),
        mooncake(input_length=1100, hash_ids=[6, 8, 9]),
    ]
    made = composer()
    prompts = [made.prepare(a.index, a).messages[0]["content"] for a in read(tmp_path, "\n".join(rows))]
    assert [tokens.count(prompt) + 4 for prompt in prompts] == [1100, 1500, 1100]
    # Blocks 7 and 8 give the same 1,024 tokens; the rest differs.
    shared = len(next(iter(_common(prompts[0], prompts[1]))))
    assert tokens.count(prompts[0][:shared]) >= 1024
    assert tokens.count(prompts[0][:shared]) < 1100 - 30
    # A prompt with another first block shares no useful prefix, even if its second block is the same.
    assert len(next(iter(_common(prompts[0], prompts[2])))) < 200


def _common(one: str, other: str) -> list[str]:
    length = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    return [one[:length]]


def test_row_determines_the_call(tmp_path: Path) -> None:
    text = '{"at_s": 0, "prompt_tokens": 40, "max_tokens": 3, "call": "b"}\n'
    (arrival,) = read(tmp_path, text)
    prepared = composer().prepare(0, arrival)
    assert (prepared.call.name, prepared.prompt_tokens, prepared.max_tokens) == ("b", 40, 3)


def test_recorded_mooncake_trace_is_read() -> None:
    if not (TRACES / MOONCAKE).exists():
        pytest.skip(f"the recorded traces are not in {TRACES}")
    found = list(schedule(Trace(kind="trace", file=MOONCAKE, time_unit="ms"), 1e6, 1, TRACES))
    lines = [json.loads(line) for line in (TRACES / MOONCAKE).read_text().splitlines()]
    assert len(found) == len(lines)
    first_ms = lines[0]["timestamp"]
    for arrival, line in zip(found, lines, strict=True):
        assert arrival.at_s == pytest.approx((line["timestamp"] - first_ms) / 1000)
        assert (arrival.prompt_tokens, arrival.max_tokens) == (
            line["input_length"],
            max(1, line["output_length"]),
        )
        assert arrival.blocks == tuple(line["hash_ids"])
    made = composer()
    for arrival in islice(found, 20):
        prepared = made.prepare(arrival.index, arrival)
        assert prepared.prompt_tokens == arrival.prompt_tokens == tokens.count_messages(prepared.messages)
