"""A tab in Locust's web page with the live page of the current run, and the reports of its runs.

Locust's page is a React application that can show tables in further tabs, but no charts. So its tab stays
empty, and a script that is added to the page shows the live page there.
"""

from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import msgspec
from flask import Blueprint, Response, abort, request, send_file, send_from_directory
from locust.util.timespan import parse_timespan
from locust.web import WebUI
from werkzeug.datastructures import ImmutableMultiDict

from bltybench.errors import UserError
from bltybench.load.locust_plugin.form import KEY, FormLists, add_lists
from bltybench.load.locust_plugin.live_page import live_page
from bltybench.load.locust_plugin.options import parsed_options
from bltybench.load.run.run import Run

INDEX_ENDPOINT, START_ENDPOINT = "locust.index", "locust.swarm"
PAGE = Path(__file__).parent / "page"
POINT_INTERVAL_S = 1.0
"""Seconds between two points of the charts."""


def add_tab(web_ui: WebUI, lists: FormLists, current: Callable[[], Run | UserError | None]) -> None:
    """Add the tab to Locust's page, and lists to its form.

    ``current`` returns the run to show, or why it could not start.
    """
    add_lists(web_ui, lists)
    app, environment = web_ui.app, web_ui.environment
    if app is None:
        raise RuntimeError("Locust's web page has no application to extend")
    web_ui.template_args["extended_tabs"] = [{"title": "LLM limits", "key": KEY}]
    base_path = parsed_options(environment).web_base_path or ""
    pages = Blueprint(KEY, __name__, url_prefix=f"{base_path}/{KEY}")
    reports: dict[str, Path] = {}

    def follow(**_: Any) -> None:
        run = current()
        if isinstance(run, Run):
            reports[run.folder.path.name] = run.folder.report_html.absolute()
            gevent.spawn(_keep_points, run)

    def show_file(name: str) -> Response:
        return send_from_directory(PAGE, name)

    def show_state() -> Response:
        state = msgspec.json.encode(live_page(current()))
        return Response(state, mimetype="application/json", headers={"Cache-Control": "no-store"})

    def show_report(run: str) -> Response:
        # Only paths of runs that this process has started are served, whatever the address says.
        if run not in reports or not reports[run].is_file():
            abort(404, "There is no such report.")
        return send_file(reports[run])

    for rule, view in (("/page/<name>", show_file), ("/state", show_state), ("/report/<run>", show_report)):
        pages.add_url_rule(rule, view_func=web_ui.auth_required_if_enabled(view))
    pages.before_request(_refuse_other_sites)
    app.register_blueprint(pages)
    app.before_request(partial(take_run_time, parsed_options(environment)))
    app.after_request(_add_script)
    # The plugin listens to the same event, and has created the run before this is called.
    environment.events.test_start.add_listener(follow)


def _refuse_other_sites() -> None:
    """Refuse scripts of other web sites, which Locust allows to read everything. Links from there work."""
    headers = request.headers
    if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
        abort(403, "Scripts of other web sites can't read this.")


def take_run_time(options: Namespace) -> None:
    """Take a valid run time out of a form that starts a run.

    Otherwise Locust would end the run this long after the form was sent, however long preparing takes.
    """
    if request.endpoint == START_ENDPOINT:
        form = request.form.copy()
        with suppress(ValueError):  # Locust explains what is wrong
            options.run_time = parse_timespan(form["run_time"]) if form.get("run_time") else None
            form.pop("run_time", None)
        request.form = ImmutableMultiDict(form)


def _add_script(response: Response) -> Response:
    """Add the script that shows the live page to Locust's own page."""
    if request.endpoint == INDEX_ENDPOINT and response.status_code == 200:
        script = f'<script type="module" src="./{KEY}/page/locust_page.js"></script></body>'
        response.set_data(response.get_data(as_text=True).replace("</body>", script))
    return response


def _keep_points(run: Run) -> None:
    """Keep points for the charts of a run until its load has ended."""
    while True:
        gevent.sleep(POINT_INTERVAL_S)
        if run.ended_s is not None:
            return
        if run.started.is_set():
            run.live.points.append(run.live.point(run.now_s()))
