"""Lists of keys, models, and targets: how they are read, and which of their entries a call uses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.scenario.api.routes import Choices, Route, Router
from bltybench.scenario.api.weights import read_variables, read_weights
from bltybench.scenario.file.resolve import for_probe, resolve
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.plan import make_plans
from bltybench.scenario.target import Target
from bltybench.scenario.workload import Scenario

FILE = """
default_scenario = "q"
[targets.a]
base_url = "http://127.0.0.1:8000/v1"
keys = {{ A_KEY = 3, B_KEY = 1 }}
{target}
[targets.b]
base_url = "http://127.0.0.1:8001/v1"
prices = {{ m = {{ input_per_million = 1, output_per_million = 2 }} }}
[scenarios.q]
title = "t"
duration_s = 60
users = 5
arrivals = {{ kind = "constant", rate_per_min = 200 }}
{scenario}
[[scenarios.q.mix]]
name = "x"
prompt_tokens = {{ kind = "fixed", tokens = 100 }}
max_tokens = {{ kind = "fixed", tokens = 10 }}
{call}
"""


def write(folder: Path, scenario: str, target: str = "", call: str = "") -> Path:
    path = folder / "scenarios.toml"
    path.write_text(FILE.format(scenario=scenario, target=target, call=call))
    return path


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must have 1 to 100 entries"),
        ({}, "must have 1 to 100 entries"),
        (["a", "a"], "has the same entry twice"),
        (["a", ""], "must be a list of names"),
        (["a", 1], "must be a list of names"),
        ("a", "must be a list"),
        (True, "must be a list"),
        ({"a": 0}, "each weight must be a number above 0"),
        ({"a": -1}, "each weight must be a number above 0"),
        ({"a": True}, "each weight must be a number above 0"),
        ({"a": float("nan")}, "each weight must be a number above 0"),
        ({"gpt-4": {"1": 3}}, "a name with a dot must be in quotes"),
        ([str(number) for number in range(101)], "must have 1 to 100 entries"),
    ],
)
def test_list_of_another_form_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_weights(value)


def test_key_instead_of_its_variable_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    for keys in ('["sk-live-123", "B"]', '{ "sk-live-123" = 1 }'):
        path.write_text(f'[targets.x]\nbase_url = "http://127.0.0.1:1/v1"\nkeys = {keys}\n[scenarios]\n')
        with pytest.raises(UserError) as caught:
            load_book(path)
        assert "targets.x.keys: must be names of environment variables" in str(caught.value)
        assert "sk-live" not in str(caught.value)
    with pytest.raises(ValueError, match="names of environment variables"):
        read_variables(["sk-live-123"])


@pytest.mark.parametrize(
    ("scenario", "target", "message"),
    [
        ('model = "m"\nmodels = ["m", "n"]', "", "scenarios.q: set model or models, not both"),
        (
            'model = "m"\ntarget = "a"\ntargets = ["a", "b"]',
            "",
            "scenarios.q: set target or targets, not both",
        ),
        ('models = ["m"]\ntargets = ["a", "c"]', "", 'scenarios.q.targets = "c": no such target'),
        ("models = []", "", "scenarios.q.models: must have 1 to 100 entries"),
        ('model = "m"\nretry = { fallback = ["c"] }', "", 'scenarios.q.retry.fallback = "c": no such target'),
        ('model = "m"\nretry = { fallback = [] }', "", "must be true, false, or a list of targets"),
        ('model = "m"\nretry = { fallback = ["b", "b"] }', "", "names the same target twice"),
        ('model = "m"', 'api_key_env = "C"', "set api_key_env for one key or keys for several, not both"),
        ('model = "m"', 'headers = { authorization = "x" }', "headers and keys set the same header"),
        ('target = "a"', "", "scenarios.q.model: is missing"),
    ],
)
def test_mistake_in_a_list_is_named_with_its_key(
    tmp_path: Path, scenario: str, target: str, message: str
) -> None:
    if "target" not in scenario:
        scenario = f'target = "a"\n{scenario}'
    with pytest.raises(UserError) as caught:
        load_book(write(tmp_path, scenario, target))
    assert message in str(caught.value)


def test_unset_key_is_named_with_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-a")
    monkeypatch.delenv("B_KEY", raising=False)
    target = Target.model_validate({"base_url": "http://127.0.0.1:1/v1", "keys": ["A_KEY", "B_KEY"]})
    with pytest.raises(UserError, match="target 'pool' needs an API key, but B_KEY is not set"):
        target.access("pool")
    monkeypatch.setenv("B_KEY", "sk-b")
    access = target.access("pool")
    assert [*access.keys] == ["A_KEY", "B_KEY"]
    assert {"sk-a", "sk-b"} <= set(access.secrets)
    assert target.secret_variables == {"A_KEY", "B_KEY"}
    assert "sk-" not in repr(access)


def test_lists_survive_the_way_to_a_worker_and_an_override_of_the_target(tmp_path: Path) -> None:
    lists = 'targets = { a = 3, b = 1 }\nmodels = ["m", "n"]\nretry = { fallback = ["b"] }'
    book = load_book(write(tmp_path, lists, call='models = ["k"]'))
    resolved = resolve(book)
    assert list(resolved.targets) == ["a", "b"]
    scenario = resolved.scenario
    assert (scenario.target, scenario.model) == ("a", "m")
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
    assert scenario.choices(scenario.mix[0]) == Choices({"a": 3.0, "b": 1.0}, {"k": 1.0})
    assert scenario.models_on("b") == ["k"]
    only = resolve(book, target="b")
    assert list(only.targets) == ["b"]
    assert only.scenario.retry.fallback is False
    with pytest.raises(UserError, match="is one address, but scenario 'q' has several targets"):
        resolve(book, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="the probe measures the limits of one target and one model"):
        for_probe(resolved)
    only_a = resolve(load_book(write(tmp_path, 'target = "a"\nmodel = "m"')))
    assert for_probe(only_a).target.keys == {"A_KEY": 1.0}
    with pytest.raises(ValidationError, match="set model or models, not both"):
        Scenario.model_validate(scenario.model_dump() | {"model": "other"})


def test_plan_divides_requests_and_prices_among_targets(tmp_path: Path) -> None:
    lists = 'targets = { a = 3, b = 1 }\nmodel = "m"'
    resolved = resolve(load_book(write(tmp_path, lists)))
    plans = make_plans(resolved.name, resolved.scenario, resolved.targets, resolved.base_dir)
    a, b = plans["a"], plans["b"]
    assert a is not None
    assert b is not None
    assert (a.requests, b.requests) == (150, 50)
    assert a.money is None
    assert b.money == pytest.approx(50 * (100 * 1 + 10 * 2) / 1e6)


def test_fallback_without_another_entry_is_refused_unless_the_command_line_chose_one(tmp_path: Path) -> None:
    path = write(tmp_path, 'target = "b"\nmodel = "m"\nretry = { fallback = true }')
    with pytest.raises(UserError, match="there is nothing to fall back to"):
        resolve(load_book(path))
    assert resolve(load_book(path), target="b").scenario.retry.fallback is True


def test_target_that_is_only_fallen_back_to_has_no_plan(tmp_path: Path) -> None:
    lists = 'target = "a"\nmodel = "m"\nretry = { fallback = ["b"] }'
    resolved = resolve(load_book(write(tmp_path, lists)))
    plans = make_plans(resolved.name, resolved.scenario, resolved.targets, resolved.base_dir)
    assert plans["b"] is None
    assert resolved.scenario.models_on("b") == ["m"]


KEYS = {"a": {"A": 3.0, "B": 1.0}, "b": {}}
BOTH = Choices({"a": 1.0, "b": 1.0}, {"m": 1.0, "n": 1.0})


def test_each_entry_is_drawn_as_often_as_its_weight_says_and_by_any_process_alike() -> None:
    first, second = Router(7, KEYS), Router(7, KEYS)
    routes = [first.routes(BOTH, str(index)) for index in range(4000)]
    # In another order, as by several workers.
    again = {index: second.routes(BOTH, str(index)) for index in reversed(range(4000))}
    assert routes == [again[index] for index in range(4000)]
    assert {len(chain) for chain in routes} == {1}
    drawn = Counter(chain[0] for chain in routes)
    assert drawn[Route("a", "A", "m")] == pytest.approx(4000 * 3 / 16, rel=0.15)
    assert drawn[Route("b", None, "n")] == pytest.approx(4000 / 4, rel=0.15)
    assert [Router(8, KEYS).routes(BOTH, str(index)) for index in range(99)] != routes[:99]


def test_fallback_tries_the_other_keys_first_then_targets_then_models() -> None:
    router = Router(1, KEYS, fallback=True)
    chain = next(
        chain
        for chain in (router.routes(BOTH, str(index)) for index in range(99))
        if chain[0] == Route("a", "B", "n")
    )
    assert chain == [
        Route("a", "B", "n"),
        Route("a", "A", "n"),
        Route("b", None, "n"),
        Route("a", "B", "m"),
        Route("a", "A", "m"),
        Route("b", None, "m"),
    ]


def test_fallback_to_named_targets_keeps_the_model() -> None:
    router = Router(1, KEYS, fallback=("b", "a"))
    assert router.routes(Choices({"b": 1.0}, {"m": 1.0, "n": 1.0}), "0")[0].target == "b"
    chain = router.routes(Choices({"b": 1.0}, {"m": 1.0}), "0")
    assert chain == [Route("b", None, "m"), Route("a", "A", "m"), Route("a", "B", "m")]
