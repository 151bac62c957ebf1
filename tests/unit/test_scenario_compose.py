from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltybench.errors import UserError
from bltybench.scenario.arrivals.arrivals import Arrival
from bltybench.scenario.cost import least_tokens, mean_tokens
from bltybench.scenario.patterns import Closed
from bltybench.scenario.prompts import conversations, prose, tokens
from bltybench.scenario.prompts.compose import Composer
from bltybench.scenario.workload import Call, Fixed, Scenario, Uniform

DATA = Path(__file__).resolve().parents[1] / "data"
SYSTEM = "You are a helpful assistant."


def scenario(*calls: Call, seed: int = 1) -> Scenario:
    return Scenario(
        title="t", model="m", duration_s=1, users=1, seed=seed, mix=calls, arrivals=Closed(kind="closed")
    )


def composer(*calls: Call, seed: int = 1, base: Path = DATA) -> Composer:
    return Composer(scenario(*calls, seed=seed), base)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 3_000), st.integers(1, 20_000), st.integers(0, 2**32))
def test_text_has_exactly_the_requested_tokens(wanted: int, answer: int, seed: int) -> None:
    assert tokens.count(prose.text_of(wanted, answer, Random(seed))) == wanted


@pytest.mark.parametrize("wanted", range(1, 80))
def test_short_texts_have_exactly_the_requested_tokens(wanted: int) -> None:
    for seed in range(20):
        assert tokens.count(prose.text_of(wanted, 64, Random(seed))) == wanted


def test_very_long_text_has_exactly_the_requested_tokens() -> None:
    assert tokens.count(prose.text_of(32_768, 64, Random(1))) == 32_768


def test_sentence_tokens_do_not_depend_on_neighbors() -> None:
    pool = prose.pool()
    assert len(pool.sentences) > 50
    for text, n in pool.sentences:
        assert text[1].isalpha()
        assert text.endswith(".")
        assert tokens.count(text) == tokens.count(text[1:]) == n
    for words in range(1, len(prose.OPENER.split()) + 1):
        assert tokens.count(" ".join(prose.OPENER.split()[:words])) == words
    assert set(pool.endings) == set(range(2, pool.longest + 2))
    shortest_body = prose.SHORT - max(n for _, n in pool.asks) - prose.number_tokens(10**9)
    assert shortest_body >= 2


@pytest.mark.parametrize("number", [1, 9, 10, 99, 100, 999, 1_000, 24_576, 999_999, 1_000_000])
def test_numbers_have_a_token_per_three_digits(number: int) -> None:
    frame = tokens.count("in about words.") + 1  # and the leading space of the number
    assert tokens.count(f"in about {number} words.") == frame + prose.number_tokens(number)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 2_000), st.integers(1, 500), st.booleans(), st.integers(0, 10_000))
def test_prompt_has_and_reports_the_requested_length(
    wanted: int, answer: int, with_system: bool, index: int
) -> None:
    call = Call(
        name="a",
        prompt_tokens=Fixed(tokens=wanted),
        max_tokens=Fixed(tokens=answer),
        system=SYSTEM if with_system else None,
    )
    prepared = composer(call).prepare(index)
    counted = tokens.count_messages(prepared.messages)
    assert prepared.prompt_tokens == counted
    assert prepared.max_tokens == answer
    least = 5 + (tokens.count(SYSTEM) if with_system else 0)
    assert counted == max(wanted, least)
    assert [m["role"] for m in prepared.messages] == (["system", "user"] if with_system else ["user"])


def test_prompt_requests_the_completion_length() -> None:
    call = Call(name="a", prompt_tokens=Fixed(tokens=100), max_tokens=Fixed(tokens=200))
    text = composer(call).prepare(0).messages[-1]["content"]
    assert "about 150 words" in text


MIX = (
    Call(name="short", weight=3, prompt_tokens=Uniform(kind="uniform", min=10, max=90)),
    Call(name="long", weight=1, stream=True, prompt_tokens=Fixed(tokens=300), system=SYSTEM),
)


