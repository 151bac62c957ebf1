"""A fit in the sandbox's own configuration."""

from __future__ import annotations

from bltybench.limits.fit import Fit


def limits_toml(best: Fit, run_id: str) -> str:
    """Return ``limits.toml``: the sandbox then behaves as the API was seen to behave."""
    options = {name: _value(value) for name, value in best.options().items()}
    lines = [
        f"# The limits that the probe found in run {run_id}.",
        "# bltybench sandbox --limits limits.toml enforces them. Tokens and concurrency were not looked at.",
        "tokens = false",
        "concurrency = false",
        "",
        "[requests]",
        f"limit = {best.limit}",
        f"period_s = {round(best.period_s, 4)}",
        f'algorithm = "{best.family}"',
        *(f"{name} = {value}" for name, value in options.items()),
    ]
    return "\n".join(lines) + "\n"


def _value(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
