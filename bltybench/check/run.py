"""A complete check: reach the API, send the requests, evaluate."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import UTC, datetime

from bltybench.check import drain, models
from bltybench.check.capabilities import capabilities
from bltybench.check.client import Client, refuse_key
from bltybench.check.evidence import FIXED_REQUESTS, MODELS, Evidence, max_tokens
from bltybench.check.expectations import completion, errors, ratelimits, request, stream
from bltybench.check.finding import CheckFinding, Checkup
from bltybench.check.gather import gather
from bltybench.check.reach import reach
from bltybench.check.request_keys import MAX_REPEATS
from bltybench.errors import UserError
from bltybench.sandbox.process import start_if_absent
from bltybench.scenario.api.access import read_key
from bltybench.scenario.api.documented_limits import one_limit, per_minute
from bltybench.scenario.target import Target
from bltybench.text import sanitize

GROUPS = (models.group, request.group, completion.group, stream.group, errors.group, ratelimits.group)
RESTRICTED_SUFFIX = "_RESTRICTED"
"""Suffix of the environment variable (after the first key) for a key without permission for the model."""


def check(
    name: str,
    target: Target,
    *,
    model: str | None = None,
    usual_model: str | None = None,
    spend_429: bool | None = None,
    tell: Callable[[str], None],
) -> Checkup:
    """Check ``target`` (named ``name``) and return the findings.

    ``model`` is the one to test. Without it, use ``usual_model`` if the API lists it, or else the first in
    the list. ``spend_429``: whether to exhaust the request limit to provoke a 429; None means on the sandbox
    only. ``tell`` receives progress lines.

    Raise UserError if nothing can be tested: no key, a refused key, or no response.
    """
    access = target.access(name)
    limit, window_s = _limit(target)
    unspent = _why_unspent(target, limit, spend_429)
    _announce(name, target, limit if unspent is None else None, tell)
    with start_if_absent(target) or nullcontext() as sandbox:
        if sandbox is not None:
            tell("Started the sandbox for the check.")
        started = datetime.now(UTC)
        findings = reach(target, access)
        with closing(Client(target, access)) as client:
            listing = client.get(MODELS)
            if listing.status is None:
                raise UserError(
                    f"no response to GET {MODELS}: {listing.failure}",
                    where=target.base_url,
                    remedy="check whether the server speaks HTTP on this port",
                )
            refuse_key(name, target, listing)
            chosen = model or _choose(usual_model, models.listed(listing))
            restricted = _restricted(target, chosen)
            evidence = gather(client, chosen, listing, keyed=access.key is not None, restricted=restricted)
            if restricted is None:
                variable = target.key_names and target.key_names[0] + RESTRICTED_SUFFIX
                evidence.skipped["forbidden"] = (
                    f"needs a key without permission for the model, in {variable}"
                    if variable
                    else "the target has no api_key_env"
                )
            if evidence.plain is not None:
                refuse_key(name, target, evidence.plain)
            evidence.limit_requests, evidence.window_s = limit, window_s
            if unspent is not None:
                evidence.skipped["refused"] = unspent
            elif limit is not None and evidence.plain is not None and evidence.plain.status == 200:
                at_once = max(
                    1, (per_minute(target.documented, "concurrency") or 2 * drain.MAX_IN_FLIGHT) // 2
                )
                drain.drain(client, evidence, limit=limit, at_once=at_once, tell=tell)
    findings += judge(evidence)
    works, fails = capabilities(findings)
    return Checkup(
        target=name,
        base_url=target.base_url,
        model=sanitize(evidence.model),
        started=started.isoformat(timespec="seconds"),
        requests_sent=client.sent,
        works=works,
        fails=fails,
        keys=evidence.keys,
        findings=findings,
    )


def judge(evidence: Evidence) -> list[CheckFinding]:
    """Return the findings of all expectations, in order."""
    return [expectation(evidence) for group in GROUPS for expectation in group.expectations]


def _choose(usual: str | None, listed: list[str]) -> str:
    if usual is not None and (usual in listed or not listed):
        return usual
    if listed:
        return listed[0]
    raise UserError("the API lists no model to test", remedy="name one with --model")


def _limit(target: Target) -> tuple[int | None, float]:
    """Return the expected request limit and its window, in seconds."""
    if target.sandbox is not None:
        rule = target.sandbox.limits.requests
        return (rule.limit, rule.period_s) if rule else (None, 60.0)
    documented = one_limit(target.documented, "requests")
    return (None, 60.0) if documented is None else (documented.limit, documented.period_s or 60.0)


def _why_unspent(target: Target, limit: int | None, spend: bool | None) -> str | None:
    """Return why no 429 will be provoked, or None if one will."""
    if spend is None:
        spend = target.sandbox is not None
    if not spend:
        return "not provoked, because it exhausts the limit: add --spend-429"
    if limit is None:
        return "the target documents no request limit"
    if limit > drain.MAX_LIMIT:
        return f"a limit of {limit} is too high for a check to exhaust (maximum {drain.MAX_LIMIT})"
    return None


def _announce(name: str, target: Target, spent: int | None, tell: Callable[[str], None]) -> None:
    """Print the maximum spend. Raise UserError if it exceeds the target's budget."""
    requests = FIXED_REQUESTS + MAX_REPEATS + (drain.max_requests(spent) if spent else 0)
    tokens = max_tokens(target) + (drain.max_tokens(target, spent) if spent else 0)
    for needed, unit in ((requests, "requests"), (tokens, "tokens")):
        cap = getattr(target.budget, unit)
        if cap is not None and needed > cap:
            raise UserError(
                f"the check can need {needed} {unit}, but the budget of target '{name}' is {cap}",
                remedy="raise it" + (", or omit --spend-429" if spent else ""),
            )
    tell(f"Checking {name} at {target.base_url}: at most {requests} requests and {tokens} tokens.")


def _restricted(target: Target, model: str) -> tuple[str, str] | None:
    """Return a key without permission and the model it may not use, or None."""
    if target.sandbox is not None:
        for key in target.sandbox.keys:
            allowed = key.models or target.sandbox.models
            barred = [name for name in target.sandbox.models if name not in allowed]
            if barred:
                return key.key, barred[0]
    secret = read_key(target.key_names[0] + RESTRICTED_SUFFIX) if target.key_names else None
    return (secret.get_secret_value(), model) if secret else None
