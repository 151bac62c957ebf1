"""The calls of a run as the load of a simulation."""

from dataclasses import dataclass

import pandas as pd

from bltybench.errors import UserError
from bltybench.metrics.analysis import Analysis, load
from bltybench.metrics.frame import NS_PER_S, bools, floats, ints
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.runs.folder import RunFolder
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.workload import Scenario


@dataclass(frozen=True, slots=True)
class RunLoad:
    """The calls of a run, and how long its responses took."""

    load: SimulatedLoad
    service: ServiceTime
    """The median time of a successful response, whatever its length."""
    slowest_s: float
    scenario: Scenario


def load_of_run(folder: RunFolder, *, clients: int, batch: int | None = None) -> RunLoad:
    """Return the calls of a run at their due times; ``batch`` calls like them that are all due immediately.

    Raise UserError if no call succeeded, or none has a duration, so that there are no sizes and times.
    """
    analysis = load(folder)
    done = analysis.attempts[bools(analysis.attempts, "ok")]
    if not len(done):
        raise UserError(
            "no call of this run succeeded, so it does not show their sizes",
            where=str(folder.path),
            remedy="name another run, or a scenario",
        )
    if not done["latency_ms"].notna().any():
        raise UserError(
            "this run has no durations, so it does not show how long responses take",
            where=str(folder.path),
            remedy="import a log with durations, or name a scenario",
        )
    latencies_s = sorted((floats(done[done["latency_ms"].notna()], "latency_ms") / 1000).tolist())
    due_s = (
        tuple((ints(analysis.calls, "first_due_ns") / NS_PER_S).tolist()) if batch is None else (0.0,) * batch
    )
    return RunLoad(
        load=SimulatedLoad(
            clients=clients,
            users=max(clients, len(due_s)),
            due_s=due_s,
            think_s=0.0,
            end_s=analysis.end_ns / NS_PER_S if batch is None else None,
            sizes=call_sizes(analysis),
        ),
        service=ServiceTime(latencies_s[len(latencies_s) // 2], 0.0),
        slowest_s=latencies_s[-1],
        scenario=analysis.scenario,
    )


def call_sizes(analysis: Analysis) -> tuple[CallSize, ...]:
    """Return what most APIs charge for each successful attempt: the prompt, and all of max_tokens if set."""
    return _as_sizes(_charged(analysis))


def distinct_call_sizes(analysis: Analysis) -> tuple[CallSize, ...]:
    """Return each of ``call_sizes`` once. A long run has far fewer of these than attempts."""
    return _as_sizes(_charged(analysis).drop_duplicates())


def _charged(analysis: Analysis) -> pd.DataFrame:
    columns = ["prompt_tokens", "max_tokens", "completion_tokens"]
    done = analysis.attempts.loc[bools(analysis.attempts, "ok"), columns]
    completions = done["max_tokens"].fillna(done["completion_tokens"])
    charged = pd.DataFrame({"prompt": done["prompt_tokens"], "completion": completions})
    return charged.fillna(0).astype("int64")


def _as_sizes(charged: pd.DataFrame) -> tuple[CallSize, ...]:
    return tuple(map(CallSize, charged["prompt"].tolist(), charged["completion"].tolist()))
