"""The numbers that the search for two limits relies on, with their units and reasons."""

from dataclasses import dataclass

from bltybench.limits.fit.thresholds import SCORING


@dataclass(frozen=True, slots=True)
class PairThresholds:
    """How two limits are searched, and when they are reported."""

    refused_acceptances: tuple[int, ...] = (0, 1, 3)
    """Acceptances that a candidate of the coarse grid can refuse. The true limit can, because its period and
    its phase are not exact there."""
    max_short_period: float = 0.05
    """Natural periods to try at all phases are up to this fraction of the run. For longer ones, the ends of
    refusals show the phase well enough."""
    phases: int = 40
    """Phases to try at such a period."""
    period_bins: int = 24
    """Periods to distinguish per family, evenly spaced on a logarithmic scale."""
    long_lockouts: int = 3
    """Longest lockouts whose ends are tried as edges of windows."""
    per_bin: int = 4
    """Candidates to keep for each of them: those that explain most refusals."""
    started: int = 3
    """Best pairs on the coarse grid to refine, of different families or periods."""
    near: int = 2
    """Best single families to start from as well."""
    max_fits: int = 6
    """Maximum fits of one limit given the other one. Usually, the second of each is like the first."""
    min_refusals: int = 6
    """Refusals that each limit must explain while the other would have accepted. Bans and other clients make
    refusals that a second limit explains by chance, up to about four."""
    min_exhausted_periods: float = 2
    """Time for which a longer limit must have refused all requests, in periods of the shorter one."""
    margin: float = 8 * SCORING.contradiction_cost
    """Cost by which a pair must be better than the best single family: it has four more parameters."""
    max_unexplained: float = 0.15
    """Maximum contradictions of a pair on the coarse grid, as a fraction of the refusals. Above, no pair is
    refined."""


PAIRS = PairThresholds()
