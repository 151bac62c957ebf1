"""What was counted where, and what was left out: lines of the method section."""

from __future__ import annotations

import numpy as np

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import floats
from bltybench.report import text
from bltybench.report.summary import Summary


def counted(analysis: Analysis, summary: Summary) -> list[str]:
    """Return what was counted where, and what was left out, for the method section."""
    attempts = analysis.attempts
    unsent = int(attempts["sent_ns"].isna().sum())
    estimated = int(attempts["tokens_source"].isin(["tokenizer", "events"]).sum())
    unknown = int((attempts["ok"] & attempts["completion_tokens"].isna()).sum())
    ok, stream = attempts["ok"].to_numpy(dtype=bool), attempts["stream"].to_numpy(dtype=bool)
    failed = summary.attempts - int(ok.sum())
    if not summary.attempts:
        return ["There were no attempts."]
    lines = [
        f"{text.count(summary.attempts, 'attempt')} in {text.count(summary.calls, 'call')}; "
        + (
            f"the {failed:,} that did not succeed are in no latency percentile."
            if failed
            else "all succeeded."
        )
    ]
    if unsent:
        lines.append(
            f"{text.count(unsent, 'attempt')} never sent, for want of a connection: counted when due."
        )
    if estimated or unknown:
        lines.append(
            f"Token counts: of {text.count(estimated, 'attempt')} they were estimated on this side, of "
            f"{text.count(unknown, 'answer')} there are none."
        )
    elif ok.any():
        lines.append("Token counts are the server's own, of every success.")
    together = int(np.nansum(floats(attempts, "coalesced_events")[ok & stream]))
    gaps = len(analysis.samples["itl"])
    if together:
        lines.append(
            f"{text.count(together, 'event')} of streams shared a read with a later one: the stamp is an "
            f"upper bound, and with it some of the {gaps:,} gaps."
        )
    elif gaps:
        lines.append(
            f"No two events of a stream shared a read: the {gaps:,} gaps are between stamps of each."
        )
    requested = analysis.manifest.planned_calls
    if requested is not None:
        lines.append(f"The schedule had {text.count(requested, 'call')} until the load stopped.")
    return lines
