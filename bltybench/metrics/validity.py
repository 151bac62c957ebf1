"""VALID or INVALID: whether the load generator was the bottleneck, and whether the run is complete.

All thresholds are in ``Thresholds``; docs/method.md gives the reasons.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bltybench.metrics.failure import failure, lacks_resources, main_target, never_connected
from bltybench.metrics.first_tokens import late_first_tokens
from bltybench.metrics.frame import Floats, floats
from bltybench.metrics.grading import EVERYTHING, TIMING, Figure, Finding, finding_of
from bltybench.metrics.run_findings import clocks, end_of_the_run, workers
from bltybench.metrics.sample import Sample
from bltybench.runs.attempt import Outcome
from bltybench.runs.manifest import Manifest
from bltybench.scenario.workload import Scenario


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds within which a run is valid."""

    schedule_delay_p99_ms: float = 50.0
    """Maximum p99 of the schedule delay. Later sends distort arrivals and all latencies counted from them."""
    stall_ms: float = 250.0
    """Maximum delay of the event loop in any second, and maximum p99 of the observer lag."""
    user_stamp_stall_ms: float = 20.0
    """Maximum p99 of stalls if this process timestamps arrivals: they are then errors of TTFT and ITL."""
    busy_cpu_share: float = 0.95
    """Fraction of a core, used or waited for, from which a process is saturated in a second."""
    busy_seconds_share: float = 0.10
    """Maximum fraction of saturated seconds."""
    steal_share: float = 0.10
    """Maximum fraction of CPU time that the hypervisor gave to others, if any other finding fails."""
    achieved_share: float = 0.95
    """Minimum fraction of the calls due in an open loop that were sent."""
    silent_share: float = 0.5
    """Fraction of the users' time without any response from which a lack of users is the server's doing."""
    late_share: float = 0.01
    """Maximum fraction of arrivals that waited for a user: 1%, like the p99 of the schedule delay."""
    stalled_share: float = 0.05
    """Fraction of the run, or of a minute, from which stalls affect rates: 1 - achieved_share."""


THRESHOLDS = Thresholds()

MORE_USERS = (
    "raise users (the maximum number of calls in flight), lower the rate, or add workers: --processes -1"
)
CHECK_SERVER = "most users waited for a server that did not respond: check it first, then raise users"
FEWER_CONNECTIONS = "lower users, raise `ulimit -n`, or spread the load over more machines"

SENT_AGAIN = "sent_again"
"""Note of an attempt whose ``sent_ns`` is its second sending: the server had closed the connection."""


def audit(
    attempts: pd.DataFrame, generator: pd.DataFrame, manifest: Manifest, scenario: Scenario
) -> list[Finding]:
    """Return all findings. The run is valid if all of them hold."""
    findings = [
        finding_of(
            "attempts",
            len(attempts) > 0,
            f"{len(attempts):,}",
            "at least 1",
            affects=EVERYTHING,
            reason="no attempt was recorded, so there is nothing to measure",
            remedy="check the output of locust; the run may be too short or its rate too low",
        ),
        end_of_the_run(manifest),
        finding_of(
            "self-audit",
            len(generator) > 0,
            f"{len(generator):,} s",
            "at least 1 s",
            affects=EVERYTHING,
            reason="the generator recorded no self-audit, so nothing shows that it was fast enough",
            remedy="run for more than one second, with bltybench's user classes",
        ),
        *workers(manifest),
        *clocks(manifest),
    ]
    if never_connected(attempts) and not lacks_resources(attempts).any():
        # Nothing was sent, so there is no sending to judge. More workers would not help.
        reason = f"no connection could be made: {failure(attempts, main_target(attempts, manifest))}"
        what, _, remedy = reason.rpartition(": ")
        none = finding_of(
            "connections", False, "none", "at least 1", affects=EVERYTHING, reason=what, remedy=remedy
        )
        return [*findings, none]
    findings += _sending(attempts, manifest, paced=_total(generator, "paced"))
    if not generator.empty:
        findings += [*_loop(attempts, generator), _cpu(generator, scenario)]
    harmless = all(finding.holds for finding in findings)
    return [*findings, *_steal(generator, harmless=harmless), *free_users(attempts, generator, scenario)]


def late_arrivals(generator: pd.DataFrame) -> dict[str, int]:
    """Return how many arrivals found no free user and were sent late, or were never sent."""
    return {name: _total(generator, name) for name in ("no_free_user", "never_sent")}