def test_request_depends_only_on_seed_and_index() -> None:
    one, other = composer(*MIX), composer(*MIX)
    backwards = {index: other.prepare(index) for index in reversed(range(50))}
    assert [one.prepare(index) for index in range(50)] == [backwards[index] for index in range(50)]
    reseeded = composer(*MIX, seed=2)
    assert [reseeded.prepare(i).messages for i in range(50)] != [one.prepare(i).messages for i in range(50)]


def test_requests_differ() -> None:
    call = Call(name="a", prompt_tokens=Fixed(tokens=120))
    made = composer(call)
    texts = {made.prepare(index).messages[0]["content"] for index in range(500)}
    assert len(texts) == 500


def test_mix_follows_the_weights() -> None:
    made = composer(*MIX)
    counts = Counter(made.prepare(index).call.name for index in range(4_000))
    # 3,000 expected; the standard deviation is 27
    assert abs(counts["short"] - 3_000) < 5 * 27


def test_trace_overrides_the_lengths() -> None:
    prepared = composer(*MIX).prepare(3, Arrival(3, 1.5, 700, 11))
    assert (prepared.prompt_tokens, prepared.max_tokens) == (700, 11)
    assert tokens.count_messages(prepared.messages) == 700
    drawn = composer(*MIX).prepare(3, Arrival(3, 1.5, None, None))
    assert drawn == composer(*MIX).prepare(3)


def test_recorded_conversations_are_sent_unchanged() -> None:
    call = Call(name="a", conversations="conversations.jsonl", max_tokens=Fixed(tokens=9))
    made = composer(call)
    recorded = [
        json.loads(line)["messages"]
        for line in (DATA / "conversations.jsonl").read_text().splitlines()
        if line
    ]
    sent = [made.prepare(index) for index in range(60)]
    for prepared in sent:
        assert prepared.messages in recorded
        assert prepared.prompt_tokens == tokens.count_messages(prepared.messages)
        assert prepared.max_tokens == 9
    assert len({json.dumps(prepared.messages) for prepared in sent}) == 3
    assert sent == [composer(call).prepare(index) for index in range(60)]


def test_callers_can_change_messages_without_side_effects() -> None:
    made = composer(Call(name="a", conversations="conversations.jsonl"))
    first = made.prepare(0)
    first.messages.append({"role": "assistant", "content": "…"})
    first.messages[0]["content"] = "changed"
    assert made.prepare(0).messages != first.messages
    assert made.prepare(0).messages[0]["content"] != "changed"


SHAPE = '\n  → a line looks like {"messages": [{"role": "user", "content": "…"}]}'
GOOD = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"message": []}, "no list of messages"),
        ({"messages": []}, "no list of messages"),
        ([GOOD], "no list of messages"),
        ({"messages": ["Hello"]}, "message 1 is not an object"),
        ({"messages": [GOOD, {"role": "user"}]}, "message 2 has no content"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1 has no content"),
        (
            {"messages": [{"role": "human", "content": "Hello"}]},
            "message 1 has the role 'human'; must be one of system, developer, user, assistant, tool",
        ),
        (
            {"messages": [GOOD, {"role": "assistant", "content": "Hello"}]},
            "the last message is from the assistant: it must be from the user or a tool",
        ),
    ],
)
def test_conversation_error_is_named_with_its_line(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"messages": [GOOD]}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(UserError) as caught:
        composer(Call(name="a", conversations="c.jsonl"), base=tmp_path)
    assert str(caught.value) == f"{path}:2: {message}{SHAPE}"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"tools": "[]"}, "tools is not a list"),
        ({"top_p": 0.5}, "unknown key 'top_p'"),
        ({"max_token": 7}, "unknown key 'max_token'"),
        ({"max_tokens": 0}, "max_tokens must be a positive integer, not 0"),
        ({"max_tokens": True}, "max_tokens must be a positive integer, not true"),
        ({"max_tokens": "7"}, 'max_tokens must be a positive integer, not "7"'),
        ({"temperature": 2.5}, "temperature must be a number from 0 to 2, not 2.5"),
        ({"temperature": float("nan")}, "temperature must be a number from 0 to 2, not NaN"),
    ],
)
def test_parameter_that_a_conversation_cannot_set_is_refused(
    tmp_path: Path, extra: dict[str, Any], message: str
) -> None:
    # Rows of OpenAI's batch and fine-tuning files have such keys. They were dropped silently.
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"messages": [GOOD]} | extra) + "\n")
    with pytest.raises(UserError) as caught:
        composer(Call(name="a", conversations="c.jsonl"), base=tmp_path)
    assert str(caught.value).startswith(f"{path}:1: {message}\n  → ")
    if "unknown" in message:
        assert "a line can have messages, max_tokens, temperature" in str(caught.value)


