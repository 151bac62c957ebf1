"""Why nothing succeeded, if nothing did, and what to check first."""

from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from bltybench.runs.attempt import Outcome
from bltybench.runs.manifest import Manifest, TargetInfo

MAX_KINDS = 3
"""Maximum kinds of failure to list, most frequent first."""
MAX_CHARS = 120
"""Maximum characters of a message."""
LABELS = {"connection_refused": "connection refused"}
"""Labels of error types whose messages differ between attempts."""
LOCAL = "local_resources"
"""Error type of a connection for which this machine had no descriptor, port, or memory left."""


def failure(attempts: pd.DataFrame, target: TargetInfo | None) -> str | None:
    """Return the reasons with their counts, and what to check; None if any attempt succeeded.

    Without a target, as for a log, there is nothing to check.

    None as well if the end of the run cut off every attempt: nothing failed.
    """
    if attempts.empty:
        return "nothing was sent"
    failed = attempts["outcome"] != Outcome.CANCELLED
    if not failed.any() or (attempts["outcome"] == Outcome.OK).any():
        return None
    attempts = attempts[failed]
    keys = ["outcome", "status", "error_type", "error_code"]
    columns = {name: attempts[name].astype("object") for name in (*keys, "error_message")}
    kinds = (
        pd.DataFrame(columns).groupby(keys, dropna=False, sort=True)["error_message"].agg(["size", "first"])
    )
    ordered = kinds.sort_values("size", ascending=False, kind="stable")
    parts = [
        f"{_label(key, message)} ({_times(size)})"
        for key, size, message in zip(
            ordered.index[:MAX_KINDS], ordered["size"], ordered["first"], strict=False
        )
    ]
    if len(ordered) > MAX_KINDS:
        parts.append("and others")
    advice = _advice(attempts, target) if target is not None else ""
    return ", ".join(parts) + (f": {advice}" if advice else "")


def main_target(attempts: pd.DataFrame, manifest: Manifest) -> TargetInfo:
    """Return the target of most attempts, which advice is about if all failed."""
    used = attempts["target"].value_counts()
    targets = {target.name: target for target in manifest.targets}
    return targets.get(str(used.index[0]), manifest.target) if len(used) else manifest.target


def never_connected(attempts: pd.DataFrame) -> bool:
    """Return whether every attempt failed before a request could be sent."""
    failed = attempts["outcome"] != Outcome.CANCELLED
    return bool(failed.any()) and not attempts["sent_ns"].notna().any()


def lacks_resources(attempts: pd.DataFrame) -> "pd.Series[bool]":
    """Return which attempts failed because of this machine, not because of the server or the network."""
    return attempts["error_type"].isin([LOCAL])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _label(key: tuple[Any, ...], message: object) -> str:
    outcome, status, kind, code = (None if value is None or pd.isna(value) else value for value in key)
    if kind in LABELS:
        return LABELS[kind]
    if status is not None:
        return " ".join(str(part) for part in (int(status), code or kind) if part)
    text = message if isinstance(message, str) and message else str(kind or outcome).replace("_", " ")
    return text[:MAX_CHARS]


def _advice(attempts: pd.DataFrame, target: TargetInfo) -> str:
    """Return what to check if all attempts failed for the same reason."""
    base_url = target.base_url
    if never_connected(attempts) and not lacks_resources(attempts).any():
        if target.proxy is not None:
            return f"check that the proxy {target.proxy} is running and accepts connections to {base_url}"
        return f"check that the server is running, and the host and port of {base_url}"
    statuses = set(attempts.loc[attempts["outcome"] != Outcome.CANCELLED, "status"].dropna())
    if attempts["status"].isna().any() or len(statuses) != 1:
        return ""
    if statuses == {404}:
        return _not_found_advice(target)
    if statuses == {401}:
        names = [target.api_key_env] if target.api_key_env else list(target.keys)
        return (
            f"check the key{'s' * (len(names) > 1)} in {' and '.join(names)}" if names else "set api_key_env"
        )
    return ""


def _not_found_advice(target: TargetInfo) -> str:
    base_url = target.base_url
    if target.query_names:
        return f"check the model's name, base_url, and query: requests go to {base_url}"
    if "v1" in urlsplit(base_url).path.split("/"):
        return f"check the model's name and base_url: requests go to {base_url}/chat/completions"
    return f"base_url has no /v1; try {base_url}/v1"
