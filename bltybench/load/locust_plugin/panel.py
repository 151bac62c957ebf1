"""A tab in Locust's web page: what the last minute looked like against the documented limits.

Locust draws extended tabs itself: ``template_args`` names the tab and its table, and the rows travel with the
statistics that the page asks for anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from locust.web import WebUI

from bltybench.load.run.live import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from flask import Response

    from bltybench.load.run.run import Run

KEY = "bltybench"
STATS_ENDPOINT = "locust.request_stats"
NONE = "–"


def add_tab(web_ui: WebUI, current: Callable[[], Run | None]) -> None:
    """Add the tab to Locust's page. ``current`` gives the run that it shows."""
    from flask import request  # noqa: PLC0415  # headless runs have no use for it

    app = web_ui.app
    if app is None:
        raise RuntimeError("Locust's web page has no application to extend")
    web_ui.template_args["extended_tabs"] = [{"title": "LLM limits", "key": KEY}]
    columns = {"measure": "Last 60 s", "now": "Now", "limit": "Documented limit"}
    structure = [{"key": key, "title": title} for key, title in columns.items()]
    web_ui.template_args["extended_tables"] = [{"key": KEY, "structure": structure}]

    def extend(response: Response) -> Response:
        if request.endpoint == STATS_ENDPOINT and response.status_code == 200 and response.is_json:
            statistics = response.get_json()
            statistics["extended_stats"] = [{"key": KEY, "data": rows(current())}]
            response.set_data(app.json.dumps(statistics))
        return response

    app.after_request(extend)


def rows(run: Run | None) -> list[dict[str, str]]:
    """Return the table: what was measured in the last minute, and what was documented."""
    if run is None:
        return [_row("No run yet", NONE)]
    seen = run.live.snapshot(run.now_s())
    limits = run.resolved.target.limits
    made = run.exit_code is not None
    return [
        *([_row("The probe", run.doing)] if run.doing else []),
        _row("Accepted requests a minute", _count(seen.accepted), limits.requests_per_min),
        _row("Refused requests a minute", _count(seen.refused)),
        _row("Failed requests a minute", _count(seen.failed)),
        _row("Tokens a minute", _count(seen.tokens), limits.tokens_per_min),
        _row("In flight", _count(seen.in_flight), limits.concurrency),
        _row("TTFT p50, p95", _ttft(seen)),
        _row("Last Retry-After", NONE if seen.retry_after_s is None else f"{seen.retry_after_s:g} s"),
        _row("Remaining requests, as last said", _count(seen.remaining_requests)),
        _row("Remaining tokens, as last said", _count(seen.remaining_tokens)),
        *([_row("Report", str(_report(run).absolute()))] if made else []),
    ]


def _report(run: Run) -> Path:
    return run.folder.report_html if "html" in run.formats else run.folder.path


def _row(measure: str, now: str, limit: int | None = None) -> dict[str, str]:
    return {"measure": measure, "now": now, "limit": _count(limit)}


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _ttft(seen: Snapshot) -> str:
    if seen.ttft_p50_ms is None or seen.ttft_p95_ms is None:
        return NONE
    return f"{seen.ttft_p50_ms:,.0f} ms, {seen.ttft_p95_ms:,.0f} ms"