def test_parameters_of_a_conversation_replace_those_of_the_mix(tmp_path: Path) -> None:
    row = {"messages": [GOOD], "max_tokens": 7, "temperature": 0}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "none.jsonl").write_text(json.dumps({"messages": [GOOD], "max_tokens": None}) + "\n")
    for file, expected in (("own.jsonl", (7, 0)), ("none.jsonl", (9, 0.5))):
        call = Call(name="a", conversations=file, max_tokens=Fixed(tokens=9), temperature=0.5)
        made = Composer(scenario(call), tmp_path)
        prepared = made.prepare(0)
        assert (prepared.max_tokens, prepared.temperature) == expected
        assert mean_tokens(scenario(call), tmp_path).answer == expected[0]
        assert least_tokens(scenario(call), tmp_path) == prepared.prompt_tokens + expected[0]
        # A trace states the length of each request.
        assert made.prepare(0, Arrival(0, 0.0, 5, 3)).max_tokens == 3


def test_tools_of_a_conversation_are_sent_and_counted(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    history = [
        GOOD,
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "4"},
    ]
    rows: list[dict[str, Any]] = [
        {"messages": history, "tools": tools, "tool_choice": "none", "response_format": None},
        {"messages": [GOOD], "tools": []},
    ]
    call = Call(name="a", conversations="c.jsonl", body={"tool_choice": "auto", "top_p": 0.5})
    for row, extra in zip(rows, ({"tools": tools, "tool_choice": "none"}, {}), strict=True):
        (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
        prepared = Composer(scenario(call), tmp_path).prepare(0)
        assert prepared.messages == row["messages"]
        assert prepared.call.body == {"tool_choice": "auto", "top_p": 0.5} | extra
        definitions = tokens.count_definitions(prepared.call.body)
        assert mean_tokens(scenario(call), tmp_path).prompt == prepared.prompt_tokens + definitions
        assert (definitions > 0) == bool(extra)


def test_long_file_is_read_once_and_counted_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 31 MB of conversations took 95 s of CPU before the first request, because all were counted three times.
    counted = 0
    real_count = tokens.count_messages

    def count_messages(messages: list[dict[str, Any]]) -> int:
        nonlocal counted
        counted += 1
        return real_count(messages)

    monkeypatch.setattr(conversations, "count_messages", count_messages)
    lines = [json.dumps({"messages": [{"role": "user", "content": f"Say {n} words"}]}) for n in range(5_000)]
    lines[4_321] = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    used = scenario(Call(name="a", conversations="c.jsonl", max_tokens=Fixed(tokens=9)))
    whole = sum(real_count(json.loads(line)["messages"]) for line in lines) / len(lines)
    assert mean_tokens(used, tmp_path).prompt == pytest.approx(whole, abs=0.1)
    assert least_tokens(used, tmp_path) == real_count([{"role": "user", "content": "Hi"}]) + 9
    before = counted
    assert before <= conversations.MAX_COUNTED + conversations.SHORTEST
    prepared = Composer(used, tmp_path).prepare(0)
    assert prepared.prompt_tokens == real_count(prepared.messages)
    assert counted <= before + 1


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    for content in ("Hello", "Hello again"):
        path.write_text(json.dumps({"messages": [{"role": "user", "content": content}]}))
        made = composer(Call(name="a", conversations="c.jsonl"), base=tmp_path)
        assert made.prepare(0).messages[0]["content"] == content


@pytest.mark.parametrize("suffix", ["jsonl", "txt"])
def test_rows_beyond_the_checked_part_of_a_file_are_parsed_when_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"c.{suffix}"
    lines = [f"Say {number}" if suffix == "txt" else json.dumps(f"Say {number}") for number in range(50)]
    path.write_text("\n\n".join(lines), encoding="utf-8-sig")
    whole = [row.messages for row in conversations.read_conversations(path).every]
    conversations.read_rows.cache_clear()
    monkeypatch.setattr(conversations, "MAX_CHECKED_BYTES", 100)
    rows = conversations.read_conversations(path).every
    assert 5 < len(rows.checked) < 20
    assert [row.messages for row in rows] == whole
    assert [row.messages for row in rows[40:]] == whole[40:]
    with pytest.raises(IndexError):
        rows[50]


def test_error_beyond_the_checked_part_of_a_file_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_CHECKED_BYTES", 1)
    path = tmp_path / "c.jsonl"
    path.write_text('"Hello"\n"Hello again"\n"cut\n{"conversations": []}\n')
    rows = conversations.Rows(path, "conversations file", conversations.SHAPE, conversations._conversation)
    rows.read()
    assert len(rows) == 4
    with pytest.raises(UserError, match=r"c\.jsonl:3: not valid JSON"):
        rows[2]
    # A row without anything to send gives its place to the next one.
    assert rows[3].messages == rows[0].messages


def test_many_rows_without_anything_to_send_in_a_row_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_CHECKED_BYTES", 1)
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(['"Hello"', *['{"conversations": []}'] * 3000, '"Hello again"']))
    rows = conversations.Rows(path, "conversations file", conversations.SHAPE, conversations._conversation)
    rows.read()
    assert rows[1].messages[0]["content"] == "Hello again"