def free_users(attempts: pd.DataFrame, generator: pd.DataFrame, scenario: Scenario) -> Iterator[Finding]:
    """Yield a finding for an open loop; none for a closed one, whose users wait by design."""
    if not scenario.is_open_loop or generator.empty:
        return
    late, never = late_arrivals(generator).values()
    yield finding_of(
        "free users",
        never == 0 and late <= THRESHOLDS.late_share * _total(generator, "sent"),
        f"{late:,} arrivals found none, {never:,} were never sent",
        f"≤ {THRESHOLDS.late_share:.0%} of those sent found none, all were sent",
        affects=[Figure.CALL_LATENCY, Figure.RATES],
        reason=f"all {scenario.users} users were busy: {late:,} arrivals had to wait for one, "
        f"and {never:,} were never sent",
        remedy=_more_users(attempts),
    )


def _total(generator: pd.DataFrame, column: str) -> int:
    return int(np.nansum(floats(generator, column))) if len(generator) else 0


def _sending(attempts: pd.DataFrame, manifest: Manifest, *, paced: int) -> Iterator[Finding]:
    # A user's first call connects before it is sent. How long that takes depends on the network and the
    # server, not on the generator. The same is true of a request that was sent again.
    connecting_ns = sum(np.nan_to_num(floats(attempts, name)) for name in ("connect_ns", "tls_ns"))
    once = ~attempts["notes"].astype("object").str.contains(SENT_AGAIN, na=False).to_numpy(dtype=bool)
    # Nor does the wait for the answer before it in a session, or for its pacing.
    held_ns = np.nan_to_num(floats(attempts, "held_until_ns") - floats(attempts, "due_ns"))
    delays = Sample.of((floats(attempts, "schedule_delay_ms") - (connecting_ns + held_ns) / 1e6)[once])
    if len(delays):
        p99 = delays.quantile(0.99)
        yield finding_of(
            "schedule delay, p99",
            p99 <= THRESHOLDS.schedule_delay_p99_ms,
            f"{p99:,.1f} ms",
            f"≤ {THRESHOLDS.schedule_delay_p99_ms:g} ms",
            affects=[Figure.CALL_LATENCY],
            reason=f"1% of the requests were sent {p99:,.0f} ms or more behind schedule",
            remedy=_more_users(attempts),
        )
    local = lacks_resources(attempts)
    if local.any():
        yield finding_of(
            "own connections",
            False,
            f"{local.sum():,} attempts could not connect",
            "none lacks resources of this machine",
            affects=[Figure.RATES],
            reason=f"this machine lacked descriptors, ports, or memory for {local.sum():,} attempts",
            remedy=FEWER_CONNECTIONS,
        )
    # Calls behind those that pacing held until the end could not be sent.
    due = (manifest.planned_calls or 0) - paced
    if due > 0:
        first, unsent = attempts["attempt"] == 0, attempts["sent_ns"].isna()
        sent = int((first & ~unsent).sum())
        # The generator did its part if the network or the server refused the connection, or if a call still
        # waited for the answer before it in its session, or for its pacing.
        waited = attempts["held_until_ns"].notna() | (attempts["outcome"] != Outcome.CANCELLED)
        refused = int((first & unsent & ~local & waited).sum())
        held = bool((first & unsent & attempts["held_until_ns"].notna()).any())
        unsent_why = "still waited or could not connect" if held else "could not connect"
        # One call can be due just when the load stops.
        min_sent = min(THRESHOLDS.achieved_share * due, due - 1)
        yield finding_of(
            "achieved rate",
            sent + refused >= min_sent,
            f"{sent:,} calls of {due:,} due" + (f", and {refused:,} {unsent_why}" if refused else ""),
            f"≥ {min_sent:,.0f} calls",
            affects=[Figure.RATES],
            reason=f"only {sent + refused:,} of the {due:,} calls due were sent",
            remedy=FEWER_CONNECTIONS if local.any() else _more_users(attempts),
        )


def _more_users(attempts: pd.DataFrame) -> str:
    """Return the remedy for a lack of users. More users don't help against a server that doesn't respond."""
    sent_ns, due_ns = floats(attempts, "sent_ns"), floats(attempts, "due_ns")
    times_ns = floats(attempts, "end_ns") - np.where(np.isnan(sent_ns), due_ns, sent_ns)
    silent = attempts["status"].isna().to_numpy()
    lost = times_ns[silent].sum() > THRESHOLDS.silent_share * times_ns.sum()
    return CHECK_SERVER if lost else MORE_USERS


