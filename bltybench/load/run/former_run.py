"""Replay of a former run: its arrivals and mix in the place of the scenario's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from bltybench.errors import UserError
from bltybench.runs.folder import find_run
from bltybench.scenario.file.resolve import Resolved
from bltybench.scenario.workload import Call, Replay, Trace

_MIX = TypeAdapter(tuple[Call, ...])


def with_former_run(resolved: Resolved, reports: Path) -> Resolved:
    """Return the scenario with the arrivals, lengths and mix of the run that it names; others as they are.

    The turns of a former conversation are replayed as the single requests that they were, at their times.
    Raises UserError where the run is not there or cannot be read.
    """
    arrivals = resolved.scenario.arrivals
    if not isinstance(arrivals, Replay):
        return resolved
    # Arrow is heavy, and only a replay reads a run here.
    from bltybench.runs.replay import write_trace  # noqa: PLC0415

    folder = find_run(arrivals.run, reports)
    try:
        former = _MIX.validate_python(folder.manifest().resolved.get("mix", ()))
    except ValidationError:
        raise UserError("its mix cannot be read by this version", where=str(folder.manifest_json)) from None
    mix = tuple(call.model_copy(update={"turns": None}) for call in former) or resolved.scenario.mix
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
