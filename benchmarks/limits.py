"""Measure how often the probe identifies a limiter: families, parameters, and noise, in virtual time.

python -m benchmarks.limits --cases 2000 --seconds 200 --results FILE    resumes an earlier run
python -m benchmarks.limits --results FILE --write                       writes docs/limits-accuracy.md
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from benchmarks import case_runner
from benchmarks.case_runner import PAGE
from benchmarks.limit_cases import KINDS, KINDS_OF, Case, play

PLANS = {
    "quick": "The quick plan",
    "announced": "The quick plan, given only headers",
    "full": "The full plan",
    "pairs": "Two limits at once, the full plan",
    "strangers": "Unmodeled limiters, the full plan",
}
FIRST_CASE = 8_000_000
"""Default first case. Cases from here on are not used to develop the fit."""


def main() -> None:
    """Play the missing cases, and print or write the page."""
    parser = case_runner.parser(__doc__, FIRST_CASE)
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=PLANS, help="plans to play. Default: all")
    parser.add_argument(
        "--kind", choices=KINDS, help="only this kind of limiter, with the quick or full plan"
    )
    options = parser.parse_args()
    play_kind = partial(play, kind=options.kind)
    numbers = range(options.first, options.first + options.cases)
    keys = [(number, plan) for number in numbers for plan in options.plan]
    cases = case_runner.results(options, Case, play_kind, keys, lambda case: (case.number, case.plan))
    text = page(cases)
    print(text)
    if options.write:
        PAGE.write_text(text + "\n", encoding="utf-8")


INTRODUCTION = """# How often the probe is right

Made by `python -m benchmarks.limits`: simulated limiters behind a simulated network, in virtual time. Limits
range from 5 to 60 requests and periods from 1 to 63 s, half of them round numbers. Latencies range from 2 to
200 ms with lognormal jitter. Clocks differ by up to 0.2 s, and half of the cases lose 2% of the responses.

- *Right*: the probe names one family, the actual one. The actual limit is in the reported range, and the
  period is in its range or within 2%.
- *Abstained*: the probe names several families that include the actual one, or it names none and gives the
  reason, or the period's range is wider than 20% to either side.
- *Wrong*: anything else.

The quick plan is given a limit and a period, one of which is wrong in a third of the cases. It has to
distinguish classes of algorithms only, so it is also right if it names several alignments of the right
class. The full plan is given neither. Given only headers, the quick plan reads a window or resets from them,
or nothing. Half of the headers are false, by a factor of 0.1 to 6.

Of two limits at once, the period of the long one is 5 to 60 times that of the short one. Each was hit if it
refused at least three requests that the other would have accepted. *Right* then names both, with their
parameters. If only one was hit, *right* is this one.

No family is right for an unmodeled limiter: a ban, several limits in one, or a quota shared with other
clients. There, *abstained* is the expected result. *Right* is a model that predicts 97% of the decisions on
other traffic, for example if only one of two limits ever binds. A ban is right if the limiter bans, and the
ban's length, its limit, the limit's period, and whether refusals extend the ban are in the reported ranges.

The seeds are not those used to develop the fit. Two limitations: a sequential client can reach each limit
within a fifth of a period, and no other client uses the quota. With fewer than a thousand cases of a plan,
the rate of wrong results is not bounded below 0.5%."""


def page(cases: Sequence[Case]) -> str:
    """Return the page about these cases."""
    sections = [_section(plan, [case for case in cases if case.plan == plan]) for plan in PLANS]
    return "\n".join([INTRODUCTION, *sections])


def _section(plan: str, cases: Sequence[Case]) -> str:
    names = sorted({case.named for case in cases})
    numbers, requests = [case.number for case in cases], [case.requests for case in cases]
    total = max(1, len(cases))
    lines = [
        "",
        f"## {PLANS[plan]}: {len(cases)} cases",
        "",
        f"{case_runner.summary(cases)}; {sum(requests) / total:.0f} requests per case, maximum "
        f"{max(requests, default=0)}; {sum(case.busy_s for case in cases) / total:.0f} s per case; "
        f"seeds {min(numbers, default=0)} to {max(numbers, default=0)}; "
        f"{sum(case.took_s for case in cases) / total:.1f} s of CPU time per case.",
        "",
        "| actual \\\\ named | " + " | ".join(name.replace("_", " ") for name in names) + " | wrong |",
        "|---" * (len(names) + 2) + "|",
    ]
    kinds = KINDS_OF.get(plan, list(KINDS))
    for kind in [*kinds, *(f"{kind} (one was hit)" for kind in kinds if plan == "pairs")]:
        of_kind = [case for case in cases if case.kind == kind]
        if not of_kind and kind not in kinds:
            continue
        counts = Counter(case.named for case in of_kind)
        wrong = sum(case.judged == "wrong" for case in of_kind)
        cells = [kind, *(str(counts[name] or "") for name in names), str(wrong or "")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
