"""Client policies in live tournaments against the sandbox, compared with their simulation.

    python -m benchmarks.live_policies                       # four limiters, thirteen policies: 40 minutes
    python -m benchmarks.live_policies --limiter sliding_log --stage-s 60

Each limiter accepts 10 requests per 2 s, and 400 calls per minute are due, a third more. The sandbox answers
in 50 ms, always. The simulation gets the same calls, and the time of the clock, which decides when windows
begin and how announced times are rounded. It is repeated, each time with other times of responses and
refusals, drawn from those of the run: against some limiters, milliseconds decide whether many requests are
refused. A difference is a percentage of the simulated mean; of fewer than ten refusals per 100
calls, of ten per 100.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import NamedTuple

import pandas as pd

from bltybench.metrics.analysis import load
from bltybench.metrics.frame import NS_PER_S, has_fate
from bltybench.policies.simulated_load import load_of
from bltybench.policies.simulation import Simulation
from bltybench.policies.tournament import variant
from bltybench.runs.folder import RunFolder, find_run
from bltybench.runs.trials.tournament import read_tournament
from bltybench.scenario.pacing import PACINGS
from bltybench.scenario.target import RateLimit, SandboxLimits
from bltybench.scenario.trials.tournament import Tournament, competitor

LIMITERS = ("sliding_log", "fixed_window", "token_bucket", "first_hit_window")
RETRIES = ("none", "fixed", "exponential", "full_jitter", "openai", "litellm", "retry_after_jitter")
POLICIES = (*RETRIES, *(f"openai + {pacing}" for pacing in PACINGS if pacing != "none"))
LIMIT, PERIOD_S, CALLS_PER_MIN, RESPONSE_S = 10, 2.0, 400, 0.05
SIMULATIONS = 20
"""Simulations of a policy, each with other times."""
MIN_REFUSALS_PER_CALL = 0.1
"""Refusals per call below which a difference is divided by this instead."""
MAX_GOODPUT_PERCENT, MAX_REFUSALS_PERCENT = 2.0, 5.0
"""Largest differences for the simulation to count as accurate."""

SCENARIOS = """
[targets.sandbox]
base_url = "http://127.0.0.1:{port}/v1"
[targets.sandbox.sandbox]
ttft = {{ median_ms = {response_ms}, p95_ms = {response_ms} }}
itl = {{ median_ms = 0, p95_ms = 0 }}
[targets.sandbox.sandbox.limits]
requests = {{ limit = {limit}, period_s = {period_s}, algorithm = "{algorithm}" }}
tokens = false
concurrency = false
[scenarios.live]
title = "Live policies"
model = "deepseek-chat"
duration_s = 86400
users = 1000
[scenarios.live.arrivals]
kind = "tournament"
policies = [{policies}]
calls = {{ kind = "poisson", rate_per_min = {rate} }}
stage_s = {stage_s}
[[scenarios.live.mix]]
name = "chat"
max_tokens = {{ kind = "fixed", tokens = 1 }}
[scenarios.live.retry]
max_attempts = 10
"""


class Outcome(NamedTuple):
    """What a policy achieved."""

    goodput: int
    """Calls that succeeded before the last one had become due."""
    refusals: int


class Compared(NamedTuple):
    """One policy against one limiter, live and simulated."""

    algorithm: str
    policy: str
    calls: int
    live: Outcome
    simulated: Sequence[Outcome]

    @property
    def goodput_percent(self) -> float:
        """Difference of the goodput."""
        expected = fmean(one.goodput for one in self.simulated)
        return 100 * (self.live.goodput - expected) / max(expected, 1)

    @property
    def refusals_percent(self) -> float:
        """Difference of the refusals."""
        expected = fmean(one.refusals for one in self.simulated)
        least = MIN_REFUSALS_PER_CALL * self.calls
        return 100 * (self.live.refusals - expected) / max(expected, least)

    def __str__(self) -> str:
        """Return a row of the table."""
        goodput = spread([one.goodput for one in self.simulated])
        refusals = spread([one.refusals for one in self.simulated])
        return (
            f"| `{self.algorithm}` | `{self.policy}` | {self.live.goodput} | {goodput} | "
            f"{self.goodput_percent:+.1f}% | {self.live.refusals} | {refusals} | "
            f"{self.refusals_percent:+.1f}% |"
        )


def spread(values: Sequence[int]) -> str:
    """Return the mean of values and their range."""
    return f"{fmean(values):.1f} ({min(values)} to {max(values)})"


class StageTimes:
    """Times drawn from those of the attempts with one policy.

    A refusal takes until the client decides about it, which is later than its last byte. The delay with which
    requests are sent is part of it too.
    """

    def __init__(self, attempts: pd.DataFrame, rng: Random) -> None:
        tries = attempts.sort_values(["call", "attempt"])
        refused, later = has_fate(tries, "refused"), tries.shift(-1)
        took_s = (tries["end_ns"] - tries["sent_ns"]) / NS_PER_S
        # A retry is due when its wait after the decision is over.
        decided_s = (later["due_ns"] - tries["sent_ns"]) / NS_PER_S - tries["waited_s"]
        decided_s = decided_s[later["call"] == tries["call"]].dropna()
        ready_ns = tries["held_until_ns"].fillna(tries["due_ns"])
        self._rng = rng
        self._responses_s: list[float] = took_s[~refused].tolist()
        self._decided_s: list[float] = decided_s.tolist() or took_s[refused].tolist() or [0.0]
        self._late_s: list[float] = ((tries["sent_ns"] - ready_ns) / NS_PER_S).tolist()

    def of(self, completion_tokens: int) -> float:
        """Return the seconds for the next response. All have one token."""
        del completion_tokens
        return self._rng.choice(self._responses_s)

    @property
    def refusal_s(self) -> float:
        """Seconds from a refused request until a retry without a wait is sent."""
        return self._rng.choice(self._decided_s) + self._rng.choice(self._late_s)


def run_live(folder: Path, algorithm: str, policies: Sequence[str], stage_s: float) -> RunFolder:
    """Run a tournament in a folder, and return its run."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    text = SCENARIOS.format(
        port=port,
        response_ms=RESPONSE_S * 1000,
        limit=LIMIT,
        period_s=PERIOD_S,
        algorithm=algorithm,
        policies=", ".join(f'"{name}"' for name in policies),
        rate=CALLS_PER_MIN,
        stage_s=stage_s,
    )
    (folder / "scenarios.toml").write_text(text)
    locustfile = Path(__file__).parents[1] / "locustfiles" / "policies.py"
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--scenario", "live", "--headless"]
    options = ["--no-preflight", "--report-format", "json"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return find_run(None, folder / "reports")


def compare(run: RunFolder, algorithm: str) -> list[Compared]:
    """Simulate each policy of a run, and compare."""
    analysis, course = load(run), read_tournament(run)
    if course is None or not isinstance(analysis.scenario.arrivals, Tournament):
        raise SystemExit(f"{run.path} has no tournament")
    one = analysis.scenario.of_one_policy()
    limit = RateLimit.model_validate({"limit": LIMIT, "period_s": PERIOD_S, "algorithm": algorithm})
    limits = SandboxLimits(requests=limit, tokens=None, concurrency=None)
    calls_load = load_of(one, run.path, clients=1)
    found = []
    for stage in course.stages:
        calls = analysis.calls[analysis.calls["stage"] == stage.stage]
        attempts = analysis.attempts[analysis.attempts["stage"] == stage.stage]
        ended_s = (calls["first_due_ns"] / NS_PER_S + calls["latency_ms"] / 1000).dropna() - stage.begin_s
        live = Outcome(int((ended_s <= course.stage_s).sum()), int(has_fate(attempts, "refused").sum()))
        chosen = competitor(stage.stage)
        simulated = []
        for number in range(SIMULATIONS):
            made = Simulation(
                calls_load,
                limits,
                variant(one.retry, chosen.retry),
                StageTimes(attempts, Random(number)),
                seed=one.seed,
                pacing=chosen.pacing,
                start_s=analysis.manifest.clock.wall_ns / NS_PER_S + stage.begin_s,
            ).run_by_events()
            ok = sum(call.ok and call.ended_s <= course.stage_s for call in made)
            simulated.append(Outcome(ok, made.refused))
        found.append(Compared(algorithm, stage.stage, len(calls), live, simulated))
    return found


def main() -> None:
    """Run the tournaments, and print the table and the largest differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limiter", action="append", choices=LIMITERS, help="only this one; repeatable")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="only this one; repeatable")
    parser.add_argument("--stage-s", type=float, default=30.0, help="time in which calls become due")
    chosen = parser.parse_args()
    policies = chosen.policy or POLICIES
    columns = ("goodput, live", "simulated", "difference", "refusals, live", "simulated", "difference")
    print(f"| limiter | policy | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for algorithm in chosen.limiter or LIMITERS:
        with tempfile.TemporaryDirectory() as folder:
            compared = compare(run_live(Path(folder), algorithm, policies, chosen.stage_s), algorithm)
        print(*compared, sep="\n", flush=True)
        rows += compared
    good = sum(abs(row.goodput_percent) <= MAX_GOODPUT_PERCENT for row in rows)
    few = sum(abs(row.refusals_percent) <= MAX_REFUSALS_PERCENT for row in rows)
    print(
        f"\nGoodput within {MAX_GOODPUT_PERCENT:g}% in {good} of {len(rows)} cases, "
        f"refusals within {MAX_REFUSALS_PERCENT:g}% in {few}."
    )


if __name__ == "__main__":
    main()
