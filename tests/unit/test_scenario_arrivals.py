from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.errors import UserError
from bltybench.scenario.arrivals.arrivals import Arrival, schedule
from bltybench.scenario.arrivals.trace import HEADERS
from bltybench.scenario.patterns import Closed, Constant, Poisson, Trace
from bltybench.scenario.workload import Arrivals

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
HERE = Path()


def times(arrivals: Arrivals, duration_s: float, seed: int = 1) -> list[float]:
    return [arrival.at_s for arrival in schedule(arrivals, duration_s, seed, HERE)]


def test_constant_rate_is_exact_without_drift() -> None:
    at = times(Constant(kind="constant", rate_per_min=90), 3600)
    assert at == [index * 60 / 90 for index in range(5400)]
    assert at[3] == 2.0
    assert at[5397] == 3598.0


def test_constant_rate_ends_before_the_duration() -> None:
    assert times(Constant(kind="constant", rate_per_min=60), 3) == [0.0, 1.0, 2.0]
    assert times(Constant(kind="constant", rate_per_min=60), 3.01) == [0.0, 1.0, 2.0, 3.0]


def test_poisson_gaps_have_exponential_mean_and_variance() -> None:
    at = times(Poisson(kind="poisson", rate_per_min=600), 3600)
    n = len(at)
    # The expected count of 36,000 has a standard deviation of 190.
    assert n == pytest.approx(36_000, abs=5 * 190)
    gaps = [after - before for before, after in pairwise(at)]
    assert fmean(gaps) == pytest.approx(0.1, rel=5 / n**0.5)
    # An exponential variable's variance is its mean squared; the sample's has a relative error of √(8/n).
    assert pvariance(gaps) == pytest.approx(0.01, rel=5 * (8 / n) ** 0.5)
    # Exponential gaps are memoryless: successive gaps are not correlated.
    mean = fmean(gaps)
    product = fmean((a - mean) * (b - mean) for a, b in pairwise(gaps))
    assert abs(product / pvariance(gaps)) < 5 / n**0.5


