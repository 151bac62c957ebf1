"""The answer and the advice at the top of a page."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import msgspec
import pytest
from support_runs import S, attempt, generator_seconds, manifest, write_run

from bltybench.limits.models import Banned, FixedWindow, SlidingLog
from bltybench.metrics.analysis import load
from bltybench.metrics.rates import token_events, tokens_in_best
from bltybench.report.glossary import MARKED, TERMS, gloss
from bltybench.report.page.answer import PageAnswer, answer, client_advice
from bltybench.report.page.limits_section import limits_section
from bltybench.report.summary import summarize
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.folder import RunFolder
from bltybench.runs.trials.search import SearchResult, read_search

REFUSED = {"outcome": Outcome.RATE_LIMITED, "status": 429}


def answered(folder: RunFolder) -> tuple[PageAnswer, dict[str, str]]:
    """Return the answer of a run, and its advice by topic."""
    summary = msgspec.structs.replace(summarize(load(folder)), search=read_search(folder))
    limits = limits_section(folder, draw=False)
    found = answer(summary, limits)
    return found, dict(client_advice(summary, limits, trusted=found.trusted))


def run(path: Path, attempts: list[Attempt], *, seconds: int = 120) -> RunFolder:
    about = manifest(resolved=manifest().resolved | {"checks": {}})
    return write_run(path / "made", attempts, seconds=generator_seconds(seconds), about=about)


def windowed(refused_s: float = 0.01) -> list[Attempt]:
    """Three requests per second to a window of 60 per 60 s."""
    model = FixedWindow(60, 60.0)
    rows: list[Attempt] = []
    for i in range(480):
        at_ns = i * S // 3
        accepted = model.decide(at_ns / S).accepted
        outcome = {} if accepted else REFUSED | {"end_ns": at_ns + int(refused_s * S)}
        rows.append(attempt(call_id=f"c{i}", sent_ns=at_ns, **outcome))
    return rows


def test_answer_names_the_limit_of_each_target_and_how_many_are_unknown(tmp_path: Path) -> None:
    limited = [msgspec.structs.replace(one, target="one") for one in windowed()]
    idle = [attempt(call_id=f"i{i}", target="two", sent_ns=i * S) for i in range(20)]
    folder = run(tmp_path, [*limited, *idle], seconds=170)
    found, advice = answered(folder)
    limits, pace = found.says.split("; ")[:2]
    assert limits == "Each target has limits of its own: one 60 requests per 60 s, 1 still unknown"
    assert pace == "pace each target by itself"
    assert advice["Rate"].startswith("one: at most 60 requests per minute")
    section = limits_section(folder)
    assert section is not None
    assert section.rows[0][0] == "one: Requests"
    assert section.drawings == []


def test_answer_states_limit_pace_and_speed_in_one_sentence(tmp_path: Path) -> None:
    found, advice = answered(run(tmp_path, windowed(), seconds=170))
    assert found.trusted
    assert found.says.startswith("The server accepts 60 requests per 60 s (")
    assert (
        "; send at most 60 requests per minute, one every 1 s; half of the calls take at most" in found.says
    )
    assert found.says.count(".") == 1
    assert advice["Rate"].startswith("at most 60 requests per minute, one every 1 s")
    assert next(iter(advice)) == "Rate"


@pytest.mark.parametrize("first_s", [0.8, 17.0])
def test_answer_and_pace_agree_if_windows_may_start_at_the_first_request(
    first_s: float, tmp_path: Path
) -> None:
    """Only one window ends in the run, at second 50. A window from the first request would be shorter."""
    model, rows = FixedWindow(60, 60.0, 50.0), []
    for i in range(240):
        at_s = first_s + i / 2.6
        refused = {} if model.decide(at_s).accepted else REFUSED
        took_s = 0.01 if refused else 0.2
        sent = round(at_s * S)
        rows.append(attempt(call_id=f"c{i}", sent_ns=sent, end_ns=sent + round(took_s * S), **refused))
    found, advice = answered(run(tmp_path, rows, seconds=120))
    says = re.match(r"The server accepts (?:at least )?([\d.]+) requests per (minute|60 s)", found.says)
    pace = re.search(r"send at most ([\d.]+) requests per minute", found.says)
    assert says is not None, found.says
    assert pace is not None
    assert says[1] == pace[1]
    assert advice["Rate"].startswith(f"at most {pace[1]} requests per minute")


def test_run_whose_refusals_restart_a_ban_says_to_send_nothing_while_refused(tmp_path: Path) -> None:
    model, rng, rows, at_s = Banned(SlidingLog(12, 10.0), 20.0, restarts=True), Random(1), [], 0.0
    for i in range(350):
        accepted = model.decide(at_s).accepted
        sent = round(at_s * S)
        rows.append(
            attempt(call_id=f"c{i}", sent_ns=sent, end_ns=sent + S // 50, **({} if accepted else REFUSED))
        )
        at_s += rng.uniform(0.1, 0.4) if accepted else rng.choice([3.0, 8.0, 14.0, 19.6, 20.5, 27.0])
    found, advice = answered(run(tmp_path, rows, seconds=round(at_s) + 1))
    assert "A refusal starts a ban of up to 20.5 s" in found.says
    assert "and nothing while refused" in found.says
    assert "each refusal restarts the ban" in advice["Early retries"]
    assert advice["Rate"].endswith("A refusal starts a ban.")


def test_run_without_refusals_says_so_as_its_answer(tmp_path: Path) -> None:
    found, advice = answered(run(tmp_path, [attempt(call_id=f"c{i}", sent_ns=i * S) for i in range(30)]))
    assert found.says.startswith(
        "Nothing was refused: the server accepted all 30 requests, at most 30 in 60 s (of the documented 60)"
    )
    assert "this run does not show the limit that is enforced" in advice["Rate"]
    assert "does not test that" in advice["After a refusal"]


def test_run_of_few_streams_is_as_fast_as_its_tile_says(tmp_path: Path) -> None:
    times = {"stream": True, "first_token_ns": S // 5, "last_token_ns": S // 4, "gaps_us": (50_000,)}
    rows = [attempt(call_id=f"c{i}", end_ns=S // 2, **times) for i in range(8)]
    found, _ = answered(run(tmp_path, rows))
    assert found.says.endswith("; the slowest first token of 8 streams took 200 ms.")


def test_search_whose_trials_fit_into_a_burst_advises_the_limit(tmp_path: Path) -> None:
    """A load that only a short trial sustains must not be the advice."""
    folder = run(tmp_path, windowed(), seconds=170)
    search = SearchResult(
        load="rate", objectives={}, precision=0.05, confirm=2, holds=90.0, fails=95.0, ended="found",
        requests=400, trials=[],
    )  # fmt: skip
    folder.search_json.write_bytes(msgspec.json.encode(search))
    found, advice = answered(folder)
    assert (found.title or "").startswith("60 requests per 60 s")
    assert "send at most 60 requests per minute" in found.says
    assert "only short trials met the objectives at 90 calls per minute" in found.says
    assert advice["Rate"].startswith("at most 60 requests per minute")


@pytest.mark.parametrize("refusals", [1, 9])
def test_handful_of_refusals_gives_no_measured_limit(refusals: int, tmp_path: Path) -> None:
    rows = [attempt(call_id=f"c{i}", sent_ns=i * S // 10, end_ns=i * S // 10 + S // 20) for i in range(756)]
    for i in range(refusals):
        at_ns = (7 * i + 5) * S + S // 50
        rows.append(attempt(call_id=f"r{i}", sent_ns=at_ns, end_ns=at_ns + S // 100, **REFUSED))
    found, advice = answered(run(tmp_path, rows))
    assert f"refused {refusals} of {len(rows)} requests by a limit that is still unknown" in found.says
    assert any("too few: at least 10 are needed" in line for line in found.open)
    assert "as documented" in advice["Rate"]
    assert "Burst" not in advice


def test_invalid_run_gives_the_fix_and_no_advice(tmp_path: Path) -> None:
    about = manifest(ended_ns=None, ended=None)
    folder = write_run(tmp_path / "made", [attempt()], seconds=generator_seconds(90), about=about)
    found, advice = answered(folder)
    assert not found.trusted
    assert found.says.startswith("This run does not describe the server: repeat the run")
    assert advice == {}


def test_tokens_in_and_out_add_up_to_the_best_minute(tmp_path: Path) -> None:
    """The best 60 s of prompts, of completions, and of both are three different windows here."""
    rows = [
        attempt(call_id="a", sent_ns=0, end_ns=S, prompt_tokens=100, completion_tokens=1),
        attempt(call_id="b", sent_ns=70 * S, end_ns=71 * S, prompt_tokens=60, completion_tokens=60),
        attempt(call_id="c", sent_ns=140 * S, end_ns=141 * S, prompt_tokens=1, completion_tokens=90),
    ]
    analysis = load(run(tmp_path, rows))
    prompt, completion = tokens_in_best(token_events(analysis.attempts))
    assert (prompt, completion) == (60, 60)
    assert prompt + completion == analysis.best_of("total_tokens")


def test_terms_have_tooltips_and_other_text_is_escaped() -> None:
    assert gloss("TTFT <b>") == f'<abbr title="{TERMS["TTFT"]}">TTFT</abbr> &lt;b&gt;'
    assert all("<abbr" in gloss(f"the {term.upper()}, p99") for term in MARKED)
    assert "<abbr" not in gloss("NOTTFT")
