"""Prescriptions on workloads that they were not derived from, compared with the optimum, in virtual time.

python -m benchmarks.advice --first 5000 --cases 500 --rows advice.jsonl    # the table of docs/retries.md

The number of a case is its seed. The settings of each client come from the limits and from calls of other
sizes, rates, and times than those that are then simulated. With the same file, a run continues where it was
interrupted.
"""

import argparse
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from benchmarks.policies import ALGORITHMS, USERS, arrivals
from bltybench.limits.observations.proportion import Proportion
from bltybench.policies.advice.prediction import predict
from bltybench.policies.advice.prescription import prescribe
from bltybench.policies.optimum import optimum
from bltybench.policies.simulated_api import windows_start_s
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import RateLimit, SandboxLimits

KINDS = ("requests", "requests", "requests", "two request limits", "tokens", "concurrency")
"""What is limited besides the requests, each as often as it is here."""
PERIODS = (20, 60)
"""Shortest and longest duration of a load, in periods of the longest request limit."""
MAX_REFUSED_PERCENT, MIN_THROUGHPUT_PERCENT = 1.0, 95.0
"""What the prescription is for: refused attempts, and calls accepted by the end compared with the optimum."""


class Row(msgspec.Struct, kw_only=True):
    """The result of a case."""

    case: int
    kind: str
    algorithm: str
    clients: int
    refused_percent: float
    throughput_percent: float | None
    """Null if the optimum is unknown."""

    @property
    def keeps_limits(self) -> bool:
        """Whether hardly any attempt is refused."""
        return self.refused_percent <= MAX_REFUSED_PERCENT

    @property
    def is_fast(self) -> bool:
        """Whether the throughput is close to the optimum."""
        return (self.throughput_percent or 0.0) >= MIN_THROUGHPUT_PERCENT


def play(case: int) -> Row:
    """Derive a prescription, and simulate clients that follow it with another workload."""
    rng = random.Random(f"advice/{case}")
    kind, clients = rng.choice(KINDS), rng.choice((1, 1, 2, 5))
    limit, period_s = round(5 * 20 ** rng.random()), 60 ** rng.random()
    rate_per_s = limit / period_s * rng.uniform(0.3, 2.0)
    size, service_s = CallSize(rng.randint(50, 2000), rng.randint(20, 500)), rng.uniform(0.2, 3.0)
    requests = RateLimit(limit=limit, period_s=period_s, algorithm=rng.choice(ALGORITHMS))
    limits = SandboxLimits(requests=requests, tokens=None, concurrency=None)
    if kind == "two request limits":
        factor = rng.randint(2, 5)
        longer = RateLimit(limit=round(limit * factor * rng.uniform(0.5, 0.9)), period_s=period_s * factor)
        requests = requests.model_copy(update={"also": longer})
        limits = limits.model_copy(update={"requests": requests})
    elif kind == "tokens":
        total = round(limit * sum(size) * rng.uniform(0.5, 1.2)) + sum(size)
        tokens = RateLimit(limit=total, period_s=period_s, algorithm=rng.choice(ALGORITHMS))
        limits = limits.model_copy(update={"tokens": tokens})
    elif kind == "concurrency":
        slots = max(clients, round(limit / period_s * service_s * rng.uniform(0.7, 2.0)))
        limits = limits.model_copy(update={"concurrency": slots})
    duration_s = max(one.period_s for one in requests.chain()) * rng.uniform(*PERIODS)
    known = [CallSize(rng.randint(50, 2000), rng.randint(20, 500)) for _ in range(50)]
    load = SimulatedLoad(
        clients=clients,
        users=USERS,
        due_s=tuple(arrivals(rng, rate_per_s, duration_s)) or (0.0,),
        think_s=0.0,
        end_s=duration_s,
        sizes=(size,),
    )
    service = ServiceTime(service_s, 0.0)
    best = optimum(load, limits, service, windows_start_s(limits, case))
    result = predict(load, limits, prescribe(limits, known, clients=clients), service, seed=case, best=best)[
        0
    ]
    refused = result.refused_by_requests + result.refused_by_tokens + result.refused_by_concurrency
    below = result.below_optimum_percent
    return Row(
        case=case,
        kind=kind,
        algorithm=requests.algorithm,
        clients=clients,
        refused_percent=100 * refused / max(1, result.attempts),
        throughput_percent=None if below is None else 100 - below,
    )


def rows(numbers: Iterable[int], file: Path) -> Iterator[Row]:
    """Yield the row of each case, from the file if it has it. Append the others to it."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    done = {row.case: row for row in (msgspec.json.decode(line, type=Row) for line in lines)}
    with file.open("ab") as output:
        for case in numbers:
            row = done.get(case)
            if row is None:
                row = play(case)
                output.write(msgspec.json.encode(row) + b"\n")
                output.flush()
            yield row


def table(found: list[Row]) -> str:
    """Return the percentages of cases as a Markdown table, with their Wilson 95% intervals."""
    groups = {
        "all": found,
        "one client": [row for row in found if row.clients == 1],
        "2 or 5 clients": [row for row in found if row.clients > 1],
    }
    groups |= {f"limit: {kind}": [row for row in found if row.kind == kind] for kind in dict.fromkeys(KINDS)}
    groups |= {f"`{name}`": [row for row in found if row.algorithm == name] for name in ALGORITHMS}
    lines = [
        "| cases | number | at most 1% refused | at least 95% of the optimum | both |",
        "|---|---|---|---|---|",
    ]
    for title, chosen in groups.items():
        known = [row for row in chosen if row.throughput_percent is not None]
        cells = [
            _percentage([row.keeps_limits for row in chosen]),
            _percentage([row.is_fast for row in known]),
            _percentage([row.keeps_limits and row.is_fast for row in known]),
        ]
        lines.append(f"| {title} | {len(chosen)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percentage(holds: list[bool]) -> str:
    low, high = Proportion(sum(holds), len(holds)).interval() or (0.0, 1.0)
    return f"{100 * sum(holds) / max(1, len(holds)):.0f} ({100 * low:.0f} to {100 * high:.0f})"


def main() -> None:
    """Play the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=5000, help="number of the first case, which is its seed")
    parser.add_argument(
        "--rows", type=Path, default=Path("advice.jsonl"), help="file with a row for each case"
    )
    given = parser.parse_args()
    print(table(list(rows(range(given.first, given.first + given.cases), given.rows))))


if __name__ == "__main__":
    main()
