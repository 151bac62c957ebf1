"""The page about the limiters: docs/limits-live.md."""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.limiters.judge import NOTHING_TO_FIND, REQUEST_LIMIT, JudgedQuestion
from benchmarks.limiters.truth import Limiter, Setting
from bltybench.limits.findings.model import ProportionRecord

PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits-live.md"
REGISTRIES = ("PyPI", "npm", "Debian")


@dataclass(frozen=True, slots=True)
class Probed:
    """The judged result of one probe."""

    limiter: Limiter
    setting: Setting
    judged: tuple[JudgedQuestion, ...]
    requests: int
    seconds: float
    replayed: ProportionRecord | None
    replay_passed: bool | None
    stopped: str | None
    """Why the probe ended early."""


INTRODUCTION = """\
# The probe against limiters of other projects

Made by `python -m benchmarks.limiters`: the full probe over sockets against limiters from PyPI, npm, and
Debian, each in front of a small chat API on the same machine. Their refusals and headers reach the probe
unchanged. The right answers follow from the source or the documentation of each limiter, and are in
[benchmarks/limiters](../benchmarks/limiters).

Each limiter is probed at two settings. At the first, the probe knows nothing, and is not asked about
tokens. At the second, it is given the period (`--probe-period`) and asked everything. None of them limits
tokens, so the answers about tokens show only that the probe finds no such limit. A server starts at most
seconds before the probe.

- *Right*: the right algorithm with the right limit and period, or the right answer to another question. If
  there is nothing to find, such as a token limit, *cannot tell* is right.
- *Abstained*: no answer, several families, or a range wider than 20%. Some limiters decide as no modeled
  family does: there, *abstained* is expected, and a family is *right* only if the replay passes.
- *Wrong*: anything else.
- *Replay*: the fraction of the run's own decisions that the written `limits.toml` makes too. It passes at
  99%; below, the file says so. A dash means that the file has no request limit.
"""


def page(results: Sequence[Probed]) -> str:
    """Return the page."""
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    conditions = f"Measured on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {system}."
    parts = [INTRODUCTION, conditions, summary(results), ""]
    parts += [_limiters(results), _questions(results), _not_right(results)]
    return "\n".join(parts).rstrip() + "\n"


def summary(results: Sequence[Probed]) -> str:
    """Return the totals."""
    total = max(1, len(results))
    replays = [one.replay_passed for one in results if one.replay_passed is not None]
    judged = [question for one in results for question in one.judged]
    limits = [question for question in judged if question.question == REQUEST_LIMIT]
    existing = [question for question in judged if NOTHING_TO_FIND not in question.truth]
    return (
        f"{len(results)} probes of {len({one.limiter.name for one in results})} limiters.\n"
        f"All answers: {counts(results)}.\n"
        f"If there was something to find: {_counted(existing)}.\n"
        f"Request limit: {_counted(limits)}.\n"
        f"Replay: {sum(replays)} of {len(replays)} files passed.\n"
        f"Mean cost: {sum(one.requests for one in results) / total:.0f} requests and "
        f"{sum(one.seconds for one in results) / total:.0f} s per probe."
    )


def counts(results: Sequence[Probed]) -> str:
    """Return how many answers are right, abstained, and wrong."""
    return _counted([question for one in results for question in one.judged])


def details(results: Sequence[Probed]) -> str:
    """Return what is wrong, and every replay that failed, one per line."""
    lines = [
        f"WRONG {_title(one)}: {question.question}: expected {question.truth}, said: {question.said}"
        for one in results
        for question in one.judged
        if question.judged == "wrong"
    ]
    lines += [f"REPLAY {_title(one)}: {_replay(one)}" for one in results if one.replay_passed is False]
    lines += [f"STOPPED {_title(one)}: {one.stopped}" for one in results if one.stopped]
    return "\n".join(lines)


def _title(one: Probed) -> str:
    return f"{one.limiter.name} ({one.setting.limit} per {one.setting.period_s} s)"


def _counted(judged: Sequence[JudgedQuestion]) -> str:
    counter = Counter(question.judged for question in judged)
    return ", ".join(f"{name} {counter[name]}" for name in ("right", "abstained", "wrong"))


def _limiters(results: Sequence[Probed]) -> str:
    lines: list[str] = []
    for registry in REGISTRIES:
        lines += [
            f"## {registry}",
            "",
            "| limiter | setting | request limit | reported | right | abstained | wrong | replay "
            "| requests | s |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        of_registry = [one for one in results if one.limiter.registry == registry]
        for one in sorted(of_registry, key=lambda one: (one.limiter.name, one.setting)):
            counter = Counter(question.judged for question in one.judged)
            setting = f"{one.setting.limit} per {one.setting.period_s} s"
            if one.limiter.concurrency:
                setting = f"{one.setting.limit} in flight"
            limit = one.judged[0]
            cells = [one.limiter.name, setting, limit.judged, _cell(limit.said)]
            cells += [str(counter[name] or "") for name in ("right", "abstained", "wrong")]
            cells += [_replay(one), str(one.requests), f"{one.seconds:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _replay(one: Probed) -> str:
    if one.replay_passed is None or one.replayed is None:
        return "–"
    # Rounded down, so that 99% is not shown for less.
    return f"{int(1000 * one.replayed.count / one.replayed.of) / 10:g}%"


def _questions(results: Sequence[Probed]) -> str:
    names = list(dict.fromkeys(question.question for one in results for question in one.judged))
    lines = [
        "## Questions",
        "",
        "| question | answers | right | abstained | wrong |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        counter = Counter(
            question.judged for one in results for question in one.judged if question.question == name
        )
        cells = [str(counter[judged] or "") for judged in ("right", "abstained", "wrong")]
        lines.append(f"| {name} | {counter.total()} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _not_right(results: Sequence[Probed]) -> str:
    lines = ["## Wrong answers", "", "| limiter | question | right answer | reported |", "|---|---|---|---|"]
    wrong = [
        f"| {_title(one)} | {question.question} | {question.truth} | {_cell(question.said)} |"
        for one in results
        for question in one.judged
        if question.judged == "wrong"
    ]
    lines = [*lines, *wrong] if wrong else [*lines[:2], "None."]
    sources = ["", "## Sources", "", "| limiter | package | source | family |", "|---|---|---|---|"]
    for limiter in dict.fromkeys(one.limiter.name for one in results):
        found = next(one.limiter for one in results if one.limiter.name == limiter)
        families = ", ".join(found.families).replace("_", " ") or "none"
        if found.concurrency:
            families = "concurrency limit"
        source = f"{found.source}; {found.remark}" if found.remark else found.source
        sources.append(f"| {found.name} | {found.package} | {_cell(source)} | {families} |")
    return "\n".join([*lines, *sources])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
