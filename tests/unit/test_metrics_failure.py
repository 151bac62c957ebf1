"""What the report says if nothing succeeded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from support_runs import attempt, audit_table, frame, generator_seconds, manifest, table

from bltybench.metrics.analysis import analyze
from bltybench.metrics.failure import LABELS, LOCAL, failure, main_target
from bltybench.report.export.junit import junit
from bltybench.report.export.markdown import markdown
from bltybench.report.page.answer import answer, client_advice
from bltybench.report.summary import summarize
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.manifest import Manifest
from bltybench.wire.fault import Fault

BARE = manifest(resolved=manifest().resolved | {"arrivals": {"kind": "closed"}, "checks": {}})


def target(base_url: str = "http://127.0.0.1:21999/v1", api_key_env: str | None = None) -> Manifest:
    changed = msgspec.structs.replace(BARE.target, base_url=base_url, api_key_env=api_key_env)
    return msgspec.structs.replace(BARE, target=changed)


def failed(number: int, **fields: Any) -> Attempt:
    timing = {"first_token_ns": None, "gaps_us": None, "last_token_ns": None, "first_output_ns": None}
    return attempt(call_id=f"c{number}", **(timing | {"outcome": Outcome.CLIENT_ERROR} | fields))


def refused_connections(count: int) -> list[Attempt]:
    fields = {"outcome": Outcome.TRANSPORT_ERROR, "status": None, "sent_ns": None, "headers_ns": None}
    return [failed(number, **fields, error_type="connection_refused") for number in range(count)]


def test_error_types_of_failed_connections_are_those_of_the_client() -> None:
    assert {*LABELS, LOCAL} <= {fault.value for fault in Fault}


def test_dead_port_is_connection_refused_with_its_count() -> None:
    # Nothing listens. The report advised to add workers.
    assert failure(frame(*refused_connections(4_800)), target().target) == (
        "connection refused (4,800 times): "
        "check that the server is running, and the host and port of http://127.0.0.1:21999/v1"
    )


@pytest.mark.parametrize("arrivals", [{"kind": "closed"}, {"kind": "constant", "rate_per_min": 600}])
def test_dead_port_is_the_only_reason_for_invalid(arrivals: dict[str, Any]) -> None:
    about = msgspec.structs.replace(
        target(), resolved=BARE.resolved | {"arrivals": arrivals}, planned_calls=100
    )
    busy = audit_table(generator_seconds(60, cpu_share=1.0, no_free_user=50))
    analysis = analyze(table(*refused_connections(30)), busy, about)
    summary = summarize(analysis)
    (reason,) = summary.invalid_reasons
    assert reason.startswith("no connection could be made: connection refused (30 times): check that")
    assert "workers" not in reason
    assert not summary.passed


@pytest.mark.parametrize(
    ("base_url", "advice"),
    [
        ("http://127.0.0.1:8000", "base_url has no /v1; try http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/api", "base_url has no /v1; try http://127.0.0.1:8000/api/v1"),
        (
            "http://127.0.0.1:8000/v1",
            "check the model's name and base_url: requests go to http://127.0.0.1:8000/v1/chat/completions",
        ),
    ],
)
def test_only_404s_hint_at_the_address(base_url: str, advice: str) -> None:
    # vLLM, llama.cpp, and Ollama answer 404 without /v1.
    attempts = frame(*[failed(number, status=404) for number in range(20)])
    assert failure(attempts, target(base_url).target) == f"404 (20 times): {advice}"


def test_advice_is_about_the_target_of_most_attempts() -> None:
    other = msgspec.structs.replace(BARE.target, name="other", base_url="http://127.0.0.1:3/v1")
    both = msgspec.structs.replace(BARE, other_targets=[other])
    attempts = frame(failed(1, target=BARE.target.name), failed(2, target="other"), failed(3, target="other"))
    assert main_target(attempts, both) is other
    assert main_target(frame(failed(1)), both) is BARE.target


def test_only_401s_hint_at_the_key() -> None:
    attempts = frame(failed(1, status=401, error_code="invalid_api_key"))
    pool = msgspec.structs.replace(BARE.target, keys={"A_KEY": 1, "B_KEY": 1})
    assert "check the keys in A_KEY and B_KEY" in (failure(attempts, pool) or "")
    assert failure(attempts, target(api_key_env="MY_KEY").target) == (
        "401 invalid_api_key (once): check the key in MY_KEY"
    )


def test_mixed_failures_are_listed_most_frequent_first() -> None:
    attempts = frame(
        failed(1, status=404),
        *[failed(number, outcome=Outcome.SERVER_ERROR, status=503) for number in range(2, 5)],
        *[failed(number, outcome=Outcome.RATE_LIMITED, status=429) for number in range(5, 7)],
        failed(7, outcome=Outcome.TIMEOUT, status=None, error_message="no response within 60 s"),
    )
    text = failure(attempts, target("http://127.0.0.1:8000").target)
    assert text is not None
    assert text.startswith("503 (3 times), 429 (2 times), ")
    assert text.endswith(", and others")


def test_one_success_is_no_failure() -> None:
    attempts = [*refused_connections(9), attempt(call_id="ok")]
    assert failure(frame(*attempts), target().target) is None
    generator = audit_table(generator_seconds(60))
    assert summarize(analyze(table(*attempts), generator, target())).passed


def test_run_without_checks_fails_everywhere_if_nothing_succeeded() -> None:
    attempts = [failed(number, status=404) for number in range(20)]
    analysis = analyze(table(*attempts), audit_table(generator_seconds(60)), target("http://127.0.0.1:1"))
    summary = summarize(analysis)
    assert summary.valid
    assert not summary.passed
    assert b"NOTHING SUCCEEDED" in junit(summary)
    assert b'failures="1"' in junit(summary)
    assert "NOTHING SUCCEEDED" in markdown(summary)
    shown = answer(summary, None)
    assert (shown.title, shown.trusted) == ("Nothing succeeded", False)
    assert "/v1" in shown.says
    assert client_advice(summary, None, trusted=shown.trusted) == []
    # With checks of its own, the checks decide.
    checked = manifest(resolved=BARE.resolved | {"checks": {"errors.count": "> 0"}})
    analysis = analyze(table(*attempts), audit_table(generator_seconds(60)), checked)
    assert summarize(analysis).passed
    assert summarize(replace(analysis, failure=None)).failure is None
