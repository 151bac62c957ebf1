"""A tab in Locust's web page: the last minute compared with the documented limits.

Locust renders extended tabs itself. ``template_args`` names the tab and its table, and the rows are added to
the statistics that the page requests.
"""

from collections.abc import Callable

from flask import Response, abort, request, send_file
from locust.web import WebUI

from bltybench.load.locust_plugin.form import add_lists
from bltybench.load.run.run import Run
from bltybench.percentiles import percentile
from bltybench.scenario.file.scenario_file import Book
from bltybench.text import sanitize

KEY = "bltybench"
STATS_ENDPOINT = "locust.request_stats"
REPORT_PATH = "/bltybench/report"
"""Where Locust's server shows the page of the last run."""
NONE = "–"


def add_tab(web_ui: WebUI, book: Book, current: Callable[[], Run | None]) -> None:
    """Add the tab to Locust's page, and lists to its form. ``current`` returns the run to show."""
    add_lists(web_ui, book)
    app = web_ui.app
    if app is None:
        raise RuntimeError("Locust's web page has no application to extend")
    web_ui.template_args["extended_tabs"] = [{"title": "LLM limits", "key": KEY}]
    columns = {"measure": "Last 60 s", "now": "Now", "limit": "Documented limit"}
    structure = [{"key": key, "title": title} for key, title in columns.items()]
    web_ui.template_args["extended_tables"] = [{"key": KEY, "structure": structure}]

    def show_report() -> Response:
        run = current()
        if run is None or not run.folder.report_html.is_file():
            abort(404, "The last run has no report yet.")
        return send_file(run.folder.report_html.absolute())

    app.add_url_rule(REPORT_PATH, "bltybench_report", web_ui.auth_required_if_enabled(show_report))

    def extend(response: Response) -> Response:
        if request.endpoint == STATS_ENDPOINT and response.status_code == 200 and response.is_json:
            statistics = response.get_json()
            statistics["extended_stats"] = [{"key": KEY, "data": rows(current())}]
            response.set_data(app.json.dumps(statistics))
        return response

    app.after_request(extend)


def rows(run: Run | None) -> list[dict[str, str]]:
    """Return the rows of the tab: each measure, its value now, and its documented limit."""
    if run is None:
        return [_row("No run yet", NONE)]
    counts = run.live.snapshot(run.now_s())
    limits = run.resolved.target.limits
    ttfts = [f"{ms:,.0f} ms" for q in (0.5, 0.95) if (ms := percentile(counts.ttft_ms, q)) is not None]
    table = [
        _row("Accepted requests per minute", _count(counts.accepted), limits.requests_per_min),
        _row("Refused requests per minute", _count(counts.refused)),
        _row("Failed requests per minute", _count(counts.failed)),
        _row("Tokens per minute", _count(counts.tokens), limits.tokens_per_min),
        _row("In flight", _count(counts.in_flight), limits.concurrency),
        _row("TTFT p50, p95", ", ".join(ttfts) or NONE),
        _row("Last Retry-After", NONE if counts.retry_after_s is None else f"{counts.retry_after_s:g} s"),
        _row("Remaining requests (last reported)", _count(counts.remaining_requests)),
        _row("Remaining tokens (last reported)", _count(counts.remaining_tokens)),
    ]
    if run.activity:
        table.insert(0, _row("Probe", run.activity))
    if run.exit_code is not None:
        page = run.folder.report_html.is_file()
        table.append(_row("Report", REPORT_PATH if page else str(run.folder.path.absolute())))
        table.insert(0, _row("Verdict", sanitize(run.closing_text.partition("\n")[0])))
    return table


def _row(measure: str, now: str, limit: int | None = None) -> dict[str, str]:
    return {"measure": measure, "now": now, "limit": _count(limit)}


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"
