"""What a run shows about an API's limits, and the form in which ``limits.json`` stores it."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, Struct, UnsetType

from bltybench.limits.fit.in_flight import ConcurrencyFit
from bltybench.limits.fit.result import Phase, Status, Verdict
from bltybench.limits.headers.honesty import Honesty
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.classify import Decision
from bltybench.limits.observations.proportion import Proportion
from bltybench.limits.observations.waits import Waits

FINDINGS_VERSION = 1
"""Version of ``limits.json``. Raised when a key changes its meaning."""

Value = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Findings:
    """The documented, announced, and observed limits of one run."""

    documented_per_min: int | None
    verdict: Verdict
    honesty: Honesty
    refusal_statuses: Mapping[int, int]
    """Statuses of the refusals, the most frequent first, with their numbers."""
    refused_by: Mapping[Decision, int]
    """Number of refusals by each limit, the most frequent first."""
    busiest_count: int
    """Most requests accepted within 60 s."""
    busiest_at_s: float
    """Unix time of the first of them."""
    in_flight: ConcurrencyFit | None = None
    """Concurrency limit, if one alone would fit the refusals."""
    answers: tuple[Answer, ...] = ()
    """Results of the other experiments."""
    replayed: Proportion | None = None
    """Decisions of the API that the fitted limiter makes too, as ``limits.toml`` describes it; None if no
    single one fits."""
    waits: Waits | None = None
    """How long the probe's requests waited, if several did; None for other runs, which generate for long."""
    full_refusals: int = 0
    """Refusals for which the measured limit on requests in flight is a reason. They are not fitted."""

    @property
    def refusal_status(self) -> int | None:
        """Most frequent status of the refusals."""
        return next(iter(self.refusal_statuses), None)

    def value(self, question: str) -> Value:
        """Return the answer to a question; None if it is unknown or was not asked."""
        return next((answer.value for answer in self.answers if answer.question == question), None)


class FitRecord(Struct, frozen=True, kw_only=True):
    """One family with its fitted parameters."""

    family: str
    limit: int
    limit_range: tuple[int, int]
    period_s: float
    period_range_s: tuple[float, float]
    rate_per_min: float
    safe_rate_per_min: float | None = None
    """Sustained rate that is surely accepted; None in files of earlier versions."""
    phase: Phase | None
    phase_s: float | None
    """Start of the windows, in seconds after a whole period of Unix time."""
    ticks: int | None
    free: int | None = None
    count_refused: bool | None
    contradictions: int
    spread: bool = False
    """Whether accepted requests are delayed, so that they are spread out over their window."""
    seats: int | None = None
    """Requests that can wait until they fit; None if the server delays none."""
    refusals: int | None = None
    """Of two limits: refusals by this one while the other would have accepted."""
    also: "FitRecord | None" = None
    """A second limit, which sustains a higher rate. A request has to fit both."""

    @property
    def rate_to_send_per_min(self) -> float:
        """Rate, in requests per minute, at which to send."""
        return self.rate_per_min if self.safe_rate_per_min is None else self.safe_rate_per_min


class RuledOutRecord(Struct, frozen=True, kw_only=True):
    """A family that was tried and ruled out."""

    family: str
    count_refused: bool | None
    contradictions: int


class InFlightRecord(Struct, frozen=True, kw_only=True):
    """A concurrency limit that fits the refusals."""

    limit: int
    limit_range: tuple[int, int]
    contradictions: int


class DelayRecord(Struct, frozen=True, kw_only=True):
    """The pace at which the server serves queued requests."""

    interval_s: float
    interval_range_s: tuple[float, float]
    rate_per_min: float
    free: int
    explained: int
    answers: int
    held: int
    longest_wait_s: float


class BanRecord(Struct, frozen=True, kw_only=True):
    """A time in which the server accepts nothing, because it refused a request."""

    length_range_s: tuple[float, float]
    restarts: bool | None
    """Whether each refusal restarts the ban; None if that is unknown."""
    limit_range: tuple[int, int]
    """The limit that starts the ban, in requests."""
    period_range_s: tuple[float, float]
    safe_rate_per_min: float


class ExhaustedRecord(Struct, frozen=True, kw_only=True):
    """A longer limit than the one that was found, which refused all requests at the end of the run."""

    accepted: int
    within_s: float
    refused: int
    lasted_s: float


