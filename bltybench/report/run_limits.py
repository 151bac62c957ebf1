"""From a run's rows to its findings about limits, for the page, notebooks, and ``bltybench limits`` alike."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bltybench.imports.record import read_import
from bltybench.limits.findings.model import DamagedFindingsError, FindingsRecord, decode
from bltybench.limits.observations.classify import STAND_INS
from bltybench.limits.observations.extract import EXACT, Timing
from bltybench.limits.observations.observation import informative_part
from bltybench.policies.advice.known_limits import Sources, completed, documented_limits, measured_limits
from bltybench.report.inference import Inference
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.files import open_regular
from bltybench.runs.folder import RunFolder
from bltybench.runs.store import ATTEMPT_SCHEMA, attempt_columns, attempt_rows, readable, to_attempts
from bltybench.scenario.target import SandboxLimits

MAX_ATTEMPTS = 2000
"""Maximum successive attempts to analyze: all of a usual probe, and a part of a long run."""
RANKING_COLUMNS = ("sent_ns", "outcome", "status")
"""Columns that ``most_informative`` reads."""


@dataclass(frozen=True, slots=True)
class AnalyzedAttempts:
    """The attempts that a run's findings are from, in sending order."""

    attempts: list[Attempt]
    sent: int
    """Attempts that the whole run sent."""

    @property
    def part(self) -> str | None:
        """Which part of the run they are; None if they are the whole run."""
        if len(self.attempts) == self.sent:
            return None
        return f"{len(self.attempts):,} of {self.sent:,} attempts, chosen for their recoveries"


def analyzed_attempts(folder: RunFolder) -> AnalyzedAttempts:
    """Return the attempts to analyze. Of a long run, only the part with these is in memory."""
    others = set(ATTEMPT_SCHEMA.names) - set(RANKING_COLUMNS)
    ranking = pa.table(dict(attempt_columns(folder, without=others)))
    chosen, sent_ns = most_informative(ranking, MAX_ATTEMPTS), ranking["sent_ns"]
    attempts = to_attempts(attempt_rows(folder, chosen, without={"gaps_us"}), folder)
    return AnalyzedAttempts(attempts, len(sent_ns) - sent_ns.null_count)


def most_informative(attempts: pa.Table, size: int) -> npt.NDArray[np.uint64]:
    """Return the rows of at most ``size`` successive attempts, in sending order (``informative_part``).

    Attempts that were never sent are excluded.
    """
    sent_ns = attempts["sent_ns"]
    order = np.asarray(np.from_dlpack(pc.sort_indices(sent_ns)), np.uint64)
    order = order[: len(sent_ns) - sent_ns.null_count]  # nulls come last
    if len(order) > size:
        refused = _is_any(attempts["outcome"], [Outcome.RATE_LIMITED]) | _is_any(
            attempts["status"], STAND_INS
        )
        ok = _is_any(attempts["outcome"], [Outcome.OK])
        order = order[informative_part(refused[order], ok[order], size)]
    return order


def _is_any(column: pa.ChunkedArray, values: Collection[object]) -> npt.NDArray[np.bool_]:
    """Return which rows of a column have one of the values."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    codes = [code for code, value in enumerate(encoded.dictionary.to_pylist()) if value in values]
    return np.isin(np.from_dlpack(encoded.indices), codes)


def findings_of(folder: RunFolder, attempts: Sequence[Attempt]) -> FindingsRecord:
    """Return what the analyzed attempts of a run show about its limits."""
    manifest = folder.manifest()
    return Inference(manifest, timing_of(folder), (folder.path / "limits.json").is_file()).record(attempts)


def timing_of(folder: RunFolder) -> Timing:
    """Return how exactly the times of a run are known."""
    source = read_import(folder)
    if source is None:
        return EXACT
    return Timing(
        source.clock_s, source.retries_inside, headers=source.headers > 0, unclear=source.unclear_limits
    )


def recorded_findings(
    folder: RunFolder, attempts: Sequence[Attempt]
) -> tuple[FindingsRecord, bool, str | None]:
    """Return what a run shows about its limits, whether a probe stored it, and why that can't be read.

    Without ``limits.json``, or with a damaged one, the findings are inferred from the attempts.
    """
    damaged = None
    try:
        with open_regular(folder.path / "limits.json") as file:
            return decode(file.read()), True, None
    except FileNotFoundError:
        pass
    except (DamagedFindingsError, OSError) as error:
        damaged = str(error)
    return findings_of(folder, attempts), False, damaged


class KnownLimits(NamedTuple):
    """The limits that a client of a run's API has to keep."""

    limits: SandboxLimits
    sources: Sources
    probed: bool
    """Whether a probe measured them."""
    banned: bool
    """Whether a refusal starts a ban."""


def known_limits(folder: RunFolder) -> KnownLimits:
    """Return the limits that a run shows, and those documented of which it shows nothing."""
    with readable(folder):
        record, probed, _ = recorded_findings(folder, analyzed_attempts(folder).attempts)
    documented = documented_limits(folder.manifest().target.documented)
    limits, sources = completed(measured_limits(record), documented)
    return KnownLimits(limits, sources, probed, banned=record.ban is not None)
