from __future__ import annotations

import logging
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from flask import Flask, request
from gevent.event import Event
from locust.argument_parser import get_parser
from locust.user.task import LOCUST_STATE_STOPPING
from support_locust import write_scenarios

from bltybench.errors import UserError
from bltybench.load.locust_plugin import console
from bltybench.load.locust_plugin.form import chosen, label
from bltybench.load.locust_plugin.launcher import Launcher
from bltybench.load.locust_plugin.live_page import (
    ChartLimits,
    LimitLine,
    LivePage,
    PageLine,
    Phase,
    Tone,
    chart_limits,
    clock,
    live_page,
    rows,
    text_lines,
)
from bltybench.load.locust_plugin.options import report_formats, say_who_can_connect
from bltybench.load.locust_plugin.panel import take_run_time
from bltybench.load.locust_plugin.plugin import TICK_KEY, Plugin
from bltybench.load.run.live import Live, Tick
from bltybench.load.users import ChatUser, ScenarioUser
from bltybench.scenario.api.documented_limits import Limit


def test_unknown_report_format_is_a_user_error() -> None:
    assert report_formats(Namespace(report_format="json, md")) == {"json", "md"}
    assert "html" in report_formats(Namespace(report_format=""))
    with pytest.raises(UserError, match="no such format: pdf") as caught:
        report_formats(Namespace(report_format="json,pdf"))
    assert caught.value.where == "--report-format"


def test_stopping_a_user_that_is_already_stopping_does_nothing() -> None:
    user = object.__new__(ChatUser)
    user._state = LOCUST_STATE_STOPPING
    assert user.stop() is False


def test_choice_of_the_form_is_a_name_or_the_default() -> None:
    assert chosen("quickstart: Chat and streaming") == "quickstart"
    assert chosen("quickstart") == "quickstart"
    assert chosen("") is None
    assert chosen("(default)") is None
    assert chosen(label("(default)", "quickstart, Chat: and streaming")) is None
    assert chosen(label("quickstart", "Chat:\n" + "and " * 99)) == "quickstart"


@pytest.mark.parametrize(
    ("sent", "kept", "run_time"),
    [
        ({"user_count": "1", "run_time": "1m10s"}, {"user_count": "1"}, 70),
        ({"run_time": ""}, {}, None),
        ({}, {}, None),
        ({"run_time": "soon"}, {"run_time": "soon"}, 5),
    ],
)
def test_run_time_of_the_form_is_taken_unless_locust_has_to_reject_it(
    sent: dict[str, str], kept: dict[str, str], run_time: int | None
) -> None:
    app, options = Flask(__name__), Namespace(run_time=5)

    @app.post("/swarm", endpoint="locust.swarm")
    def start() -> dict[str, str]:
        return request.form.to_dict()

    app.before_request(partial(take_run_time, options))
    assert app.test_client().post("/swarm", data=sent).json == kept
    assert options.run_time == run_time


def test_live_page_without_a_run_says_so_or_why_it_could_not_start() -> None:
    assert live_page(None) == LivePage(phase=Phase.NONE, headline="No run yet")
    failed = live_page(UserError("no such target: a", remedy="use b"))
    assert (failed.phase, failed.rows) == (Phase.FAILED, [])
    assert failed.lines == [
        PageLine("bltybench: no such target: a", Tone.BAD),
        PageLine("→ use b", Tone.DETAIL),
    ]


def test_form_offers_no_default_if_the_file_lacks_the_locustfiles_scenario(tmp_path: Path) -> None:
    class Chat(ScenarioUser):
        scenario = "chat"

    options = Namespace(
        scenario_file=str(tmp_path / "scenarios.toml"), num_users=None, spawn_rate=None, run_time=None,
        worker=False, master=False,
    )  # fmt: skip
    environment = cast("Any", SimpleNamespace(parsed_options=options, user_classes=[Chat]))
    for names in (("own",), ("chat", "own")):
        write_scenarios(tmp_path, "http://127.0.0.1:9/v1", names=names)
        choices = [chosen(choice) for choice in Launcher(environment).form_lists().scenarios]
        assert choices == [*([None] if "chat" in names else []), *names]


def test_live_page_keeps_the_columns_of_a_table() -> None:
    text = "policy        rank  gave up\nopenai + even    1       12\nUse openai + even: it was best."
    assert text_lines(text) == [
        PageLine("policy        rank  gave up", Tone.TABLE),
        PageLine("openai + even    1       12", Tone.TABLE),
        PageLine("Use openai + even: it was best.", Tone.PLAIN),
    ]


def test_live_page_marks_verdicts_and_bounds_what_a_server_wrote() -> None:
    text = (
        "\x1b[1;32mVALID\x1b[0m the load generator was not the bottleneck\n"
        "NOT DECIDED 1 check\n  ? ttft.p99 < 1 s, was –\n\nINVALID: TIMING\nNOTHING SUCCEEDED\nFAIL\nPASS\n"
        "refused: 3 × 429: <b>\x1b[2J" + "x" * 2_000
    )
    *lines, last = text_lines(text)
    assert [line.tone for line in lines] == [
        Tone.GOOD, Tone.OPEN, Tone.DETAIL, Tone.BAD, Tone.BAD, Tone.BAD, Tone.GOOD,
    ]  # fmt: skip
    assert lines[0].text == "VALID the load generator was not the bottleneck"
    assert last.tone is Tone.PLAIN
    assert len(last.text) <= 300
    assert last.text.startswith("refused: 3 × 429: <b>x")