def _loop(attempts: pd.DataFrame, generator: pd.DataFrame) -> Iterator[Finding]:
    stalls = floats(_while_sending(attempts, generator), "stall_us") / 1000
    stall = float(stalls.max())
    user = int((attempts["stamp"] == "user").sum())
    # The kernel's timestamps don't depend on when this process reads them.
    late_stamps = TIMING if user else ()
    yield finding_of(
        "event loop, longest stall",
        stall <= THRESHOLDS.stall_ms,
        f"{stall:,.1f} ms",
        f"≤ {THRESHOLDS.stall_ms:g} ms",
        affects=[
            *(late_stamps or [Figure.CALL_LATENCY]),
            *([Figure.RATES] if _stalls_shape_load(stalls, generator) else []),
        ],
        reason=f"the event loop stalled for {stall:,.0f} ms, so calls due in that time were sent late",
        remedy="keep slow code out of the locustfile, close other programs, or add workers",
    )
    if user:
        p99 = Sample.of(floats(generator, "stall_us") / 1000).quantile(0.99)
        yield finding_of(
            "arrival stamps",
            p99 <= THRESHOLDS.user_stamp_stall_ms,
            f"{user:,} attempts timestamped after the read, stalls p99 {p99:,.1f} ms",
            f"stalls p99 ≤ {THRESHOLDS.user_stamp_stall_ms:g} ms",
            affects=late_stamps,
            reason=f"an event loop with stalls of {p99:,.0f} ms timestamped the arrivals, "
            "so TTFT and ITL are off by up to that time",
            remedy="run on Linux, where the kernel timestamps arrivals, or lower the load",
        )
    lags = Sample.of(floats(attempts, "observer_lag_us") / 1000)
    if len(lags):
        p99 = lags.quantile(0.99)
        yield finding_of(
            "observer lag, p99",
            p99 <= THRESHOLDS.stall_ms,
            f"{p99:,.2f} ms",
            f"≤ {THRESHOLDS.stall_ms:g} ms",
            affects=late_stamps or [Figure.ITL],
            reason=f"1% of the responses were read {p99:,.0f} ms late or later, so events are coalesced",
            remedy="lower the load per process, or add workers: --processes -1",
        )
    yield from late_first_tokens(attempts, generator)


def _stalls_shape_load(stalls_ms: Floats, generator: pd.DataFrame) -> bool:
    """Return whether stalls delayed enough of the load to change counts per minute."""
    long = stalls_ms[stalls_ms > THRESHOLDS.stall_ms]
    run_ms = float(generator.groupby("worker")["at_ns"].max().sum()) / 1e6
    return bool(long.sum() > THRESHOLDS.stalled_share * run_ms) or bool(
        (long > THRESHOLDS.stalled_share * 60_000).any()
    )


def _while_sending(attempts: pd.DataFrame, generator: pd.DataFrame) -> pd.DataFrame:
    """Return the seconds that started before the last attempt was sent.

    At the end of a run, Locust stops all users in one batch. That stall delays nothing.
    """
    began_ns = generator.groupby("worker")["at_ns"].shift(fill_value=0)
    during = generator[began_ns <= attempts["sent_ns"].max()]
    return generator if during.empty else during


def _cpu(generator: pd.DataFrame, scenario: Scenario) -> Finding:
    shares = floats(generator, "cpu_share")
    waits = np.nan_to_num(floats(generator, "cpu_wait_share"))
    busy = float(np.mean(shares + waits >= THRESHOLDS.busy_cpu_share))
    return finding_of(
        "CPU of the generator",
        busy <= THRESHOLDS.busy_seconds_share,
        f"mean {shares.mean():.0%}, {waits.mean():.0%} waiting; {busy:.0%} of seconds saturated",
        f"≤ {THRESHOLDS.busy_seconds_share:.0%} of seconds at {THRESHOLDS.busy_cpu_share:.0%} of a core",
        # In a closed loop, users that are slow themselves send less.
        affects=TIMING if scenario.is_open_loop else [*TIMING, Figure.RATES],
        reason=f"the generator used, or waited for, a whole core in {busy:.0%} of its seconds",
        remedy="add workers: --processes -1, lower the load, or close other programs",
    )


def _steal(generator: pd.DataFrame, *, harmless: bool) -> Iterator[Finding]:
    """Yield a finding on stolen CPU time: a cause, which fails a run only if another finding fails."""
    steal = floats(generator, "steal_share")
    steal = steal[~np.isnan(steal)]
    if len(steal):
        mean = float(steal.mean())
        yield finding_of(
            "CPU time stolen",
            harmless or mean <= THRESHOLDS.steal_share,
            f"{mean:.1%}",
            f"≤ {THRESHOLDS.steal_share:.0%}, unless all findings above hold",
            affects=TIMING,
            reason=f"the hypervisor gave {mean:.0%} of this machine's CPU time to others",
            remedy="use a machine with dedicated cores",
        )
