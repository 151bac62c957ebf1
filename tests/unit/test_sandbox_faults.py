from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from bltybench.sandbox.faults.delivery import REACTION_NS, status_error
from bltybench.sandbox.faults.draw import draw
from bltybench.scenario.faults import CONNECTION_FAULTS, SandboxFaults
from bltybench.scenario.target import SandboxSettings, Target
from bltybench.wire.http.timeouts import CROSSING_S


def test_faults_are_drawn_at_their_rates() -> None:
    rates = {"stall": 0.2, "json_500": 0.05}
    drawn = Counter(draw(rates, 1, "request", ordinal) for ordinal in range(20_000))
    # Five standard deviations: 283 and 154.
    assert drawn["stall"] == pytest.approx(4_000, abs=283)
    assert drawn["json_500"] == pytest.approx(1_000, abs=154)
    assert drawn.keys() == {"stall", "json_500", None}


def test_rate_of_one_always_occurs_and_no_rates_never() -> None:
    assert {draw({"stall": 1.0}, 1, "request", ordinal) for ordinal in range(1000)} == {"stall"}
    assert {draw({}, 1, "request", ordinal) for ordinal in range(1000)} == {None}


def test_requests_and_connections_draw_independently() -> None:
    kinds = ("request", "connection")
    drawn = [[draw({"stall": 0.5}, 1, kind, ordinal) for ordinal in range(50)] for kind in kinds]
    assert drawn[0] != drawn[1]


def test_sandbox_has_no_faults_by_default() -> None:
    faults = SandboxSettings().faults
    assert (faults.of_requests(), faults.of_connections()) == ({}, {})


def test_rates_of_requests_and_of_connections_add_up_to_one_each() -> None:
    tenths = dict.fromkeys(
        ("stall", "json_500", "html_500", "json_502", "html_502", "json_503", "html_503"), 0.1
    )
    faults = SandboxFaults(**tenths, error_event=0.3, tls_handshake=0.9, tls_untrusted=0.1)
    assert set(faults.of_connections()) == set(CONNECTION_FAULTS)
    with pytest.raises(
        ValidationError, match=r"stall, error_event add up to 1\.2; at most 1, because a request"
    ):
        SandboxFaults(stall=0.9, error_event=0.3)
    with pytest.raises(ValidationError, match=r"add up to 1\.1; at most 1, because a connection"):
        SandboxFaults(tls_handshake=0.9, tls_untrusted=0.2)


@pytest.mark.parametrize(
    ("base_url", "ca_file", "faults", "message"),
    [
        (
            "http://127.0.0.1:1/v1",
            None,
            {"tls_handshake": 0.1},
            "tls_handshake in sandbox.faults needs a base",
        ),
        ("https://127.0.0.1:1/v1", None, {}, "a sandbox with https needs ca_file"),
    ],
)
def test_tls_needs_https_and_a_file(
    base_url: str, ca_file: str | None, faults: dict[str, float], message: str
) -> None:
    sandbox = SandboxSettings(faults=SandboxFaults(**faults))
    with pytest.raises(ValidationError, match=message):
        Target(base_url=base_url, ca_file=ca_file, sandbox=sandbox)
    # An API that is not a sandbox uses the system's certificates.
    Target(base_url=base_url, ca_file=ca_file)


def test_status_faults_have_bodies_in_both_formats() -> None:
    page, error = status_error("html_502", []), status_error("json_503", [])
    assert page is not None
    assert error is not None
    assert (page.status, page.content_type, page.body()[:6]) == (502, b"text/html; charset=utf-8", b"<html>")
    assert (error.status, error.content_type, error.body()[:9]) == (503, b"application/json", b'{"error":')
    assert status_error("stall", []) is None


def test_reset_comes_too_late_to_be_sent_again() -> None:
    assert REACTION_NS >= 1.1 * CROSSING_S * 1e9
