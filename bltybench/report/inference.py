"""From attempts with one or several keys, models, and targets to one record of the limits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from bltybench.limits.findings.conclude import find, period_hints, to_record
from bltybench.limits.findings.model import FindingsRecord, PartRecord
from bltybench.limits.fit.result import Status, Verdict
from bltybench.limits.observations.extract import Timing, observations_of
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.sharing import Conditions, Part, divide
from bltybench.runs.attempt import Attempt
from bltybench.runs.manifest import Manifest, TargetInfo
from bltybench.scenario.api.documented_limits import per_minute

OWN_LIMITS = "it has several limits, each analyzed alone"
"""Why no limiter is found in a whole run."""


@dataclass(frozen=True, slots=True)
class Inference:
    """How the limits of a run are inferred."""

    manifest: Manifest
    timing: Timing
    probed: bool
    """Whether a probe timed the requests. It uses one key, and tests models and other keys on purpose."""

    def record(self, attempts: Sequence[Attempt]) -> FindingsRecord:
        """Return what attempts show about limits: one limit, or that of each key, model, or target."""
        if self.probed:
            return self._find(Part({}, attempts))
        hints_s = period_hints(self._documented(self.manifest.target), self._context(self.manifest.target))
        parts, sharing = divide(attempts, Conditions(self._start_s, hints_s, self.timing))
        says = [one.says for one in sharing]
        if len(parts) < 2:
            record = self._find(parts[0] if parts else Part({}, attempts))
            if not parts or parts[0].unclear is None:
                record = structs.replace(record, says=(*says, *record.says))
            return structs.replace(record, sharing=tuple(sharing))
        found = tuple(PartRecord(dict(part.owner), self._find(part)) for part in parts)
        whole = self._find(Part({}, attempts, unclear=OWN_LIMITS))
        lines = [f"{part.name}: {line}" for part in found for line in part.findings.says]
        return structs.replace(
            whole,
            says=(*says, *lines),
            advice=tuple(_owned(part.name, line) for part in found for line in part.findings.advice),
            sharing=tuple(sharing),
            parts=found,
        )

    def _find(self, part: Part) -> FindingsRecord:
        target = next(
            (info for info in self.manifest.targets if info.name == part.owner.get("target")),
            self.manifest.target,
        )
        timing, verdict, documented = self.timing, None, self._documented(target)
        if part.unclear is not None:
            # Whose limit a header or a refusal is about is unknown, so their order shows nothing.
            timing = replace(timing, retries_inside=True)
            verdict, documented = _open(part, self._start_s, timing), None
        found = find(
            part.attempts,
            self._start_s,
            documented,
            verdict,
            known=self._context(target),
            probed=self.probed,
            timing=timing,
        )
        return to_record(found, self.manifest.run_id)

    @property
    def _start_s(self) -> float:
        return self.manifest.clock.wall_ns / 1e9

    def _documented(self, target: TargetInfo) -> int | None:
        return per_minute(target.documented, "requests")

    def _context(self, target: TargetInfo) -> ProbeContext:
        limits = target.documented
        return ProbeContext(
            tokens_per_min=per_minute(limits, "tokens"), concurrency=per_minute(limits, "concurrency")
        )


def _open(part: Part, start_s: float, timing: Timing) -> Verdict:
    """Return the verdict on attempts that several limits may have decided on."""
    decided = [one.accepted for one in observations_of(part.attempts, start_s, timing)]
    accepted, refused = decided.count(True), decided.count(False)
    status: Status = "unknown" if refused else "never_refused"
    return Verdict(status, len(decided), accepted, refused, reason=(part.unclear or "") if refused else "")


def _owned(name: str, line: str) -> str:
    """Return a line of advice for one of several limits; its topic stays first."""
    topic, colon, rest = line.partition(": ")
    return f"{topic}: {name}: {rest}" if colon else f"{name}: {line}"
