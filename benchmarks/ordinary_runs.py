"""What ordinary runs, which no probe times, claim about simulated limiters, in virtual time.

python -m benchmarks.ordinary_runs --first 1000 --cases 4       four runs of each limiter and load
"""

import argparse
import heapq
import random
from collections import Counter
from dataclasses import dataclass

from benchmarks.unmodeled_limiters import UNMODELED, MakeLimiter
from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.model import FindingsRecord
from bltybench.limits.models import FirstHitWindow, FixedWindow, SlidingCounter, SlidingLog, TokenBucket
from bltybench.limits.models.base import Limiter, Model
from bltybench.runs.attempt import Attempt, Outcome

START_S = 1_795_358_417.3
MAX_ROWS = 900
LATENCY_S = 0.02
PACED_FRACTION = 0.97
"""Fraction of the advised rate at which a client is paced to test it: the rest is room for its clock."""
MIN_ACCEPTED = 0.95
"""Fraction of the paced requests that must be accepted."""


def _family(model: type[Model]) -> MakeLimiter:
    return lambda limit, period_s, _: model(limit, period_s)


LIMITERS: dict[str, MakeLimiter | None] = {
    **{
        model.__name__: _family(model)
        for model in (FixedWindow, FirstHitWindow, SlidingLog, SlidingCounter, TokenBucket)
    },
    **{name: make for name, make in UNMODELED.items() if name != "limit that changes"},
    "slots": None,
    "slots and window": _family(FixedWindow),
}
"""Limiters by name; None if only the number in flight is limited. No run shows how a limit changes later."""
LOADS = ("random", "steps", "bursts", "users", "hurried")
"""Loads: random arrivals, the same at a growing rate, bursts, and users who wait long or briefly."""


