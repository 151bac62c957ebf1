from __future__ import annotations

import logging
import sys
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from locust.argument_parser import get_parser
from locust.user.task import LOCUST_STATE_STOPPING

from bltybench.errors import UserError
from bltybench.load.locust_plugin import console
from bltybench.load.locust_plugin.form import chosen
from bltybench.load.locust_plugin.options import report_formats, say_who_can_connect
from bltybench.load.locust_plugin.panel import rows
from bltybench.load.users import ChatUser


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


def test_tab_has_one_row_before_a_run() -> None:
    assert rows(None) == [{"measure": "No run yet", "now": "–", "limit": "–"}]


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


def test_message_replaces_the_progress_line_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(console, "INTERVAL_S", 0.01)
    run: Any = SimpleNamespace(
        live=SimpleNamespace(line=lambda *_: "10 s"), now_s=float, duration_s=1, activity=""
    )
    logger.addHandler(handler)
    try:
        progress = gevent.spawn(console.show_progress, run)
        gevent.sleep(0.1)
        logger.warning("Stopping")
        progress.kill()
        logger.warning("Stopped")
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err.endswith("10 s\r\x1b[2KStopping\n\nStopped\n")
