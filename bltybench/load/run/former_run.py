"""Replay of a former run: its arrivals and mix replace those of the scenario."""

from dataclasses import replace
from pathlib import Path

from bltybench.runs.folder import find_run
from bltybench.runs.manifest import read_scenario
from bltybench.scenario.file.resolve import Resolved
from bltybench.scenario.patterns import Replay, Trace


def with_former_run(resolved: Resolved, reports: Path) -> Resolved:
    """Return the scenario with the arrivals, lengths, and mix of the run it replays, if it replays one.

    Each turn of a conversation is replayed as a single request at its original time. Raises UserError if the
    run does not exist or can't be read.
    """
    arrivals = resolved.scenario.arrivals
    if not isinstance(arrivals, Replay):
        return resolved
    # Arrow takes long to import, and only a replay needs it here.
    from bltybench.runs.replay import write_trace  # noqa: PLC0415

    folder = find_run(arrivals.run, reports)
    mix = (
        tuple(call.model_copy(update={"turns": None}) for call in read_scenario(folder.manifest()).mix)
        or resolved.scenario.mix
    )
    path = write_trace(folder, [call.name for call in mix])
    trace = Trace(
        kind="trace",
        file=str(path.absolute()),
        speed=arrivals.speed,
        start_s=arrivals.start_s,
        length_s=arrivals.length_s,
        scale=arrivals.scale,
    )
    return replace(resolved, scenario=resolved.scenario.model_copy(update={"arrivals": trace, "mix": mix}))
