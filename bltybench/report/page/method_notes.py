"""Notes for the method section: what this run counts, and what it excludes."""

import numpy as np

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import bools, estimated_tokens, first_token_coalesced, floats, in_one_read
from bltybench.metrics.latency import MAX_UNMARKED_SHARE
from bltybench.report import text


def method_notes(analysis: Analysis) -> list[str]:
    """Return the notes."""
    attempts = analysis.attempts
    if attempts.empty:
        return ["There were no attempts."]
    ok, stream = bools(attempts, "ok"), attempts["stream"].to_numpy(dtype=bool, na_value=False)
    failed = len(attempts) - int(ok.sum())
    notes = [
        f"{text.count(len(attempts), 'attempt')} in {text.count(len(analysis.calls), 'call')}. "
        + (f"Latency percentiles exclude the {failed:,} that failed." if failed else "All succeeded.")
    ]
    unsent = int(attempts["sent_ns"].isna().sum())
    if unsent and analysis.imported is not None:
        notes.append(f"{text.count(unsent, 'attempt')} without a duration: counted at the time of the log.")
    elif unsent:
        notes.append(
            f"{text.count(unsent, 'attempt')} never sent because there was no connection: counted when due."
        )
    estimated = int(estimated_tokens(attempts).sum())
    unknown = int((attempts["ok"] & attempts["completion_tokens"].isna()).sum())
    if estimated or unknown:
        notes.append(
            f"Token counts: estimated for {text.count(estimated, 'attempt')}, "
            f"unknown for {text.count(unknown, 'successful attempt')}."
        )
    elif ok.any():
        notes.append("The server reported the token counts of all successful attempts.")
    at_once = int((in_one_read(attempts) & ok & (floats(attempts, "completion_tokens") > 1)).sum())
    if at_once:
        notes.append(
            f"The server did not really stream: {text.count(at_once, 'response')} arrived with all tokens in "
            "one event or read. Their ITL and TPOT are not measured."
        )
    coalesced = int(np.nansum(floats(attempts, "coalesced_events")[ok & stream]))
    gaps = len(analysis.samples["itl"])
    if coalesced:
        notes.append(
            f"{text.count(coalesced, 'event')} of streams shared a read with a later event. Their timestamps "
            f"are upper bounds, which affects some of the {gaps:,} gaps."
        )
    elif gaps:
        notes.append(f"No two events of a stream shared a read: all {gaps:,} gaps have separate timestamps.")
    late = int((first_token_coalesced(attempts) & ok).sum())
    if late:
        notes.append(
            f"{text.count(late, 'first token')} shared a read with a later event, so TTFT of these streams "
            f"is an upper bound. Percentiles are marked 'at most' if more than {MAX_UNMARKED_SHARE:.1%} are."
        )
    planned = analysis.manifest.planned_calls
    if planned is not None:
        notes.append(f"The schedule had {text.count(planned, 'call')} due before the load stopped.")
    return notes
