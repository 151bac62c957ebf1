"""Write the findings as ``limits.toml``, so that the sandbox enforces the limits that were measured."""

import tomllib
from collections.abc import Mapping, Sequence

from bltybench.limits.findings.model import Value
from bltybench.limits.findings.replay import replay_sentence
from bltybench.limits.fit.result import Ban, Fit
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.proportion import Proportion
from bltybench.scenario.target import RateLimit

ERROR_STATUS = {"malformed_counts": 400, "unknown_model_counts": 404}
"""Status of the error that each question is about."""


def limits_toml(
    best: Fit | None,
    run_id: str,
    answers: Sequence[Answer] = (),
    replayed: Proportion | None = None,
    *,
    ban: Ban | None = None,
) -> str:
    """Return the text of ``limits.toml``; ``best`` is the request limit, None if it is unknown.

    ``replayed`` says how many of the run's decisions this request limit makes too. ``ban`` is the ban that
    its refusals start.
    """
    values = {answer.question: answer.value for answer in answers}
    tokens = _tokens(values)
    found = {
        "requests": best is not None,
        "tokens": bool(tokens),
        "concurrency": values.get("concurrency_limit") is not None,
    }
    lines = [
        f"# Rate limits measured in run {run_id}.",
        "# To enforce them: bltybench sandbox --limits limits.toml",
    ]
    if replayed is not None:
        lines.append(f"# {replay_sentence(replayed)}")
    if ban is not None:
        lines.append(f"# Its limit outside bans is uncertain: {ban.described_limit()}.")
    if not all(found.values()):
        lines.append(f"# Unknown, and not enforced: {', '.join(name for name in found if not found[name])}.")
    lines += _concurrency(values) + _charges(values)
    lines += [f"{name} = false" for name in ("requests", "tokens") if not found[name]]
    if best is not None:
        may_count = best.traits.kind == "window" and best.also is None and best.seats is None and ban is None
        counts = values.get("refused_counts") is True and may_count
        options = {} if ban is None else ban.options()
        if best.seats is not None:
            options["waiting"] = best.seats
        lines += _table("requests", best.written(), **options, **({"count_refused": True} if counts else {}))
        if best.also is not None:
            lines += _table("requests.also", best.also.written())
    return "\n".join([*lines, *tokens]) + "\n"


def _table(name: str, written: Fit, **options: float | bool) -> list[str]:
    lines = ["", f"[{name}]", f"limit = {written.limit}", f"period_s = {written.period_s}"]
    lines.append(f'algorithm = "{written.family}"')
    return lines + [f"{key} = {str(value).lower()}" for key, value in (written.options() | options).items()]


def request_limit(text: str) -> RateLimit:
    """Return the request limit that a text of ``limits.toml`` describes. There must be one."""
    return RateLimit.model_validate(tomllib.loads(text)["requests"])


def _concurrency(values: Mapping[str, Value]) -> list[str]:
    limit = values.get("concurrency_limit")
    if limit is None:
        return ["concurrency = false"]
    lines = [f"concurrency = {limit}"]
    if values.get("concurrency_excess") == "queued":
        lines.append('concurrency_excess = "queued"')
    if values.get("cancelled_frees_slot") is False:
        lines.append("cancelled_keeps_slot = true")
    return lines


def _charges(values: Mapping[str, Value]) -> list[str]:
    """Return what counts against the limits, and what has limits of its own: by default, each key."""
    lines: list[str] = []
    errors = [status for name, status in ERROR_STATUS.items() if values.get(name)]
    if errors:
        lines.append(f"charged_errors = {errors}")
    if values.get("models_endpoint_counts") or values.get("models_endpoint_shares"):
        lines.append('charged_endpoints = ["models"]')
    per = [] if values.get("limit_per_key") is False else ["key"]
    if values.get("limit_per_model"):
        per.append("model")
    if per != ["key"]:
        lines.append("per = [" + ", ".join(f'"{name}"' for name in per) + "]")
    if values.get("tokens_charged") is not None:
        lines.append(f'tokens_charged = "{values["tokens_charged"]}"')
    return lines


def _tokens(values: Mapping[str, Value]) -> list[str]:
    """Return the table ``[tokens]``; nothing if the token limit or its period is unknown."""
    limit, period_s = values.get("token_limit"), values.get("token_period_s")
    if limit is None or period_s is None:
        return []
    lines = ["", "[tokens]", f"limit = {limit}", f"period_s = {period_s}"]
    algorithm = values.get("token_algorithm")
    return lines if algorithm is None else [*lines, f'algorithm = "{algorithm}"']
