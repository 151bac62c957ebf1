"""The scenario "chaos": all faults in one run, compared with the sandbox's log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from support_locust import LOCUSTFILES, REPO, free_port, run_locust, truth_of
from support_sandbox import bearer, chat_body, quick_settings, read_truth, running_sandbox

from bltybench.errors import UserError
from bltybench.runs.store import read_generator
from bltybench.sandbox.process import SandboxProcess, start_if_absent
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.faults import CONNECTION_FAULTS
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.target import SandboxSettings, Target

Result = tuple[str, int | None, str | None]
"""Outcome, status, and error type of an attempt."""

OK: Result = ("ok", 200, None)
SAME_FOR_ALL: dict[str | None, Result] = {
    None: OK,
    "latency_spike": OK,
    "json_500": ("server_error", 500, "server_error"),
    "html_500": ("server_error", 500, None),
    "json_502": ("server_error", 502, "server_error"),
    "html_502": ("server_error", 502, None),
    "json_503": ("server_error", 503, "server_error"),
    "html_503": ("server_error", 503, None),
    "slow_headers": ("timeout", None, "headers_timeout"),
    "stall": ("timeout", 200, "between_events_timeout"),
    "reset_before_headers": ("transport_error", None, "connection_reset"),
    "tls_handshake": ("transport_error", None, "tls"),
    "tls_untrusted": ("transport_error", None, "tls_verification"),
}
PLAIN: dict[str | None, Result] = {
    "reset_mid_stream": ("transport_error", 200, "connection_reset"),
    "truncated_chunk": ("transport_error", 200, "closed_early"),
    "long_content_length": ("transport_error", 200, "closed_early"),
    "short_content_length": ("server_error", 200, "not_json"),
    "malformed_json": ("server_error", 200, "not_json"),
    "error_event": ("server_error", 200, "server_error"),
}
STREAMED: dict[str | None, Result] = {
    "reset_mid_stream": ("broken_stream", 200, "connection_reset"),
    "truncated_chunk": ("broken_stream", 200, "closed_early"),
    "long_content_length": ("broken_stream", 200, "closed_early"),
    "short_content_length": ("broken_stream", 200, "bad_event"),
    "malformed_json": ("broken_stream", 200, "bad_event"),
    "error_event": ("broken_stream", 200, "server_error"),
}
NS_PER_S = 1_000_000_000


def expected(row: TruthRow) -> Result:
    """Return how an attempt must end that the sandbox treated like this."""
    return SAME_FOR_ALL.get(row.fault) or (STREAMED if row.stream else PLAIN)[row.fault]


def result(attempt: dict[str, Any]) -> Result:
    return attempt["outcome"], attempt["status"], attempt["error_type"]


def chaos_settings() -> SandboxSettings:
    settings = load_book(REPO / "scenarios.toml").target("chaos").sandbox
    assert settings is not None
    return settings


@pytest.mark.parametrize("processes", [(), ("--processes=2",)])
def test_each_fault_ends_in_its_outcome_and_counts_match_the_log(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    port = free_port()
    scenarios = (REPO / "scenarios.toml").read_text()
    (tmp_path / "scenarios.toml").write_text(scenarios.replace("127.0.0.1:8911", f"127.0.0.1:{port}"))
    log, ca_file = tmp_path / "truth.jsonl", tmp_path / "reports" / "sandbox-ca.pem"
    settings = chaos_settings()
    args = ("--scenario", "chaos", "-t", "6s")
    with SandboxProcess.start(settings, port=port, log_path=log, ca_file=str(ca_file)):
        done = run_locust(LOCUSTFILES / "mixed.py", *args, *processes, cwd=tmp_path)
    assert "Traceback" not in done.output

    by_id = truth_of(log)
    handshakes = [row for row in read_truth(log) if row.fault in CONNECTION_FAULTS]
    truth = [*by_id.values(), *handshakes]
    faults = settings.faults.of_requests().keys() | settings.faults.of_connections().keys()
    assert {row.fault for row in truth} == {None, *faults}
    assert Counter(map(result, done.attempts)) == Counter(map(expected, truth))

    without_headers = {"slow_headers", "reset_before_headers"}
    joined = {row["request_id"]: row for row in done.attempts if row["request_id"] is not None}
    assert joined.keys() == {key for key, row in by_id.items() if row.fault not in without_headers}
    for key, attempt in joined.items():
        assert result(attempt) == expected(by_id[key]), by_id[key]
        assert attempt["stream"] == by_id[key].stream
        excess = "bytes_after_end" in (attempt["notes"] or "")
        assert excess == (by_id[key].fault == "short_content_length")
        if by_id[key].fault == "latency_spike":
            assert attempt["end_ns"] - attempt["sent_ns"] >= settings.faults.spike_ms * 1e6

    # All users go on until the end. Calls take up to 3 s.
    last_ns = {row["user"]: row["due_ns"] for row in sorted(done.attempts, key=lambda row: row["due_ns"])}
    assert sorted(last_ns) == list(range(20))
    assert min(last_ns.values()) >= 1 * NS_PER_S
    busy = [row["users"] for row in read_generator(done.run).to_pylist() if row["at_ns"] < 6 * NS_PER_S]
    assert set(busy) == {20 // max(1, 2 * len(processes))}


def test_faults_leave_other_responses_as_they_are(tmp_path: Path) -> None:
    texts: list[dict[int, str]] = []
    for number, faults in enumerate(({}, {"json_500": 0.3, "latency_spike": 0.2, "spike_ms": 1})):
        log = tmp_path / f"{number}.jsonl"
        with running_sandbox(log, faults=faults, seed=3) as sandbox, httpx.Client() as client:
            url = f"{sandbox.base_url}/chat/completions"
            replies = [client.post(url, json=chat_body(), headers=bearer()) for _ in range(20)]
        rows = list(truth_of(log).values())
        assert [row.status for row in rows] == [reply.status_code for reply in replies]
        assert {row.fault for row in rows} == ({None, "json_500", "latency_spike"} if faults else {None})
        texts.append(
            {
                at: reply.json()["choices"][0]["message"]["content"]
                for at, reply in enumerate(replies)
                if reply.status_code == 200
            }
        )
    assert texts[1].items() < texts[0].items()
    assert len(texts[0]) == 20


def test_sandbox_is_recognized_if_every_handshake_fails(tmp_path: Path) -> None:
    ca_file = str(tmp_path / "new" / "ca.pem")
    settings = quick_settings(faults={"tls_handshake": 1.0})
    with SandboxProcess.start(settings, ca_file=ca_file) as sandbox:
        target = Target(base_url=sandbox.base_url, ca_file=ca_file, sandbox=settings)
        assert start_if_absent(target) is None
        with pytest.raises(httpx.ConnectError):
            httpx.get(sandbox.base_url, verify=False)  # noqa: S501 - the handshake must fail before


def test_unwritable_authority_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="exited with code 2"):
        SandboxProcess.start(quick_settings(), ca_file=str(tmp_path))
    assert "can't write the sandbox's certificate authority" in capfd.readouterr().err
