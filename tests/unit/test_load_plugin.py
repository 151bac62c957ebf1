from __future__ import annotations

from argparse import Namespace

import pytest
from locust.user.task import LOCUST_STATE_STOPPING

from bltybench.errors import UserError
from bltybench.load.locust_plugin.options import report_formats
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


def test_tab_has_one_row_before_a_run() -> None:
    assert rows(None) == [{"measure": "No run yet", "now": "–", "limit": "–"}]