def test_live_page_compares_the_last_minute_with_documented_limits() -> None:
    limits = [Limit("requests", 60, 60), Limit("requests", 9, 1)]
    counts = Tick(accepted=1_234, refused=5, ttft_ms=[100.0, 2_000.0], retry_after_s=2.5)
    table = {row.measure: (row.now, row.limit) for row in rows(counts, limits)}
    assert table["Accepted requests"] == ("1,234", "9 per second, 60 per minute")
    assert table["Refused requests"] == ("5", "–")
    assert table["TTFT p50, p95"] == ("100 ms, 2,000 ms", "–")
    assert table["Last Retry-After"] == ("2.5 s", "–")
    assert table["Remaining tokens (last reported)"] == ("–", "–")


def test_live_charts_show_each_documented_limit_per_minute_and_say_why_more_is_accepted() -> None:
    per_s, per_min, per_hour = (Limit("requests", limit, s) for limit, s in ((2, 1), (60, 60), (100, 3600)))
    live = Live()
    for at_s, accepted in ((10.0, 60), (69.0, 45), (100.0, 5)):
        live.add("local", Tick(at_s=at_s, accepted=accepted, input_tokens=800, output_tokens=30))
        live.points.append(live.point(at_s))
    points = list(live.points)
    assert chart_limits(points, [per_s, per_min, per_hour]) == ChartLimits(
        (
            LimitLine(120.0, "limit 2 per second (120 in 60 s)"),
            LimitLine(60.0, "limit 60 per minute"),
            LimitLine(100 / 60, "limit 100 per hour (1.7 in 60 s on average)"),
        ),
        "The best 60 s have 105: "
        "around its reset, a fixed window of 60 requests per minute accepts up to 120.",
    )
    assert chart_limits(points, [per_s]).note == ""
    # Two windows of the hour can share the minute.
    assert chart_limits(points, [per_hour]).note.endswith(
        "a fixed window of 100 requests per hour accepts up to 200."
    )
    # Six seconds fit ten times, and eleven windows of them share a minute.
    note = chart_limits(points, [Limit("requests", 9, 6)]).note
    assert "accepts up to 99, so the API has another limit" in note
    tokens = chart_limits(points, [Limit("input_tokens", 1_000, 60), Limit("tokens", 1_700, 60)])
    assert [line.text for line in tokens.lines] == [
        "limit 1,000 input tokens per minute",
        "limit 1,700 per minute",
    ]
    assert "The best 60 s have 1,600: " in tokens.note
    assert chart_limits(points, [Limit("concurrency", 1)]).note == ""


def test_clock_shows_the_duration_unless_the_run_consists_of_steps() -> None:
    assert clock(-0.2, 75.0, "") == "0 of 75 s"
    assert clock(12.4, None, "") == "12 s"
    assert clock(12.4, 75.0, "charges: drain") == "12 s: charges: drain"


@pytest.mark.parametrize(
    ("arguments", "web", "master", "said"),
    [
        ([], "127.0.0.1", "127.0.0.1", ["--web-host"]),
        (["--processes=2"], "127.0.0.1", "127.0.0.1", ["--web-host"]),
        (["--master", "--headless"], "127.0.0.1", "127.0.0.1", ["--master-bind-host"]),
        (["--web-host=*", "--master-bind-host=::", "--master"], "*", "::", []),
        (["--headless"], "127.0.0.1", "127.0.0.1", []),
    ],
)
def test_page_and_master_listen_on_loopback_unless_told_otherwise(
    arguments: list[str], web: str, master: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    parser = get_parser(default_config_files=[])  # bltybench.load adds its options
    options = parser.parse_args(arguments)
    assert (options.web_host, options.master_bind_host) == (web, master)
    with caplog.at_level(logging.INFO):
        say_who_can_connect(options)
    assert [option in line for option, line in zip(said, caplog.messages, strict=True)] == [True] * len(said)


def test_file_of_locust_that_cannot_be_written_is_refused_before_the_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken_failures.csv").mkdir()
    parser = get_parser(default_config_files=[])
    good = ["--csv", f"{tmp_path}/new/out", "--html", f"{tmp_path}/{{u}}/out.html", "--json-file", ""]
    assert parser.parse_args(good).csv_prefix == f"{tmp_path}/new/out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken_failures.csv"]
    for option, value, why in (
        ("--csv", f"{tmp_path}/taken", "Is a directory"),
        ("--html", f"{tmp_path}/file/out.html", "Not a directory"),
        ("--html", str(tmp_path), "Is a directory"),
        ("--json-file", f"{tmp_path}/{'x' * 300}", "File name too long"),
    ):
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args([option, value])
        assert capsys.readouterr().err.startswith(f"bltybench: {option} {value}: can't be written: {why}\n")


def test_run_that_ends_while_a_worker_reports_still_counts_in_its_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = Plugin()

    def end_run() -> None:
        plugin._participant.context = None

    sink = SimpleNamespace(settle=end_run, take_tick=lambda: Tick(accepted=3))
    monkeypatch.setattr(plugin._participant, "context", SimpleNamespace(sink=sink))
    data: dict[str, Any] = {}
    plugin.on_report_to_master(data)
    assert data[TICK_KEY]["accepted"] == 3


def test_message_replaces_the_progress_line_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(console, "INTERVAL_S", 0.01)
    shown = Event()

    def line(*_: object) -> str:
        if lines:
            return lines.pop()
        shown.set()
        gevent.sleep(60)
        return ""

    lines = ["10 s"]
    run: Any = SimpleNamespace(live=SimpleNamespace(line=line), now_s=float, duration_s=1, activity="")
    logger.addHandler(handler)
    try:
        progress = gevent.spawn(console.show_progress, run)
        shown.wait()
        logger.warning("Stopping")
        progress.kill()
        logger.warning("Stopped")
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err.endswith("10 s\r\x1b[2KStopping\n\nStopped\n")
