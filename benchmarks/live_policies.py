"""Client policies in live tournaments against the sandbox, compared with their simulation.

    python -m benchmarks.live_policies                       # four limiters, thirteen policies: 40 minutes
    python -m benchmarks.live_policies --limiter sliding_log --stage-s 60

Each limiter accepts 10 requests per 2 s, and 400 calls per minute are due, a third more. The sandbox answers
in 50 ms, always. The simulation gets the same calls, the median times of responses and refusals, and the time
of the clock, which decides when windows begin and how announced times are rounded. A difference is a
percentage of the simulated value; of fewer than ten refusals per 100 calls, of ten per 100.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bltybench.metrics.analysis import load
from bltybench.metrics.frame import NS_PER_S, has_fate
from bltybench.policies.simulated_load import ServiceTime, load_of
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
    simulated: Outcome

    @property
    def goodput_percent(self) -> float:
        """Difference of the goodput."""
        return 100 * (self.live.goodput - self.simulated.goodput) / max(self.simulated.goodput, 1)

    @property
    def refusals_percent(self) -> float:
        """Difference of the refusals."""
        least = MIN_REFUSALS_PER_CALL * self.calls
        return 100 * (self.live.refusals - self.simulated.refusals) / max(self.simulated.refusals, least)

    def __str__(self) -> str:
        """Return a row of the table."""
        return (
            f"| `{self.algorithm}` | `{self.policy}` | {self.live.goodput} | {self.simulated.goodput} | "
            f"{self.goodput_percent:+.1f}% | {self.live.refusals} | {self.simulated.refusals} | "
            f"{self.refusals_percent:+.1f}% |"
        )


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
    refused = has_fate(analysis.attempts, "refused")
    latency_s = (analysis.attempts["end_ns"] - analysis.attempts["sent_ns"]) / NS_PER_S
    service = ServiceTime(latency_s[~refused].median(), 0.0, latency_s[refused].median())
    found = []
    for stage in course.stages:
        calls = analysis.calls[analysis.calls["stage"] == stage.stage]
        attempts = analysis.attempts[analysis.attempts["stage"] == stage.stage]
        ended_s = (calls["first_due_ns"] / NS_PER_S + calls["latency_ms"] / 1000).dropna() - stage.begin_s
        live = Outcome(int((ended_s <= course.stage_s).sum()), int(has_fate(attempts, "refused").sum()))
        chosen = competitor(stage.stage)
        simulated = Simulation(
            calls_load,
            limits,
            variant(one.retry, chosen.retry),
            service,
            seed=one.seed,
            pacing=chosen.pacing,
            start_s=analysis.manifest.clock.wall_ns / NS_PER_S + stage.begin_s,
        ).run()
        ok = sum(call.ok and call.ended_s <= course.stage_s for call in simulated)
        refusals = sum(len(call.refusals) for call in simulated)
        found.append(Compared(algorithm, stage.stage, len(calls), live, Outcome(ok, refusals)))
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
