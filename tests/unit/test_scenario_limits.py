"""Documented limits in scenarios.toml and in the manifest: two forms, one meaning, clear mistakes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import msgspec
import pytest

from bltybench.errors import UserError
from bltybench.load.probe.options import read_task
from bltybench.runs.manifest import TargetInfo
from bltybench.scenario.api.documented_limits import (
    Limit,
    amounts,
    limits_on,
    one_limit,
    per_minute,
    usual_limits,
)
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.target import Target

LIMITS = """\
limits = [
    { what = "requests", limit = 10, per = "second" },
    { what = "requests", limit = 300, per = "minute" },
    { what = "tokens", limit = 40_000, per = "hour" },
    { what = "input_tokens", limit = 30_000, per = 30 },
    { what = "output_tokens", limit = 8_000, per = 0.5 },
    { what = "requests", limit = 14_400, per = "day" },
    { what = "concurrency", limit = 5 },
]
"""


def target(tmp_path: Path, limits: str) -> Target:
    path = tmp_path / "scenarios.toml"
    path.write_text(
        f'default_scenario = "q"\n[targets.mine]\nbase_url = "http://127.0.0.1:8910/v1"\n{limits}\n'
        '[scenarios.q]\ntitle = "t"\ntarget = "mine"\nmodel = "m"\nduration_s = 10\nusers = 2\n'
        'arrivals = { kind = "constant", rate_per_min = 60 }\nmix = [{ name = "a" }]\n'
    )
    return load_book(path).target("mine")


def test_list_of_limits_keeps_what_and_period_of_each(tmp_path: Path) -> None:
    assert [limit.words for limit in target(tmp_path, LIMITS).documented] == [
        "10 requests per second",
        "300 requests per minute",
        "40,000 tokens per hour",
        "30,000 input tokens per 30 s",
        "8,000 output tokens per 0.5 s",
        "14,400 requests per day",
        "5 in flight",
    ]


def test_short_form_means_the_same_as_the_list(tmp_path: Path) -> None:
    short = target(tmp_path, "limits = { requests_per_min = 60, tokens_per_min = 9000, concurrency = 4 }")
    long = target(
        tmp_path,
        'limits = [{ what = "requests", limit = 60, per = "minute" }, { what = "tokens", limit = 9000, '
        'per = 60 }, { what = "concurrency", limit = 4 }]',
    )
    assert short.documented == long.documented == usual_limits(60, 9000, 4)


def test_limits_survive_the_way_to_a_worker(tmp_path: Path) -> None:
    sent = target(tmp_path, LIMITS)
    received = Target.model_validate(sent.model_dump(mode="json"))
    assert received.documented == sent.documented != []


def test_target_without_limits_has_none(tmp_path: Path) -> None:
    assert target(tmp_path, "").documented == target(tmp_path, "limits = []").documented == []


PERIOD = 'must be "second", "minute", "hour", "day", or a number of seconds'


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ("5", "targets.mine.limits = 5: must be a table"),
        ("{ rpm = 5 }", "targets.mine.limits.rpm: unknown key; known: "),
        ("{ requests_per_mim = 5 }", "unknown key; did you mean 'requests_per_min'?"),
        ("{ requests_per_min = 0 }", "targets.mine.limits.requests_per_min = 0: must be greater than 0"),
        ("[5]", "targets.mine.limits[#1] = 5: must be a table"),
        ('[{ what = "requests", limit = 5 }]', "limits[#1]: a limit on requests needs a period, such as per"),
        ('[{ what = "concurrency", limit = 5, per = "day" }]', "concurrency has no period: remove per"),
        (
            '[{ what = "cats", limit = 5, per = "day" }]',
            "limits[#1].what = \"cats\": must be one of 'requests'",
        ),
        ('[{ what = "requests", per = "day" }]', "targets.mine.limits[#1].limit: is missing"),
        ('[{ what = "requests", limit = 2.5, per = "day" }]', "limits[#1].limit = 2.5: must be an integer"),
        ('[{ what = "requests", limit = 5, per = "week" }]', f'limits[#1].per = "week": {PERIOD}'),
        ('[{ what = "requests", limit = 5, per = true }]', f"limits[#1].per = true: {PERIOD}"),
        ('[{ what = "requests", limit = 5, per = 0 }]', "limits[#1].per = 0: must be more than 0"),
        ('[{ what = "requests", limit = 5, per = nan }]', "limits[#1].per = nan: must be more than 0"),
        ('[{ what = "requests", limt = 5, per = 1 }]', "limits[#1].limt: unknown key; did you mean 'limit'?"),
    ],
)
def test_mistake_in_limits_names_its_key(tmp_path: Path, limits: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        target(tmp_path, f"limits = {limits}")
    assert says in str(caught.value)


def test_limits_of_older_manifests_are_read() -> None:
    old = b'{"name":"a","base_url":"http://h/v1","requests_per_min":60,"tokens_per_min":null,"concurrency":5}'
    assert msgspec.json.decode(old, type=TargetInfo).documented == usual_limits(60, None, 5)
    new = TargetInfo(name="a", base_url="http://h/v1", limits=[Limit("input_tokens", 7, 1.0)])
    written = msgspec.json.encode(new)
    assert b"requests_per_min" not in written
    assert msgspec.json.decode(written, type=TargetInfo).documented == new.limits


def test_limits_are_found_by_what_they_count() -> None:
    daily, minutely, slots = Limit("requests", 5, 86_400), Limit("requests", 60, 60), Limit("concurrency", 3)
    limits = [daily, slots, minutely]
    assert limits_on(limits, "requests") == [minutely, daily]
    assert (per_minute(limits, "requests"), per_minute(limits, "concurrency")) == (60, 3)
    assert per_minute([daily], "requests") is per_minute(limits, "tokens") is None
    assert one_limit(limits, "requests") == minutely
    assert one_limit([daily, Limit("requests", 9, 1)], "requests") == Limit("requests", 9, 1)
    assert one_limit([slots], "requests") is None
    assert amounts([minutely, Limit("output_tokens", 8, 1)]) == "60 per minute, 8 output tokens per second"


@pytest.mark.parametrize(
    ("limits", "period_s", "per_min"),
    [
        ('[{ what = "requests", limit = 10, per = "second" }]', 1.0, None),
        ('[{ what = "requests", limit = 10, per = "day" }]', None, None),
        ("{ requests_per_min = 60 }", None, 60),
        (
            '[{ what = "requests", limit = 9, per = 1 }, { what = "tokens", limit = 9, per = "minute" }]',
            None,
            None,
        ),
    ],
)
def test_probe_expects_the_documented_period_if_nothing_else_is_documented_per_minute(
    tmp_path: Path, limits: str, period_s: float | None, per_min: int | None
) -> None:
    options = Namespace(
        probe_ask="requests", quick=True, probe_budget=9, probe_tokens=9, probe_period=None, probe_model="",
        probe_second_key_env="",
    )  # fmt: skip
    task = read_task(options, target(tmp_path, f"limits = {limits}"))
    assert (task.period_s, task.requests_per_min) == (period_s, per_min)
    options.probe_period = 7.0
    assert read_task(options, target(tmp_path, f"limits = {limits}")).period_s == 7
