"""What was found, in the sandbox's own configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bltybench.limits.fit.result import Fit
from bltybench.limits.observations.answer import Answer

ERRORS = {"malformed_counts": 400, "unknown_model_counts": 404}


def limits_toml(best: Fit | None, run_id: str, answers: Sequence[Answer] = ()) -> str:
    """Return ``limits.toml``: the sandbox then behaves as the API was seen to behave."""
    told = {each.question: each.value for each in answers}
    unknown = [what for what, found in _found(best, told).items() if not found]
    lines = [
        f"# The limits that the probe found in run {run_id}.",
        "# bltybench sandbox --limits limits.toml enforces them.",
    ]
    if unknown:
        lines.append(f"# Not found, and not enforced: {', '.join(unknown)}.")
    lines += _concurrency(told)
    lines += _charges(told)
    charged = told.get("tokens_charged")
    if charged is not None:
        lines.append(f'tokens_charged = "{charged}"')
    lines += [
        f"{name} = false" for name, table in (("requests", best), ("tokens", _tokens(told))) if table is None
    ]
    if best is not None:
        options = {name: _value(value) for name, value in best.options().items()}
        if told.get("refused_counts") is True and best.family.endswith("_window"):
            options["count_refused"] = "true"
        lines += ["", "[requests]", f"limit = {best.limit}", f"period_s = {round(best.period_s, 4)}"]
        lines += [f'algorithm = "{best.family}"', *(f"{name} = {value}" for name, value in options.items())]
    return "\n".join([*lines, *(_tokens(told) or [])]) + "\n"


def _found(best: Fit | None, told: Mapping[str, object]) -> dict[str, bool]:
    return {
        "requests": best is not None,
        "tokens": _tokens(told) is not None,
        "concurrency": told.get("concurrency_limit") is not None,
    }


def _concurrency(told: Mapping[str, object]) -> list[str]:
    limit = told.get("concurrency_limit")
    if limit is None:
        return ["concurrency = false"]
    lines = [f"concurrency = {limit}"]
    if told.get("concurrency_excess") == "queued":
        lines.append('concurrency_excess = "queued"')
    if told.get("cancelled_frees_slot") is False:
        lines.append("cancelled_keeps_slot = true")
    return lines


def _charges(told: Mapping[str, object]) -> list[str]:
    """Return what counts, and whose limits they are; a key of its own where that was not found."""
    lines: list[str] = []
    errors = [status for name, status in ERRORS.items() if told.get(name)]
    if errors:
        lines.append(f"charged_errors = {errors}")
    if told.get("models_endpoint_counts") or told.get("models_endpoint_shares"):
        lines.append('charged_endpoints = ["models"]')
    per = [
        name
        for name, own in (("key", told.get("limit_per_key")), ("model", told.get("limit_per_model")))
        if own or (name == "key" and own is None)
    ]
    if per != ["key"]:
        lines.append("per = [" + ", ".join(f'"{name}"' for name in per) + "]")
    return lines


def _tokens(told: Mapping[str, object]) -> list[str] | None:
    limit, period_s = told.get("token_limit"), told.get("token_period_s")
    if limit is None or period_s is None:
        return None
    lines = ["", "[tokens]", f"limit = {limit}", f"period_s = {period_s}"]
    algorithm = told.get("token_algorithm")
    return lines if algorithm is None else [*lines, f'algorithm = "{algorithm}"']


def _value(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