def test_reading_a_long_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conversations, "PROGRESS_S", -1.0)
    path = tmp_path / "c.jsonl"
    path.write_text((json.dumps({"messages": [GOOD]}) + "\n") * 3)
    with caplog.at_level("INFO", "bltybench"):
        composer(Call(name="a", conversations="c.jsonl"), base=tmp_path)
    assert f"Reading {path}: 3 lines so far" in caplog.text


SHAREGPT = [
    {"id": "a", "source": "x", "conversations": [{"from": "system", "value": "Be brief."},
     {"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]},
    {"conversations": [{"from": "gpt", "value": "Nobody asked."}]},
    {"conversations": []},
]  # fmt: skip
BRIEF = [{"role": "system", "content": "Be brief."}, GOOD]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("c.jsonl", "\n".join(map(json.dumps, SHAREGPT)), [BRIEF]),
        ("c.json", json.dumps(SHAREGPT, indent=1), [BRIEF]),
        ("c.json", json.dumps(["Hello", {"prompt": "Hello"}]), [[GOOD], [GOOD]]),
        ("c.jsonl", '"Hello"\n{"prompt": "Hello"}\n', [[GOOD], [GOOD]]),
        ("c.txt", "Hello\n\n[5]\n", [[GOOD], [{"role": "user", "content": "[5]"}]]),
        ("c.jsonl", '{"prompt": "x", "messages": [{"role": "user", "content": "Hello"}]}', None),
        ("c.json", '[{"conversations": [{"from": "nobody", "value": "Hello"}]}]', None),
        ("c.json", '["Hello", 5]', None),
        ("c.json", '["Hello",', None),
        ("c.json", "[]", None),
    ],
)
def test_conversations_of_other_formats_are_read(
    tmp_path: Path, file: str, content: str, expected: list[Any] | None
) -> None:
    (tmp_path / file).write_text(content)
    if expected is None:
        with pytest.raises(UserError, match=file):
            conversations.read_conversations(tmp_path / file)
        return
    read = conversations.read_conversations(tmp_path / file).every
    assert [row.messages for row in read] == expected


def test_skipped_conversations_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "c.json").write_text(json.dumps(SHAREGPT))
    conversations.read_conversations(tmp_path / "c.json")
    assert "skipped 2 conversations in which the user says nothing" in caplog.text