class SimulatedServer:
    """A server with a rate limit, a limit on requests in flight, or both."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self._make, self._rng = LIMITERS[name], rng
        self.period_s = rng.choice([5, 10, 20, 30, 60])
        self.limit = rng.randint(15, 80)
        self._seed = rng.random()
        self._takes_s = (0.5, 2.0) if "slots" in name else (0.1, 0.4)
        min_slots = {"slots": 2, "slots and window": 3}.get(name)
        self.slots = None if min_slots is None else rng.randint(min_slots, 8)
        self.restart()

    def restart(self) -> None:
        """Forget all requests."""
        make, rng = self._make, random.Random(self._seed)
        self._limiter: Limiter | None = None if make is None else make(self.limit, self.period_s, rng)
        self._ends_s: list[float] = []

    def decide(self, at_s: float) -> float | None:
        """Return the duration of an accepted request, in seconds; None for a refused one."""
        while self._ends_s and self._ends_s[0] <= at_s:
            heapq.heappop(self._ends_s)
        if self.slots is not None and len(self._ends_s) >= self.slots:
            return None
        if self._limiter is not None and not self._limiter.decide(at_s).accepted:
            return None
        took_s = self._rng.uniform(*self._takes_s)
        heapq.heappush(self._ends_s, at_s + took_s)
        return took_s

    def accepted_at(self, per_min: float) -> float:
        """Return the fraction that is accepted of a client that sends evenly, at this rate."""
        self.restart()
        gap_s, start_s = 60 / per_min, START_S + 10_000.123
        count = min(4000, int(max(20 * self.period_s, 600) / gap_s))
        return sum(self.decide(start_s + i * gap_s) is not None for i in range(count)) / count


class Client:
    """A client that records its attempts, and loses a fraction of the responses."""

    def __init__(self, server: SimulatedServer, rng: random.Random, lost: float) -> None:
        self._server, self._rng, self._lost = server, rng, lost
        self.rows: list[Attempt] = []

    def send(self, at_s: float) -> tuple[bool, float]:
        """Send a request; return whether it seems accepted, and how long it took, in seconds."""
        took_s = self._server.decide(START_S + at_s + LATENCY_S / 2)
        lost = self._rng.random() < self._lost
        sent_ns, all_s = round(at_s * 1e9), LATENCY_S + (0.004 if took_s is None else took_s)
        end_ns = round((at_s + all_s) * 1e9)
        outcome, status = (Outcome.RATE_LIMITED, 429) if took_s is None else (Outcome.OK, 200)
        self.rows.append(
            Attempt(
                worker="w0",
                user=0,
                scenario="simulated",
                call_id="",
                attempt=0,
                due_ns=sent_ns,
                sent_ns=sent_ns,
                headers_ns=None if lost else end_ns,
                end_ns=end_ns,
                outcome=Outcome.TRANSPORT_ERROR if lost else outcome,
                status=None if lost else status,
                endpoint="/chat/completions",
                stream=False,
                bytes_sent=0,
                bytes_received=0,
                in_flight=1,
            )
        )
        return took_s is not None and not lost, all_s


def _run(server: SimulatedServer, load: str, rng: random.Random, lost: float) -> list[Attempt]:
    """Return the attempts of a run whose load is about the limit."""
    client, per_s = Client(server, rng, lost), server.limit / server.period_s
    span_s, at_s = rng.choice([60, 90, 180]), 0.0
    if load in {"random", "steps"}:
        factor = rng.uniform(0.9, 2)
        while at_s < span_s and len(client.rows) < MAX_ROWS:
            grown = 0.4 + 0.3 * int(6 * at_s / span_s) if load == "steps" else 1.0
            at_s += rng.expovariate(factor * grown * per_s)
            client.send(at_s)
    elif load == "bursts":
        while at_s < span_s and len(client.rows) < MAX_ROWS:
            size = rng.randint(2, max(3, int(0.7 * server.limit)))
            for i in range(size):
                client.send(at_s + i * LATENCY_S)
            at_s += size * LATENCY_S + rng.expovariate(2 * per_s / size)
    else:
        users = rng.randint(4, 30)
        think_s = users / per_s / rng.uniform(0.9, 2)
        retry_s = rng.uniform(3, 10) if load == "users" else rng.uniform(0.3, 2)
        due = sorted(rng.uniform(0, 2) for _ in range(users))
        while due[0] < span_s and len(client.rows) < MAX_ROWS:
            at_s = heapq.heappop(due)
            accepted, took_s = client.send(at_s)
            pause_s = rng.expovariate(1 / think_s) if accepted else retry_s * rng.uniform(1, 1.2)
            heapq.heappush(due, at_s + took_s + pause_s)
    return client.rows


@dataclass(frozen=True, slots=True)
class OrdinaryRun:
    """A run, what it claims, and whether that is so."""

    record: FindingsRecord
    wrong: tuple[str, ...]
    """Claims that are wrong: the advised rate is refused, or the number in flight is not what is limited."""

    @property
    def judged(self) -> str:
        """right, abstained, or wrong."""
        claimed = self.record.slowest is not None or self.record.in_flight is not None
        return "wrong" if self.wrong else "right" if claimed else "abstained"


def play(name: str, load: str, seed: int) -> OrdinaryRun:
    """Play one run against a limiter."""
    rng = random.Random(f"{name}/{load}/{seed}")
    server = SimulatedServer(name, rng)
    lost = rng.choice([0, 0.05])
    record = to_record(find(_run(server, load, rng, lost), START_S, None), "run")
    wrong: list[str] = []
    if record.slowest is not None:
        per_min = record.slowest.rate_to_send_per_min
        accepted = server.accepted_at(PACED_FRACTION * per_min)
        if accepted < MIN_ACCEPTED:
            wrong.append(f"of {per_min:.4g} per minute, {accepted:.0%} are accepted: {record.advice[0]}")
    if record.in_flight is not None:
        low, high = record.in_flight.limit_range
        if server.slots is None or not low <= server.slots <= high:
            wrong.append(f"{record.in_flight.limit} in flight, actually {server.slots}")
    return OrdinaryRun(record, tuple(wrong))


def main() -> None:
    """Play runs of each limiter and load; print the wrong claims, and counts by limiter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--cases", type=int, default=1, help="runs of each limiter and load")
    parser.add_argument("--limiters", nargs="+", choices=LIMITERS, default=list(LIMITERS))
    options = parser.parse_args()
    total: Counter[str] = Counter()
    for name in options.limiters:
        counts: Counter[str] = Counter()
        for load in LOADS:
            for seed in range(options.first, options.first + options.cases):
                run = play(name, load, seed)
                counts[run.judged] += 1
                for line in run.wrong:
                    print(f"  {name}, {load}, {seed}: {line}")
        print(f"{name}: {dict(counts)}")
        total += counts
    print(f"all: {dict(total)}")


if __name__ == "__main__":
    main()