def test_poisson_counts_per_minute_have_variance_equal_to_mean() -> None:
    at = times(Poisson(kind="poisson", rate_per_min=30), 60 * 1000)
    counts = [0] * 1000
    for moment in at:
        counts[int(moment // 60)] += 1
    assert pvariance(counts) / fmean(counts) == pytest.approx(1, abs=5 * (2 / 1000) ** 0.5)


@given(st.integers(0, 2**32), st.floats(0.1, 600), st.floats(1, 120))
def test_schedule_is_ordered_numbered_bounded_and_repeatable(
    seed: int, rate: float, duration_s: float
) -> None:
    kinds: list[Arrivals] = [
        Constant(kind="constant", rate_per_min=rate),
        Poisson(kind="poisson", rate_per_min=rate),
    ]
    for arrivals in kinds:
        found = list(schedule(arrivals, duration_s, seed, HERE))
        assert [arrival.index for arrival in found] == list(range(len(found)))
        assert all(before.at_s <= after.at_s for before, after in pairwise(found))
        assert all(0 <= arrival.at_s < duration_s for arrival in found)
        assert found == list(schedule(arrivals, duration_s, seed, HERE))
        longer = list(schedule(arrivals, duration_s * 2, seed, HERE))
        assert longer[: len(found)] == found


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_shares_add_up_to_the_schedule(workers: int) -> None:
    arrivals = Poisson(kind="poisson", rate_per_min=120)
    parts: list[Arrival] = []
    for worker in range(workers):
        own = [a for a in schedule(arrivals, 60, 5, HERE) if a.index % workers == worker]
        assert own
        parts += own
    assert sorted(parts, key=lambda a: a.index) == list(schedule(arrivals, 60, 5, HERE))


def test_different_seeds_give_different_times() -> None:
    arrivals = Poisson(kind="poisson", rate_per_min=60)
    assert times(arrivals, 60, seed=1) != times(arrivals, 60, seed=2)


def test_closed_loop_has_no_schedule() -> None:
    with pytest.raises(ValueError, match="closed loop has no schedule"):
        schedule(Closed(kind="closed"), 10, 1, HERE)


HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def write(folder: Path, text: str) -> Trace:
    (folder / "t.csv").write_bytes(text.encode())
    return Trace(kind="trace", file="t.csv")


def test_trace_sets_times_and_lengths(tmp_path: Path) -> None:
    trace = write(
        tmp_path,
        "\ufeff" + HEADER + "2023-11-16 18:15:59.9999999,374,44\r\n2023-11-16 18:16:00.0000001,5,0\r\n"
        "2023-11-16 18:16:10,7,8",
    )
    assert list(schedule(trace, 60, 1, tmp_path)) == [
        Arrival(0, 0.0, 374, 44),
        Arrival(1, 200e-9, 5, 1),
        Arrival(2, 10.0000001, 7, 8),
    ]


def test_trace_speed_and_duration_are_applied(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "".join(f"2024-05-10 00:00:{s:02}+00:00,1,1\n" for s in range(0, 60, 6)))
    fast = Trace(kind="trace", file="t.csv", speed=3)
    assert [arrival.at_s for arrival in schedule(fast, 10, 1, tmp_path)] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"F: is empty, not with the header of a supported trace\n  → {HEADERS}"),
        (
            "a;b\n",
            f"F: starts with 'a;b', not with the header of a supported trace\n  → {HEADERS}",
        ),
        (HEADER, "F: has a header and no rows\n  → a row looks like 2023-11-16 18:15:46.6805900,374,44"),
        (
            HEADER + "2023-11-16 18:15:46,374\n",
            "F:2: has 2 fields, not 3\n  → a row looks like 2023-11-16 18:15:46.6805900,374,44",
        ),
        (
            HEADER + "2023-11-16 18:15:46,1,1\nyesterday,374,1\n",
            "F:3: timestamp 'yesterday' is not a time\n"
            "  → a row looks like 2023-11-16 18:15:46.6805900,374,44",
        ),
        (
            HEADER + "2023-13-16 18:15:46,1,1\n",
            "F:2: timestamp '2023-13-16 18:15:46' is not a time\n"
            "  → a row looks like 2023-11-16 18:15:46.6805900,374,44",
        ),
        (
            HEADER + "2023-11-16 18:15:46,many,1\n",
            "F:2: ContextTokens 'many' is not an integer\n"
            "  → a row looks like 2023-11-16 18:15:46.6805900,374,44",
        ),
        (
            HEADER + "2023-11-16 18:15:46,0,1\n",
            "F:2: ContextTokens is 0, must be 1 or more\n  → fix or remove the row",
        ),
        (
            HEADER + "2023-11-16 18:15:46,1,-1\n",
            "F:2: GeneratedTokens is -1, must be 0 or more\n  → fix or remove the row",
        ),
        (
            HEADER + "2023-11-16 18:15:46,1,1\n\n2023-11-16 18:15:45,1,1\n",
            "F:4: is earlier than the row before it\n  → sort the rows by TIMESTAMP",
        ),
    ],
)
def test_trace_error_is_raised_before_the_first_arrival(tmp_path: Path, text: str, message: str) -> None:
    trace = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        schedule(trace, 60, 1, tmp_path)
    assert str(caught.value).replace(str(tmp_path / "t.csv"), "F") == message


def test_trace_error_after_the_used_part_is_ignored(tmp_path: Path) -> None:
    trace = write(tmp_path, HEADER + "2023-11-16 18:15:46,1,1\n2023-11-16 18:16:46,1,1\nrubbish\n")
    assert len(list(schedule(trace, 60, 1, tmp_path))) == 1
    with pytest.raises(UserError):
        schedule(trace, 61, 1, tmp_path)


def test_missing_or_binary_trace_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trace file not found"):
        schedule(Trace(kind="trace", file="no.csv"), 60, 1, tmp_path)
    (tmp_path / "t.csv").write_bytes(HEADER.encode() + b"\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        schedule(Trace(kind="trace", file="t.csv"), 60, 1, tmp_path)


@pytest.mark.parametrize(
    ("name", "rows"), [("azure-llm-2023-conv.csv", 19_366), ("azure-llm-2023-code.csv", 8_819)]
)
def test_recorded_production_traces_are_read(name: str, rows: int) -> None:
    if not (TRACES / name).exists():
        pytest.skip(f"the recorded traces are not in {TRACES}")
    found = list(schedule(Trace(kind="trace", file=name), 1e6, 1, TRACES))
    assert len(found) == rows
    text = (TRACES / name).read_text().splitlines()
    assert [f"{a.prompt_tokens},{a.max_tokens}" for a in found] == [
        line.split(",", 1)[1] for line in text[1:]
    ]
    half = list(schedule(Trace(kind="trace", file=name, speed=2), 60, 1, TRACES))
    assert [a.at_s * 2 for a in half] == pytest.approx([a.at_s for a in found if a.at_s < 120])
