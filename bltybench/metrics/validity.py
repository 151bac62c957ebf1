"""VALID or INVALID: was the load generator itself the bottleneck, and was the run what it set out to be?

Every threshold stands in ``Thresholds``; docs/method.md says why each is what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bltybench.metrics.frame import floats
from bltybench.metrics.sample import Sample
from bltybench.runs.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The bounds within which a run is believed."""

    schedule_delay_p99_ms: float = 50.0
    """Sends later than this distort arrivals and every latency counted from them."""
    stall_ms: float = 250.0
    """The longest the event loop may be late in any second."""
    user_stamp_stall_ms: float = 20.0
    """Where arrival stamps are ours and not the kernel's, a stall is an error of TTFT and ITL."""
    busy_cpu_share: float = 0.95
    """A process that used this share of a core in a second, or waited for it, was saturated in it."""
    busy_seconds_share: float = 0.10
    """The most seconds that may have been so."""
    steal_share: float = 0.10
    """The most CPU time that the hypervisor may have given to others, where anything else fails."""
    achieved_share: float = 0.95
    """The least of the requested arrivals (open loop) that must have been sent."""


THRESHOLDS = Thresholds()

MORE_ROOM = "raise users (the ceiling of calls in flight), lower the rate, or add workers: --processes -1"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the audit looked at: what was measured, the bound, and what to do where it does not hold."""

    name: str
    holds: bool
    actual: str
    bound: str
    says: str
    remedy: str = ""


def audit(
    attempts: pd.DataFrame, generator: pd.DataFrame, manifest: Manifest, bounds: Thresholds = THRESHOLDS
) -> list[Finding]:
    """Return every finding; the run is valid where all of them hold."""
    found = [
        _measured(attempts),
        _ended(manifest),
        _audited(generator),
        *_schedule(attempts, bounds),
        *_achieved(attempts, manifest, bounds),
        *_loop(attempts, generator, bounds),
        *_cpu(generator, bounds),
    ]
    return [*found, *_steal(generator, bounds, harmless=all(finding.holds for finding in found))]


def _measured(attempts: pd.DataFrame) -> Finding:
    return Finding(
        name="attempts",
        holds=len(attempts) > 0,
        actual=f"{len(attempts):,}",
        bound="at least 1",
        says="no attempt was recorded: there is nothing to measure",
        remedy="look at what locust printed; a longer run or a higher rate may be needed",
    )


def _ended(manifest: Manifest) -> Finding:
    return Finding(
        name="end of the run",
        holds=manifest.ended_ns is not None,
        actual=manifest.ended or ("ended" if manifest.ended_ns is not None else "killed"),
        bound="the run wrote its end",
        says="the run was killed: its last attempts are missing",
        remedy="run it again and let it end by itself or with Ctrl-C",
    )


def _audited(generator: pd.DataFrame) -> Finding:
    return Finding(
        name="self-audit",
        holds=len(generator) > 0,
        actual=f"{len(generator):,} s",
        bound="at least 1 s",
        says="the generator left no audit of itself, so nothing shows that it kept up",
        remedy="run for longer than a second, and through bltybench's user classes",
    )


def _schedule(attempts: pd.DataFrame, bounds: Thresholds) -> list[Finding]:
    # A user's first call connects before it is sent. That takes as long as the network and the server
    # make it take, and says nothing of the generator.
    connecting_ns = sum(np.nan_to_num(floats(attempts, name)) for name in ("connect_ns", "tls_ns"))
    delays = Sample.of(floats(attempts, "schedule_delay_ms") - connecting_ns / 1e6)
    if len(delays) == 0:
        return []
    p99 = delays.quantile(0.99)
    return [
        _at_most(
            "schedule delay, p99",
            p99,
            bounds.schedule_delay_p99_ms,
            says=f"one send in a hundred was {p99:,.0f} ms or more behind its schedule",
            remedy=MORE_ROOM,
        )
    ]


def _at_most(name: str, ms: float, bound_ms: float, *, says: str, remedy: str, digits: int = 1) -> Finding:
    """Return a finding on a time that has an upper bound."""
    return Finding(name, ms <= bound_ms, f"{ms:,.{digits}f} ms", f"≤ {bound_ms:g} ms", says, remedy)


def _achieved(attempts: pd.DataFrame, manifest: Manifest, bounds: Thresholds) -> list[Finding]:
    requested = requested_calls(manifest)
    if not requested:
        return []
    first_tries = attempts[(attempts["attempt"] == 0) & attempts["sent_ns"].notna()]
    sent = len(first_tries)
    # One call may be due at the very moment at which the load stops.
    least = min(bounds.achieved_share * requested, requested - 1)
    return [
        Finding(
            name="achieved rate",
            holds=bool(sent >= least),
            actual=f"{sent:,} calls of {requested:,} due",
            bound=f"≥ {least:,.0f} calls",
            says=f"only {sent:,} of the {requested:,} calls that were due were sent",
            remedy=MORE_ROOM,
        )
    ]


def requested_calls(manifest: Manifest) -> int | None:
    """Return how many calls an open loop had due until the load stopped; None where that is not known."""
    return manifest.planned_calls


def _loop(attempts: pd.DataFrame, generator: pd.DataFrame, bounds: Thresholds) -> list[Finding]:
    if generator.empty:
        return []
    stall = float(floats(_while_sending(attempts, generator), "stall_us").max()) / 1000
    found = [
        _at_most(
            "event loop, longest stall",
            stall,
            bounds.stall_ms,
            says=f"the event loop stood still for {stall:,.0f} ms: what was due then was sent late",
            remedy="keep slow code out of the locustfile, close other programs, or add workers",
        )
    ]
    user = int((attempts["stamp"] == "user").sum())
    if user:
        p99 = Sample.of(floats(generator, "stall_us") / 1000).quantile(0.99)
        found.append(
            Finding(
                name="arrival stamps",
                holds=p99 <= bounds.user_stamp_stall_ms,
                actual=f"{user:,} attempts stamped after the read, stalls p99 {p99:,.1f} ms",
                bound=f"stalls p99 ≤ {bounds.user_stamp_stall_ms:g} ms",
                says=f"a loop that stalled {p99:,.0f} ms stamped the arrivals: TTFT and ITL are that unsure",
                remedy="run on Linux, where the kernel stamps arrivals, or lower the load",
            )
        )
    lags = Sample.of(floats(attempts, "observer_lag_us") / 1000)
    if len(lags):
        p99 = lags.quantile(0.99)
        found.append(
            _at_most(
                "observer lag, p99",
                p99,
                bounds.stall_ms,
                says=f"answers lay unread for {p99:,.0f} ms: events in between have run together",
                remedy="lower the load of one process, or add workers: --processes -1",
                digits=2,
            )
        )
    return found


def _while_sending(attempts: pd.DataFrame, generator: pd.DataFrame) -> pd.DataFrame:
    """Return the seconds that began before the last attempt was sent.

    When a run ends Locust stops its users, thousands of them in one go: nothing is due any more then.
    """
    began_ns = generator.groupby("worker")["at_ns"].shift(fill_value=0)
    during = generator[began_ns <= attempts["sent_ns"].max()]
    return generator if during.empty else during


def _cpu(generator: pd.DataFrame, bounds: Thresholds) -> list[Finding]:
    if generator.empty:
        return []
    shares = floats(generator, "cpu_share")
    waits = np.nan_to_num(floats(generator, "cpu_wait_share"))
    busy = float(np.mean(shares + waits >= bounds.busy_cpu_share))
    return [
        Finding(
            name="CPU of the generator",
            holds=busy <= bounds.busy_seconds_share,
            actual=f"mean {shares.mean():.0%}, {waits.mean():.0%} waiting; {busy:.0%} of seconds saturated",
            bound=f"≤ {bounds.busy_seconds_share:.0%} of seconds at {bounds.busy_cpu_share:.0%} of a core",
            says=f"the generator used, or waited for, a whole core in {busy:.0%} of its seconds",
            remedy="add workers: --processes -1, lower the load, or close other programs",
        )
    ]


def _steal(generator: pd.DataFrame, bounds: Thresholds, *, harmless: bool) -> list[Finding]:
    """Return what the hypervisor took: a cause, and so only held against a run that shows an effect."""
    steal = floats(generator, "steal_share")
    steal = steal[~np.isnan(steal)]
    if len(steal) == 0:
        return []
    mean = float(steal.mean())
    return [
        Finding(
            name="CPU time stolen",
            holds=harmless or mean <= bounds.steal_share,
            actual=f"{mean:.1%}",
            bound=f"≤ {bounds.steal_share:.0%}, or no effect of it above",
            says=f"the hypervisor gave {mean:.0%} of this machine's CPU time to others",
            remedy="run on a machine with cores of its own",
        )
    ]