class ProportionRecord(Struct, frozen=True, kw_only=True):
    """``count`` of ``of``, with the Wilson 95% interval of the fraction."""

    count: int
    of: int
    interval: tuple[float, float] | None


class HeaderRecord(Struct, frozen=True, kw_only=True):
    """What the rate-limit headers claimed, compared with what happened."""

    remaining_steps: ProportionRecord
    retry_enough: ProportionRecord
    retry_early: ProportionRecord
    without_retry_after: ProportionRecord


class DocumentedRecord(Struct, frozen=True, kw_only=True):
    """Limits that scenarios.toml states for the target."""

    requests_per_min: int | None


class AnnouncedRecord(Struct, frozen=True, kw_only=True):
    """The limit that most responses announced, and their header format."""

    limit: int | None
    dialect: str | None


class BusiestRecord(Struct, frozen=True, kw_only=True):
    """Most requests accepted within 60 s, and when those began (UTC, ISO 8601)."""

    accepted: int
    at: str | None


class AnswerRecord(Struct, frozen=True, kw_only=True):
    """The answer to one question."""

    question: str
    value: Value
    range: tuple[float, float | None] | None
    """Smallest and largest possible number; a largest of None means "at least"."""
    confidence: float | None
    evidence: tuple[str, ...]
    reason: str | None
    says: str


class Sharing(Struct, frozen=True):
    """Whether several keys, or models, share a limit."""

    of: str
    """``key`` or ``model``."""
    names: tuple[str, ...]
    shared: bool | None
    """None if the run does not show it."""
    refused: int
    """Refusals that were compared."""
    says: str
    """The answer with its evidence, as a sentence."""


class PartRecord(Struct, frozen=True):
    """What a run shows about the limit of one of several keys, models, or targets."""

    owner: dict[str, str]
    """Its target, key, and model, as far as others differ in them."""
    findings: "FindingsRecord"

    @property
    def name(self) -> str:
        """The owner in words."""
        return ", ".join(self.owner.values())


class FindingsRecord(Struct, frozen=True, kw_only=True):
    """The content of ``limits.json``. docs/limits.md explains each key."""

    run_id: str
    stopped: str | UnsetType | None = UNSET
    """Why the probe ended early. Omitted for a run that was no probe."""
    findings_version: int = FINDINGS_VERSION
    status: Status
    reason: str | None
    confidence: float | None
    attempts: int
    accepted: int
    refused: int
    refusal_status: int | None
    refusal_statuses: dict[int, int] = {}
    refused_by: dict[str, int] = {}
    documented: DocumentedRecord
    announced: AnnouncedRecord
    observed: FitRecord | None
    consistent: tuple[FitRecord, ...]
    rejected: tuple[RuledOutRecord, ...]
    in_flight: InFlightRecord | None = None
    delayed: DelayRecord | None = None
    ban: BanRecord | None = None
    exhausted: ExhaustedRecord | None = None
    busiest_minute: BusiestRecord
    headers: HeaderRecord
    replayed: ProportionRecord | None = None
    answers: tuple[AnswerRecord, ...] = ()
    says: tuple[str, ...]
    advice: tuple[str, ...] = ()
    sharing: tuple[Sharing, ...] = ()
    """Of a run with several keys or models."""
    parts: tuple[PartRecord, ...] = ()
    """The limits of those that have one of their own. Without any, the record itself is the limit's."""

    @property
    def slowest(self) -> FitRecord | None:
        """The candidate that accepts least, which a client has to respect."""
        return min(self.consistent, key=lambda fit: fit.rate_to_send_per_min, default=None)


class DamagedFindingsError(ValueError):
    """``limits.json`` is not what this version writes. The message says why."""


class _Version(Struct):
    findings_version: int


def encode(record: FindingsRecord) -> bytes:
    """Return the bytes of ``limits.json``."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def decode(data: bytes) -> FindingsRecord:
    """Return the content of ``limits.json``. Raises DamagedFindingsError."""
    try:
        version = msgspec.json.decode(data, type=_Version).findings_version
        if version == FINDINGS_VERSION:
            return msgspec.json.decode(data, type=FindingsRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFindingsError(str(error)) from None
    raise DamagedFindingsError(
        f"its findings_version is {version}, but this version reads {FINDINGS_VERSION}"
    )
