"""Expectations for the keys of a request."""

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped
from bltybench.check.request_keys import BOUND, STREAM_OPTIONS, TEMPERATURE

group = Group("request")


def _verdict(evidence: Evidence, key: str, response: CheckResponse | None) -> Verdict:
    if key in evidence.rejected:
        return broken(evidence.rejected[key])
    if response is None or response.status != 200:
        return skipped("no successful response to check")
    return holds("accepted")


@group.expect(
    "bound of completions",
    "max_tokens, or the target's max_tokens_key, is accepted",
    remedy="set max_tokens_key of the target to the other key (see above, or use --write)",
)
def _bound(evidence: Evidence) -> Verdict:
    return _verdict(evidence, BOUND, evidence.plain)


@group.expect(
    "temperature",
    "temperature = 0 is accepted",
    remedy="leave temperature out of calls with this model",
)
def _temperature(evidence: Evidence) -> Verdict:
    return _verdict(evidence, TEMPERATURE, evidence.plain)


@group.expect(
    "stream_options",
    "a stream accepts stream_options, which asks for its usage",
    remedy="set stream_options = false of the target (or use --write); tokens of streams are then estimated",
)
def _stream_options(evidence: Evidence) -> Verdict:
    if "usage" in evidence.skipped and STREAM_OPTIONS not in evidence.rejected:
        return skipped(evidence.skipped["usage"])
    return _verdict(evidence, STREAM_OPTIONS, evidence.stream)
