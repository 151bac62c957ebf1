"""Measure how often the probe answers its other questions correctly, in virtual time.

python -m benchmarks.limit_questions --cases 400 --seconds 170 --results FILE    resumes an earlier run
python -m benchmarks.limit_questions --results FILE --show                       prints the wrong answers
python -m benchmarks.limit_questions --results FILE --write                      docs/limits-accuracy.md
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from benchmarks import case_runner
from benchmarks.case_runner import PAGE
from benchmarks.question_cases import JudgedAnswer, Value, play

FIRST_CASE = 13_000_000
"""Default first case. Cases from here on are not used to develop the experiments."""
HEADING = "## The other questions: "


def main() -> None:
    """Play the missing cases, and print or write the section."""
    options = case_runner.parser(__doc__, FIRST_CASE).parse_args()
    keys = [(number,) for number in range(options.first, options.first + options.cases)]
    answers = case_runner.results(options, JudgedAnswer, play, keys, lambda answer: (answer.case,))
    text = section(answers)
    print(text)
    if options.write:
        before = PAGE.read_text(encoding="utf-8").split(HEADING)[0].rstrip()
        PAGE.write_text(f"{before}\n\n{text}\n", encoding="utf-8")


INTRODUCTION = """\
Made by `python -m benchmarks.limit_questions`: the whole probe, with all experiments and their analyses,
against the sandbox's quotas behind a simulated network. Each API has a request limit of a random family (8
to 60 requests in 2 to 60 s) and one more property: a concurrency limit, a token limit, errors that count,
or wrong headers. Up to one in six has a second request limit, 1.5 to 3 times as high and 6 to 20 times as
long. One in ten is shared with other clients, and one in three loses 1% of the responses. Half of the APIs
give no reason for a refusal, and half document their limits.

*Right* is the actual value, or a range of at most 20% that contains it. If there is nothing to find, *cannot
tell* is right."""


def section(answers: Sequence[JudgedAnswer]) -> str:
    """Return the page's section about these answers."""
    numbers = {answer.case for answer in answers}
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for answer in answers:
        counts[answer.question, _label(answer.truth)][answer.judged] += 1
    lines = [
        f"{HEADING}{len(numbers)} cases",
        "",
        INTRODUCTION,
        "",
        f"{case_runner.summary(answers)} of {len(answers)} answers; "
        f"seeds {min(numbers, default=0)} to {max(numbers, default=0)}.",
        "",
        "| question | truth | answers | right | abstained | wrong |",
        "|---|---|---|---|---|---|",
    ]
    for (question, truth), judged in sorted(counts.items()):
        cells = [judged.total(), *(judged[name] or "" for name in ("right", "abstained", "wrong"))]
        lines.append(f"| {question} | {truth} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _label(truth: Value) -> str:
    if truth is None:
        return "none"
    return (
        "a number" if isinstance(truth, int | float) and not isinstance(truth, bool) else str(truth).lower()
    )


if __name__ == "__main__":
    main()