def test_invalid_or_missing_conversations_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    call = Call(name="a", conversations="c.jsonl")
    with pytest.raises(UserError, match="conversations file not found"):
        composer(call, base=tmp_path)
    path.write_text('{"messages": [\n')
    with pytest.raises(UserError, match=r"c\.jsonl:1: not valid JSON"):
        composer(call, base=tmp_path)
    path.write_text("\n")
    with pytest.raises(UserError, match="contains no line to send"):
        composer(call, base=tmp_path)
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"c\.jsonl:1: not valid JSON"):
        composer(call, base=tmp_path)


def test_counted_markers_match_the_chat_template() -> None:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "The Elbe."},
        {"role": "user", "content": "Another one."},
    ]
    rendered = (
        f"<｜begin▁of▁sentence｜>{SYSTEM}<｜User｜>Name a river.<｜Assistant｜></think>The Elbe."
        "<｜end▁of▁sentence｜><｜User｜>Another one.<｜Assistant｜></think>"
    )
    assert tokens.count_messages(messages) == tokens.count(rendered)


def test_all_message_shapes_can_be_counted() -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert tokens.count_messages([{"role": "user", "content": parts}]) == 5
    assert tokens.count_messages([{"role": "assistant", "content": None}]) == 6
    assert tokens.count_messages([{"role": "novel", "content": "Hello"}]) == 5
    assert tokens.count_messages([]) == 3
    assert tokens.count("") == 0


def marked(anti_cache: str, nonce: str, index: int, system: str | None = None) -> tuple[str, int, int]:
    call = Call.model_validate(
        {
            "name": "a",
            "prompt_tokens": {"kind": "fixed", "tokens": 200},
            "anti_cache": anti_cache,
            "system": system,
        }
    )
    prepared = Composer(scenario(call), DATA, nonce).prepare(index)
    counted = tokens.count_messages(prepared.messages)
    return prepared.messages[0]["content"][:18], prepared.prompt_tokens, counted


@pytest.mark.parametrize("system", [None, SYSTEM])
def test_anti_cache_words_come_first_and_are_counted(system: str | None) -> None:
    for index in range(30):
        for kind in ("run", "request"):
            _, said, counted = marked(kind, "n", index, system)
            assert said == 200
            assert counted == pytest.approx(200, abs=2)
    assert marked("run", "n", 1, system)[0] == marked("run", "n", 2, system)[0]
    assert marked("run", "n", 1, system)[0] != marked("run", "m", 1, system)[0]
    assert marked("request", "n", 1, system)[0] != marked("request", "n", 2, system)[0]
    assert marked("request", "n", 1, system)[0] != marked("request", "m", 1, system)[0]
    assert marked("off", "n", 1, system) == marked("off", "m", 1, system)


def test_anti_cache_precedes_a_recorded_conversation() -> None:
    call = Call(name="a", conversations="conversations.jsonl", anti_cache="request")
    plain = Composer(scenario(Call(name="a", conversations="conversations.jsonl")), DATA).prepare(3)
    prepared = Composer(scenario(call), DATA, "n").prepare(3)
    assert prepared.messages[0] != plain.messages[0]
    assert prepared.messages[1:] == plain.messages[1:]
    assert prepared.prompt_tokens == pytest.approx(tokens.count_messages(prepared.messages), abs=1)


def test_conversation_turn_contains_and_counts_its_history() -> None:
    call = Call.model_validate(
        {"name": "a", "turns": {"min": 3, "max": 5, "tokens": {"kind": "fixed", "tokens": 25}}}
    )
    made = composer(call)
    assert {made.prepare(index).turns for index in range(60)} == {3, 4, 5}
    prepared = made.prepare(1)
    for turn in (2, 3):
        following = made.next_turn(prepared, turn, "The sea is cold. So is the sky.")
        assert following.messages[: len(prepared.messages)] == prepared.messages
        assert following.messages[-2] == {"role": "assistant", "content": "The sea is cold. So is the sky."}
        assert following.prompt_tokens == tokens.count_messages(following.messages)
        assert made.next_turn(prepared, turn, "The sea is cold. So is the sky.") == following
        prepared = following
    with pytest.raises(ValueError, match="has no turns"):
        composer(Call(name="b")).next_turn(composer(Call(name="b")).prepare(1), 2, "")
