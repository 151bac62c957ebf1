"""The settings to copy, below the advice at the top of a page."""

from bltybench.metrics.analysis import Analysis
from bltybench.policies.advice.known_limits import (
    by_total_tokens,
    completed,
    documented_limits,
    measured_limits,
)
from bltybench.policies.advice.prescription import prescribe
from bltybench.policies.advice.setting import Setting
from bltybench.policies.advice.settings import settings, timeout_s
from bltybench.report.page.limits_section import LimitsSection
from bltybench.report.run_load import distinct_call_sizes
from bltybench.report.summary import Summary


def client_settings(
    summary: Summary, limits: LimitsSection | None, analysis: Analysis, *, trusted: bool
) -> Setting | None:
    """Return the settings of one openai client that keeps the limits. None without a limit to keep.

    A capacity search has none, because the load that it found is below the limits. A log has none if it does
    not name the API's address. A run with several targets, models, or limits has none, because a client has
    one of each.
    """
    target, several = analysis.manifest.target, analysis.manifest.other_targets
    if several or len(analysis.scenario.models_on()) > 1 or (limits is not None and limits.record.parts):
        return None
    if limits is None or summary.search is not None or not trusted or not target.base_url:
        return None
    known, _ = completed(measured_limits(limits.record), documented_limits(target.documented))
    known = by_total_tokens(known, distinct_call_sizes(analysis))
    made = prescribe(known, (), banned=limits.record.ban is not None)
    if not made.windows and made.in_flight is None:
        return None
    slowest_ms = summary.timings_ms["attempt_latency"]["max"]
    timeout = timeout_s(None if slowest_ms is None else slowest_ms / 1000)
    return settings(made, model=summary.model, base_url=target.base_url, timeout_s=timeout)[0]
