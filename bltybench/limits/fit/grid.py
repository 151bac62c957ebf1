"""Candidate parameters of each family: a coarse grid, and finer ones around the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bltybench.limits.fit.thresholds import ESTIMATE, GRID
from bltybench.limits.models.families import FAMILIES, WHOLE_TOKEN_BUCKET
from bltybench.limits.observations.observation import Floats, Ints, Observations


@dataclass(frozen=True, slots=True)
class Grid:
    """Candidates of one family, as arrays of the same length."""

    period: Floats
    """Seconds per window or tick; for a bucket that refills singly, seconds per token."""
    phase: Floats
    """Time of a window edge or tick, on the axis of the observations."""
    tokens: Floats
    """Tokens per tick of an interval refill."""

    def __len__(self) -> int:
        return len(self.period)

    def take(self, chosen: Ints) -> Grid:
        """Return the candidates with these indices."""
        return Grid(self.period[chosen], self.phase[chosen], self.tokens[chosen])

    def plus(self, other: Grid) -> Grid:
        """Return the candidates of both."""
        return Grid(
            np.concatenate([self.period, other.period]),
            np.concatenate([self.phase, other.phase]),
            np.concatenate([self.tokens, other.tokens]),
        )


def plain_grid(period: Floats, phase: Floats | None = None) -> Grid:
    """Return candidates with these periods and phases, for families without ticks."""
    return Grid(period, np.zeros_like(period) if phase is None else phase, np.zeros_like(period))


def coarse_grid(
    family: str, observations: Observations, *, count_refused: bool, hints_s: tuple[float, ...]
) -> Grid:
    """Return the first candidates of any family but the interval refill."""
    span_s, traits = observations.span_s, FAMILIES[family]
    if traits.refills_singly:
        # From refilling the whole burst at once to refilling nothing after it.
        shortest_s = span_s / (50 * int(np.sum(observations.accepted)))
        shortest_s = max(shortest_s, observations.uncertainty_s() / observations.max_in_flight)
        longest_s = max(2 * _longest_lockout_s(observations), 2 * shortest_s)
        if family == WHOLE_TOKEN_BUCKET:
            # An error of the rate does not add up, because each acceptance restarts the refill.
            return plain_grid(_geometric(shortest_s, longest_s, 1 + (GRID.period_step - 1) / 2))
        even = _geometric(shortest_s, longest_s, 1 + (GRID.period_step - 1) / 4)
        return plain_grid(np.union1d(even, _sustained(observations)))
    longest_s = 1.05 * span_s
    shortest_s = _shortest_period_s(observations)
    if count_refused:
        # Refused requests prolong a lockout then, so it says little about the period. Many short windows
        # would take too long to search.
        shortest_s = span_s / (200 if traits.has_recurring_windows else 2000)
        shortest_s = max(shortest_s, GRID.min_period_exchanges * observations.uncertainty_s())
    shortest_s = min(shortest_s, longest_s / 2)
    wanted = [period for period in (*GRID.natural_periods_s, *hints_s) if shortest_s <= period <= longest_s]
    if traits.has_recurring_windows:
        even = _dense(shortest_s, longest_s, span_s)
    else:
        step = GRID.first_hit_counter_step if traits.kind == "counter" else GRID.period_step
        even = _geometric(shortest_s, longest_s, step)
    period = np.union1d(even, np.array(wanted, dtype=np.float64))
    if not traits.has_phase:
        return plain_grid(period)
    middle_s = span_s / 2
    if traits.kind == "counter":
        # Its refusals can end at any time. Phases in the middle of the run make the windows drift least.
        phases = middle_s + period[:, None] * np.arange(GRID.phases) / GRID.phases
    else:
        phases = np.tile(np.array(_edges(observations)), (len(period), 1))
    clock = np.mod(-observations.origin_s, period)
    clock += period * np.round((middle_s - clock) / period)
    phases = np.concatenate([phases, clock[:, None]], axis=1)
    grid = plain_grid(np.repeat(period, phases.shape[1]), phases.ravel())
    steps = np.arange(GRID.hint_phases) / GRID.hint_phases
    for hint_s in hints_s:
        grid = grid.plus(plain_grid(np.full(len(steps), hint_s), middle_s + hint_s * steps))
    return grid


def refill_grid(
    observations: Observations, rates_per_s: tuple[float, float], limits: Sequence[int] = ()
) -> Grid:
    """Return interval refills whose rate is within a range.

    Ticks are at the ends of refusals. The tokens per tick divide one of ``limits`` or, without these, what
    was accepted in one run.
    """
    span_s = observations.span_s
    longest_s = min(1.1 * _longest_lockout_s(observations), 1.05 * span_s)
    shortest_s = _shortest_period_s(observations)
    even = _dense(min(shortest_s, longest_s / 1.2), longest_s, span_s)
    natural = [period for period in GRID.natural_periods_s if shortest_s <= period <= longest_s]
    tick = np.concatenate([even, natural])
    # A full bucket holds the first run, or the longest one. The search tries the best limit's divisors later.
    full = limits or (observations.first_accepted_run, observations.longest_accepted_run)
    tokens = np.unique([limit / ticks for ticks in GRID.tick_counts for limit in full])
    which, share = np.nonzero(
        (tokens >= rates_per_s[0] * tick[:, None])
        & (tokens <= rates_per_s[1] * tick[:, None])
        & (tokens >= GRID.min_tokens_per_tick)
    )
    if not len(which):
        # Nothing has such a rate. One candidate is enough to show that it does not fit.
        which, share = np.array([0]), np.array([len(tokens) - 1])
    phases = np.array([(lo + hi) / 2 for lo, hi in precise_recoveries(observations)])
    return Grid(
        np.repeat(tick[which], len(phases)),
        np.tile(phases, len(which)),
        np.repeat(tokens[share], len(phases)),
    )


def first_hit_grid(period: Floats, observations: Observations) -> Grid:
    """Return windows with these periods that start during the first exchange."""
    anchors = GRID.first_hit_anchors
    phases = np.linspace(observations.lo[0], observations.hi[0], anchors)
    return plain_grid(np.repeat(period, anchors), np.tile(phases, len(period)))


def aligned_grid(period_s: float, observations: Observations) -> Grid:
    """Return windows of one period that start at its multiples in Unix time, by clocks that may differ."""
    middle_s = observations.span_s / 2
    edge_s = -observations.origin_s % period_s
    edge_s += period_s * round((middle_s - edge_s) / period_s)
    tolerance_s = min(ESTIMATE.clock_error_s, ESTIMATE.clock_error_fraction * period_s)
    phases = edge_s + np.linspace(-tolerance_s, tolerance_s, GRID.aligned_phases)
    return plain_grid(np.full(len(phases), period_s), phases)


def round_numbers(low: float, high: float) -> list[float]:
    """Return the numbers of up to two significant digits in a range, which must be positive."""
    step = 10.0 ** (math.floor(math.log10(low)) - 1)
    return [float(f"{count * step:.2g}") for count in range(math.ceil(low / step), int(high / step) + 1)]


def finer_grid(family: str, best: Grid, width: Floats, slack_s: Floats) -> Grid:
    """Return candidates around others, within a relative ``width`` and a phase of ``slack_s``."""
    steps = np.linspace(-1.0, 1.0, 7)
    shifts = steps if FAMILIES[family].has_phase else np.zeros(1)
    shape = (len(best), len(steps), len(shifts))
    period = best.period[:, None, None] * (1 + width[:, None, None] * steps[None, :, None])
    phase = best.phase[:, None, None] + slack_s[:, None, None] * shifts[None, None, :]
    tokens = best.tokens[:, None, None]
    return Grid(*(np.broadcast_to(values, shape).ravel() for values in (period, phase, tokens)))


def _geometric(shortest_s: float, longest_s: float, step: float) -> Floats:
    steps = int(np.ceil(np.log(longest_s / shortest_s) / np.log(step)))
    return np.array(shortest_s * step ** np.arange(steps + 1), dtype=np.float64)


def _dense(shortest_s: float, longest_s: float, span_s: float) -> Floats:
    """Return periods between which the last window of the run shifts by at most ``max_drift``."""
    periods = [shortest_s]
    while periods[-1] < longest_s:
        step = min(GRID.period_step - 1, GRID.max_drift * periods[-1] / span_s)
        periods.append(periods[-1] * (1 + step))
    return np.array(periods, dtype=np.float64)


def _sustained(observations: Observations) -> Floats:
    """Return seconds per token at about the rate at which the run was accepted, without steps that matter.

    A bucket that is hardly ever full adds up an error of its rate over the whole run.
    """
    accepted = int(np.sum(observations.accepted))
    low, high = (factor * accepted for factor in GRID.sustained_rates)
    tokens = np.arange(max(1.0, low), high, GRID.max_token_drift)
    return np.array(observations.span_s / tokens, dtype=np.float64)


def _longest_lockout_s(observations: Observations) -> float:
    return max(lockout.max_s for lockout in observations.lockouts if lockout.recovery is not None)


def _shortest_period_s(observations: Observations) -> float:
    """Return the shortest period that can explain the refusals and that a sequential client can detect."""
    span_s = observations.span_s
    lockout_s = max(lockout.min_s for lockout in observations.lockouts)
    return max(0.6 * lockout_s, span_s / 2000, GRID.min_period_exchanges * observations.uncertainty_s())


def precise_recoveries(observations: Observations) -> list[tuple[float, float]]:
    """Return the recoveries with the most precise times."""
    return sorted(observations.recoveries, key=lambda times: times[1] - times[0])[: GRID.recoveries]


def _edges(observations: Observations) -> list[float]:
    """Return where a window edge may be: at the first request, or where refusals ended."""
    edges = [float(observations.lo[0]), float(observations.hi[0])]
    for lo, hi in precise_recoveries(observations):
        edges += [lo + share * (hi - lo) for share in (0.02, 0.5, 0.98)]
    return edges
