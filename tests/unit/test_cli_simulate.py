"""``bltybench simulate`` and the options that it shares with ``bltybench sandbox``: bad values, output."""

from __future__ import annotations

import sys

import msgspec
import pytest

from bltybench.cli import main
from bltybench.policies.tournament import SimulatedTournament

HUGE = "9" * 30


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bltybench", *arguments])
    return main()


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "-inf", "x", "", HUGE])
@pytest.mark.parametrize(
    "option",
    [
        "simulate --requests",
        "simulate --period-s",
        "simulate --clients",
        "simulate --calls",
        "simulate --users",
        "simulate --duration-s",
        "simulate --max-attempts",
        "simulate --response-s",
        "simulate --need",
        "simulate --policy",
        "simulate --pacing",
        "simulate --limiter",
        "simulate --limits",
        "simulate --run",
        "simulate --scenario-file",
        "sandbox --requests",
        "sandbox --tokens",
        "sandbox --concurrency",
        "sandbox --period-s",
        "sandbox --port",
    ],
)
def test_bad_value_ends_with_a_message_that_names_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    command, name = option.split()
    assert run(monkeypatch, command, name, value) == 2
    output = capsys.readouterr()
    assert not output.out
    files = {"--limits", "--run", "--scenario-file", "--clients"}
    assert name in files or name in output.err


def test_output_that_is_not_for_a_terminal_has_whole_lines_and_the_figures_of_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    chosen = ("simulate", "quickstart", "--policy", "decorrelated_jitter", "--pacing", "token_bucket")
    assert run(monkeypatch, *chosen) == 0
    sentence, _, limits, optimum, _, row = capsys.readouterr().out.splitlines()
    assert run(monkeypatch, *chosen, "--json") == 0
    made = msgspec.json.decode(capsys.readouterr().out, type=SimulatedTournament)
    (limiter,) = made.limiters
    (result,) = limiter.results
    assert [sentence, limits, optimum] == [made.sentence(), limiter.sentence(), limiter.optimum_sentence()]
    cells = row.split()
    assert cells[:5] == [result.policy, result.pacing, f"{result.calls}", f"{result.ok}", f"{result.gave_up}"]
    figures = [
        result.goodput_per_min,
        result.refusals_per_success,
        result.wasted_tokens,
        result.success_p50_s,
    ]
    assert [float(cell.replace(",", "")) for cell in cells[6:10]] == pytest.approx(figures, abs=0.051)


def test_needed_limits_have_whole_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    chosen = ("--policy", "decorrelated_jitter", "--pacing", "token_bucket", "--limiter", "first_hit_counter")
    assert run(monkeypatch, "simulate", "quickstart", *chosen, "--need", "gave_up <= 0 %") == 0
    *_, row = capsys.readouterr().out.splitlines()
    assert row.split()[:3] == ["first_hit_counter", "decorrelated_jitter", "token_bucket"]
    assert len(row.split()) == 6
