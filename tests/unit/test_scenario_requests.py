"""Recorded request bodies: read, mapped, priced, and sent as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bltybench.errors import UserError
from bltybench.load.run.upstream import open_upstreams
from bltybench.scenario.arrivals.arrivals import schedule
from bltybench.scenario.arrivals.trace_line import TimeUnit
from bltybench.scenario.cost import least_tokens, mean_tokens
from bltybench.scenario.patterns import Trace
from bltybench.scenario.plan import make_plan
from bltybench.scenario.prompts import tokens
from bltybench.scenario.prompts.compose import Composer
from bltybench.scenario.target import Budget, Target
from bltybench.scenario.workload import Scenario

TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
BODIES: list[dict[str, Any]] = [
    {"model": "a", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 7, "temperature": 1.0},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi there"}]}], "stream": True,
     "max_completion_tokens": 5, "n": 2, "tools": TOOLS, "vendor": {"x": [None, 0.5]}},
    {"model": "b", "messages": [{"role": "assistant", "content": None, "tool_calls": []},
                                {"role": "tool", "content": "é"}], "max_tokens": 3},
]  # fmt: skip


def scenario(models: dict[str, str] | None = None, **fields: Any) -> Scenario:
    call = {"name": "own", "requests": {"file": "b.jsonl", "models": models or {}}}
    about = {"title": "t", "model": "usual", "duration_s": 10, "users": 1, "arrivals": {"kind": "closed"}}
    about |= {"arrivals": fields.pop("arrivals")} if "arrivals" in fields else {}
    return Scenario.model_validate({**about, "mix": [call | fields]})


def write(folder: Path, *rows: object) -> Path:
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_bodies_are_sent_as_they_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    composer = Composer(scenario(), write(tmp_path, *BODIES))
    sent = [composer.prepare(index).body for index in range(4)]
    assert sent == [BODIES[0], BODIES[1] | {"model": "usual"}, BODIES[2], BODIES[0]]


def test_batch_file_sends_its_bodies(tmp_path: Path) -> None:
    rows = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n, body in enumerate(BODIES)
    ]
    plain, batch = tmp_path / "plain", tmp_path / "batch"
    plain.mkdir()
    batch.mkdir()
    made = [Composer(scenario(), folder) for folder in (write(plain, *BODIES), write(batch, *rows))]
    assert made[0].prepare(1) == made[1].prepare(1)


def timed(second: float, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"at {second}"}], "max_tokens": 3}
    return {"timestamp": f"2026-11-30T12:00:{second:06.3f}Z", "body": body, **more}


@pytest.mark.parametrize(("form", "unit"), [("iso", None), ("s", None), ("ms", "ms")])
def test_bodies_with_timestamps_are_sent_at_their_own_times(
    tmp_path: Path, form: str, unit: TimeUnit | None
) -> None:
    rows = [timed(second) for second in (0.5, 1.25, 2.0, 4.0)]
    if form != "iso":
        for row, at_s in zip(rows, (1.8e9 + 0.5, 1.8e9 + 1.25, 1.8e9 + 2, 1.8e9 + 4), strict=True):
            row["timestamp"] = at_s if form == "s" else round(at_s * 1000)
    write(tmp_path, *rows)
    arrivals = Trace(kind="trace", file="b.jsonl", start_s=0.5, speed=0.5, time_unit=unit)
    composer = Composer(scenario(arrivals=arrivals), tmp_path)
    sent = {
        arrival.at_s: (composer.prepare(arrival.index, arrival).body or {})["messages"][0]["content"]
        for arrival in schedule(arrivals, 10, 1, tmp_path)
    }
    assert sent == {0.5: "at 1.25", 2.0: "at 2.0", 6.0: "at 4.0"}


def test_sessions_of_recorded_requests_are_kept(tmp_path: Path) -> None:
    rows = [timed(0, chat_id=1, turn=1), timed(1, chat_id=2, parent_chat_id=1, turn=2)]
    arrivals = Trace(kind="trace", file="b.jsonl")
    composer = Composer(scenario(arrivals=arrivals), write(tmp_path, *rows))
    _, second = schedule(arrivals, 10, 1, tmp_path)
    prepared = composer.prepare(second.index, second)
    assert (prepared.after, prepared.turn) == (0, 2)


def test_recorded_headers_are_sent_without_credentials_and_those_of_bltybench(tmp_path: Path) -> None:
    headers = {"X-Tenant": "blue", "authorization": "Bearer x", "Cookie": "a", "Api-Key": "y", "Host": "h",
               "Content-Length": "3", "User-Agent": "curl", "x-title": "t"}  # fmt: skip
    composer = Composer(scenario(), write(tmp_path, timed(0, headers=headers), timed(1, headers=None)))
    assert composer.prepare(0).headers == (("X-Tenant", "blue"), ("x-title", "t"))
    assert composer.prepare(1).headers == ()


def test_target_headers_replace_recorded_ones() -> None:
    target = Target(base_url="http://127.0.0.1:1/v1", headers={"X-Tenant": "red"})
    (upstream,) = open_upstreams({"t": target}, 0, 1).values()
    recorded = (("x-tenant", "blue"), ("X-Title", "t"))
    sent = upstream.headers(None, None, recorded, stream=False)
    assert sent == (*upstream.headers(None, None, stream=False), ("X-Title", "t"))
    assert ("X-Tenant", "red") in sent


def test_models_are_mapped_by_name_and_the_others_by_the_star(tmp_path: Path) -> None:
    composer = Composer(scenario({"a": "x", "*": "y"}), write(tmp_path, *BODIES))
    assert [(composer.prepare(index).body or {})["model"] for index in range(3)] == ["x", "y", "y"]
    composer = Composer(scenario({"usual": "z"}), tmp_path)
    assert [(composer.prepare(index).body or {})["model"] for index in range(3)] == ["a", "z", "b"]


def test_estimates_use_the_tokens_choices_and_tools_of_each_body(tmp_path: Path) -> None:
    folder, used = write(tmp_path, *BODIES), scenario()
    prompts = [tokens.count_messages(body["messages"]) + tokens.count_definitions(body) for body in BODIES]
    estimate = mean_tokens(used, folder)
    assert estimate.prompt == pytest.approx(sum(prompts) / 3)
    assert estimate.answer == pytest.approx((7 + 2 * 5 + 3) / 3)
    assert least_tokens(used, folder) == min(prompts[0] + 7, prompts[2] + 3)


def test_trace_replays_bodies_with_their_own_lengths(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"at_s": 1, "prompt_tokens": 9000, "max_tokens": 9000}\n')
    folder = write(tmp_path, BODIES[0])
    traced = scenario().model_dump() | {"arrivals": {"kind": "trace", "file": "t.jsonl"}}
    target = Target(base_url="http://127.0.0.1:1/v1", budget=Budget(tokens=100))
    plan = make_plan("q", Scenario.model_validate(traced), "t", target, folder)
    assert (plan.requests, plan.answer_tokens) == (1, 7)


def test_token_budget_requires_a_bound_in_each_body(tmp_path: Path) -> None:
    unbounded = {"messages": [{"role": "user", "content": "Hi"}]}
    folder = write(tmp_path, BODIES[0], unbounded)
    target = Target(base_url="http://127.0.0.1:1/v1", budget=Budget(tokens=1000))
    with pytest.raises(UserError, match=r"b\.jsonl:2 \(scenarios\.q\.mix\[own\]\)"):
        make_plan("q", scenario(), "t", target, folder)
    requests_only = Target(base_url="http://127.0.0.1:1/v1", budget=Budget(requests=9))
    estimated = make_plan(
        "q", scenario(max_tokens={"tokens": 90, "kind": "fixed"}), "t", requests_only, folder
    )
    assert estimated.per_request.answer == (7 + 90) / 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "not an object"),
        ("7", "not an object"),
        ("{}", "no list of messages"),
        ('{"body": 7}', "not an object"),
        ('{"body": {"messages": []}}', "no list of messages"),
        ('{"messages": ["Hi"]}', "a message is not an object"),
        ('{"messages": [{}], "model": 5}', "model must be text"),
        ('{"messages": [{}], "stream": "yes"}', "stream must be true or false"),
        ('{"messages": [{}], "max_tokens": -1}', "max_tokens must be a positive integer"),
        ('{"messages": [{}], "max_tokens": true}', "max_tokens must be a positive integer"),
        ('{"messages": [{}], "seed": 36893488147419103232}', "has more than 64 bits"),
        ('{"messages": [{}], "top_p": NaN}', "must be a finite number"),
        ('{"messages": [{"content": "\\ud800"}]}', "half of a surrogate pair"),
        ('{"url": "/v1/embeddings", "body": {"messages": [{}]}}', "/v1/embeddings is not a chat completion"),
        ('{"method": "GET", "body": {"messages": [{}]}}', "is not a chat completion"),
        ('{"header": {}, "body": {"messages": [{}]}}', "unknown key 'header' next to body"),
        ('{"headers": ["a"], "body": {"messages": [{}]}}', "headers is not an object of texts"),
        ('{"headers": {"a": 1}, "body": {"messages": [{}]}}', "headers is not an object of texts"),
        ('{"headers": {"a b": "c"}, "body": {"messages": [{}]}}', "'a b' is not the name of a header"),
        ('{"headers": {"a": "\\n"}, "body": {"messages": [{}]}}', "the value of a must consist of printable"),
        ('{"messages"', "not valid JSON"),
    ],
)
def test_invalid_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(BODIES[0]) + "\n\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        Composer(scenario(), tmp_path)
    assert says in str(caught.value)
    assert f"{tmp_path / 'b.jsonl'}:3" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("stream", True), ("system", "Be brief"), ("body", {"top_p": 1}), ("temperature", 0.0)]
)
def test_keys_that_bodies_decide_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"remove {key}"):
        scenario(**{key: value})


def test_scenario_with_bodies_survives_the_way_to_a_worker() -> None:
    used = scenario({"a": "b"})
    assert Scenario.model_validate(used.model_dump(mode="json")) == used
