"""Imported logs: what each format yields, what is left out, and what never reaches the run folder."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bltybench.cli.app import app
from bltybench.errors import UserError
from bltybench.imports.formats import USUAL_PATHS, inferred, named
from bltybench.imports.json_rows import rows
from bltybench.imports.record import ImportRecord, read_import
from bltybench.imports.row import BrokenRowError, LogRow, Skipped, first_flag
from bltybench.imports.run import RowSelection, import_logs
from bltybench.imports.source import Source
from bltybench.report.build import build
from bltybench.report.run_limits import analyzed_attempts, findings_of
from bltybench.report.run_load import load_of_run
from bltybench.runs.attempt import Attempt
from bltybench.runs.folder import RunFolder
from bltybench.runs.replay import write_trace
from bltybench.runs.store import load_attempts

LOGS = Path(__file__).parents[1] / "data" / "logs"
PATHS = re.compile(USUAL_PATHS)
S = 1_000_000_000


def imported(
    tmp_path: Path, log: str | Path, form: str | None = None, **options: Any
) -> tuple[RunFolder, ImportRecord, list[Attempt]]:
    path = LOGS / log
    chosen = inferred(path, PATHS) if form is None else named(form, PATHS)
    choice = RowSelection(client=options.pop("client", None))
    folder, source = import_logs([path], chosen, choice, None, tmp_path, command=["bltybench"], **options)
    return folder, source, sorted(load_attempts(folder), key=lambda one: one.end_ns)


EXPECTED: dict[str, list[tuple[str, int | None, float | None, int | None, int | None]]] = {
    "litellm.jsonl": [
        ("rate_limited", 429, 0.04, None, None),
        ("ok", 200, 2.5, 100, 50),
        ("ok", 200, 1.0, 20, 5),
    ],
    "litellm_payloads.json": [("ok", 200, 1.5, 20, 10), ("timeout", 408, 30.0, None, None)],
    "litellm_proxy.jsonl": [("ok", 200, None, None, None), ("rate_limited", 429, None, None, None)],
    "langfuse.json": [("ok", 200, 2.771, 45, 353), ("rate_limited", 429, 0.08, None, None)],
    "langfuse.csv": [("ok", 200, 2.771, 13, 353), ("rate_limited", 429, 0.08, None, None)],
    "otel.jsonl": [("ok", 200, 2.5, 100, 180), ("rate_limited", 429, 0.1, None, None)],
    "chat.har": [
        ("ok", 200, 1.4005, 12, 3),
        ("rate_limited", 429, 0.08, None, None),
        ("cancelled", None, 0.9, None, None),
    ],
    "nginx_combined.log": [
        ("ok", 200, None, None, None),
        ("rate_limited", 429, None, None, None),
        ("cancelled", None, None, None, None),
    ],
    "nginx.jsonl": [("ok", 200, 1.25, None, None), ("server_error", 503, 0.004, None, None)],
    "envoy.log": [
        ("rate_limited", 429, 0.001, None, None),
        ("ok", 200, 1.226, None, None),
        ("transport_error", 200, 0.7, None, None),
        ("cancelled", None, 5.0, None, None),
    ],
    "envoy.jsonl": [("rate_limited", 429, 0.001, None, None), ("ok", 200, 1.226, None, None)],
}
"""Outcome, status, duration, and tokens of each request, in the order of their ends."""


@pytest.mark.parametrize("log", EXPECTED)
def test_log_yields_its_requests_and_no_secret(log: str, tmp_path: Path) -> None:
    folder, source, attempts = imported(tmp_path, log)
    found = [
        (
            str(one.outcome),
            one.status,
            None if one.sent_ns is None else (one.end_ns - one.sent_ns) / S,
            one.prompt_tokens,
            one.completion_tokens,
        )
        for one in attempts
    ]
    expected: list[Any] = [(*row[:2], pytest.approx(row[2]), *row[3:]) for row in EXPECTED[log]]
    assert found == expected
    assert min(one.due_ns for one in attempts) == 0
    assert source.rows == len(attempts)
    manifest = folder.manifest()
    assert manifest.ended == "imported"
    assert read_import(folder) == source
    for file in folder.path.rglob("*"):
        if file.is_file():
            assert b"SECRET" not in (data := file.read_bytes()), file
            assert b"LEAKED" not in data, file
    assert not any("SECRET" in str(one) or "LEAKED" in str(one) for one in attempts)


def test_rows_that_are_left_out_and_broken_rows_are_counted_and_named(tmp_path: Path) -> None:
    _, source, _ = imported(tmp_path, "litellm.jsonl")
    assert source.skipped == {"calls of other types": 1, "answers from LiteLLM's cache": 1}
    assert source.broken == 2
    assert source.broken_rows == ["litellm.jsonl:5: startTime is no time", "litellm.jsonl:6: it is no JSON"]


def test_details_of_each_format_are_kept(tmp_path: Path) -> None:
    _, _, [refused, first, plain] = imported(tmp_path / "a", "litellm.jsonl")
    assert first.ttft_ns == S // 2
    assert (first.cached_tokens, first.reasoning_tokens) == (64, 10)
    assert plain.ttft_ns is None, (
        "LiteLLM writes the end as the time of the first token of a plain completion"
    )
    assert refused.error_type == "RateLimitError"
    _, _, [payload, _] = imported(tmp_path / "b", "litellm_payloads.json")
    assert (payload.limit_requests, payload.remaining_requests, payload.max_tokens) == (500, 499, 64)
    _, otel, [span, _] = imported(tmp_path / "c", "otel.jsonl")
    assert (span.ttft_ns, span.finish_reason, span.max_tokens) == (S // 2, "stop", 200)
    assert otel.skipped["spans that contain the span of the request"] == 1
    folder, _, [har, limited, _] = imported(tmp_path / "d", "chat.har")
    assert (har.connect_ns, har.tls_ns, har.remaining_requests) == (30_000_000, 40_000_000, 59)
    assert (limited.retry_after_s, limited.error_type) == (7, "requests")
    assert folder.manifest().target.base_url == "https://api.example.com"
    _, _, [nginx, _] = imported(tmp_path / "e", "nginx.jsonl")
    assert nginx.headers_ns is not None
    assert nginx.sent_ns is not None
    assert nginx.headers_ns - nginx.sent_ns == 800_000_000


@pytest.mark.parametrize(
    ("log", "known"),
    [
        ("litellm.jsonl", [(0, None, None, None), (0, True, None, None), (0, None, None, None)]),
        ("litellm_payloads.json", [(0, True, None, None), (0, False, None, None)]),
        ("langfuse.json", [(0, True, None, None), (1, None, None, None)]),
        ("otel.jsonl", [(None, True, None, None), (None, None, None, None)]),
        ("chat.har", [(None, False, 490, 800), (None, True, None, None), (None, True, None, None)]),
        ("nginx_combined.log", [(0, None, None, None)] * 3),
        ("nginx.jsonl", [(0, None, 700, 900), (0, None, 700, 90)]),
    ],
)
def test_what_a_log_does_not_say_is_null(log: str, known: list[tuple[Any, ...]], tmp_path: Path) -> None:
    _, _, attempts = imported(tmp_path, log)
    assert [(one.user, one.stream, one.bytes_sent, one.bytes_received) for one in attempts] == known
    assert {one.in_flight for one in attempts} == {None}


@pytest.mark.parametrize(
    ("values", "flag"),
    [((None, False), False), (("True",), True), (("", 0, None), None), ((True, False), True)],
)
def test_flags_of_logs_can_be_text(values: tuple[object, ...], flag: bool | None) -> None:
    assert first_flag(*values) is flag


def test_combined_with_more_fields_is_not_guessed_but_read_if_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more fields: name them") as caught:
        inferred(LOGS / "nginx_request_time.log", PATHS)
    assert "combined+request_time" in str(caught.value)
    _, source, attempts = imported(tmp_path, "nginx_request_time.log", "combined+request_time")
    assert [one.status for one in attempts] == [200, 429, None]
    assert source.broken_rows == ["nginx_request_time.log:6: it does not have this format"]
    assert source.clock_s == 1
    assert any("whole seconds" in line for line in source.lacks)


def test_custom_format_reads_times_with_milliseconds_and_response_headers(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text(
        '1763632801.500 10.0.0.1 "POST /v1/chat/completions HTTP/1.1" 429 0.002, 0.250 7\n'
        '1763632802.000 10.0.0.1 "POST /v1/chat/completions HTTP/1.1" 200 0.500 -\n'
    )
    form = 'nginx:$msec $remote_addr "$request" $status $upstream_response_time $sent_http_retry_after'
    with pytest.raises(UserError, match="the format has no"):
        named("nginx:$remote_addr $status", PATHS)
    _, source, [limited, _] = imported(tmp_path / "runs", log, form)
    assert (limited.retry_after_s, source.clock_s, source.headers) == (7, 0.001, 1)
    assert limited.sent_ns is None, "$upstream_response_time is not the request's duration"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("hello\nworld\n", ":1: has a format that is not recognized"),
        ('{"a": 1}\n{"b": 2}\n', "has a format that is not recognized"),
        ('[{"a": 1}, oops]\n', ":1: is no JSON"),
    ],
)
def test_unusable_log_is_one_error_and_exit_code_2(content: str, says: str, tmp_path: Path) -> None:
    log = tmp_path / "some.log"
    log.write_text(content)
    with pytest.raises(UserError) as caught:
        inferred(log, PATHS)
    assert says in str(caught.value)
    assert "some.log" in str(caught.value)


def test_log_of_other_requests_names_what_it_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="requests to other paths: 4"):
        import_logs(
            [LOGS / "envoy.log"],
            named("envoy", re.compile("/embeddings$")),
            RowSelection(),
            None,
            tmp_path,
            command=[],
        )
    with pytest.raises(UserError, match="can't be read as combined"):
        imported(tmp_path, "envoy.log", "combined")


def test_gzipped_log_and_one_client_can_be_imported(tmp_path: Path) -> None:
    log = tmp_path / "langfuse.json.gz"
    log.write_bytes(gzip.compress((LOGS / "langfuse.json").read_bytes()))
    _, source, [attempt] = imported(tmp_path / "runs", log, client="bob")
    assert (attempt.status, source.clients) == (429, 1)
    assert source.skipped["requests outside the selection"] == 1


def test_large_documents_are_read_in_parts_and_a_cut_one_counts_a_broken_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bltybench.imports.json_rows.READ_CHARS", 7)
    log = tmp_path / "x.json"
    made = [{"n": n, "text": 'ü\n"]}' * (n % 5)} for n in range(50)]
    for document in (
        made,
        {"total": 3, "data": made},
        {"log": {"version": "1", "entries": made, "more": 1.5}},
    ):
        log.write_text(json.dumps(document, indent=1))
        with Source(log) as source:
            assert [row.value for row in rows(source, log.read_text()[:9])] == made
        whole = log.read_text()
        log.write_text(whole[: whole.index('"n": 30')])
        with Source(log) as source:
            *complete, cut = [row.value for row in rows(source, whole[:9])]
        assert complete == made[:30]
        assert isinstance(cut, BrokenRowError)


def simulated(path: Path, *, clients: int = 1, minutes: int = 8) -> None:
    """Write an nginx log of a fixed window of 30 requests per minute, with whole seconds."""
    rng = random.Random(5)
    at_s, accepted, lines = 1_763_632_823.4, dict[int, int](), list[tuple[float, str]]()
    while at_s < 1_763_632_823.4 + 60 * minutes:
        at_s += rng.expovariate(1.0)
        window, client = int(at_s // 60), rng.randrange(clients)
        accepted[window] = accepted.get(window, 0) + 1
        status, took_s = (200, rng.uniform(0.3, 1.5)) if accepted[window] <= 30 else (429, 0.004)
        stamp = datetime.fromtimestamp(int(at_s + took_s), UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        request = '"POST /v1/chat/completions HTTP/1.1"'
        line = f'10.0.0.{client} - - [{stamp}] {request} {status} 9 "-" "x" {took_s:.3f}\n'
        lines.append((at_s + took_s, line))
    path.write_text("".join(line for _, line in sorted(lines)))


def test_whole_second_log_shows_the_limit_only_as_exactly_as_its_clock(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    simulated(log)
    folder, source, _ = imported(tmp_path / "runs", log, "combined+request_time")
    record = findings_of(folder, analyzed_attempts(folder).attempts)
    assert record.in_flight is None, "a clock of whole seconds can't show requests in flight"
    for fit in record.consistent:
        assert fit.limit_range[0] < 30 < fit.limit_range[1]
        assert fit.rate_to_send_per_min <= 30
    summary = build(folder)
    page = folder.report_html.read_text()
    assert summary.imported == source
    assert summary.valid
    assert summary.timings_ms["schedule_delay"]["n"] == 0
    assert "What the log lacks" in page
    assert "IMPORTED" in page
    assert "load generator was not the bottleneck" not in page
    assert "not in the log" in page, "tokens are unknown, not 0"
    trace = write_trace(folder, ()).read_text().splitlines()
    assert len(trace) == source.rows, "an imported run can be replayed"


def test_limit_is_not_inferred_from_several_clients_unless_they_share_it(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    simulated(log, clients=2, minutes=3)
    folder, _, _ = imported(tmp_path / "runs", log, "combined+request_time")
    record = findings_of(folder, analyzed_attempts(folder).attempts)
    assert record.status == "unknown"
    assert "2 clients" in str(record.reason)


def test_log_without_durations_has_rates_and_no_latency(tmp_path: Path) -> None:
    folder, _, _ = imported(tmp_path, "nginx_combined.log")
    summary = build(folder, formats={"json", "html"})
    assert summary.rates["refused"].count == 1
    assert summary.timings_ms["latency"]["n"] == 0
    assert summary.in_flight_max is None
    assert "total_tokens" not in summary.rates
    assert {row["total_tokens"] for row in summary.minutes} == {None}
    assert json.loads(summary.to_json())["spent"]["prompt_tokens"] is None
    with pytest.raises(UserError, match="has no durations"):
        load_of_run(folder, clients=1)
    assert "the log has no durations" in folder.report_html.read_text()


def test_command_hides_the_client_and_says_what_the_log_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, log = str(tmp_path / "reports"), str(LOGS / "langfuse.json")
    arguments = ["import", log, "--client", "alice", "--reports", reports]
    monkeypatch.setattr("sys.argv", ["bltybench", *arguments])
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Imported 1 request (langfuse)" in result.output
    assert "The log lacks:" in result.output
    [manifest] = (tmp_path / "reports").glob("*/manifest.json")
    assert "alice" not in manifest.read_text()


WEIRD: tuple[Any, ...] = ([], {}, [1], None, "", "x", "http://[", -1, 0, True, 1e300, float("nan"), "\x00")


def mutated(row: Any) -> Iterator[Any]:
    """Yield copies of a row with another value at one place."""
    if isinstance(row, dict):
        for key, value in row.items():
            yield from ({**row, key: other} for other in (*WEIRD, *mutated(value)))
    elif isinstance(row, list):
        for at, value in enumerate(row):
            yield from ([*row[:at], other, *row[at + 1 :]] for other in (*WEIRD, *mutated(value)))


@pytest.mark.parametrize("log", [name for name in EXPECTED if not name.endswith(".log")])
def test_any_value_of_a_row_gives_a_request_or_a_broken_row(log: str) -> None:
    form = inferred(LOGS / log, PATHS)
    with Source(LOGS / log) as source:
        good = [
            row.value for row in form.rows(source, (LOGS / log).read_text()) if isinstance(row.value, dict)
        ]
    for row in good[:3]:
        for other in mutated(row):
            try:
                found = list(form.parse(other))
            except BrokenRowError:
                continue
            assert all(isinstance(one, LogRow | Skipped | BrokenRowError) for one in found)


def test_damaged_gzip_file_is_one_error(tmp_path: Path) -> None:
    log = tmp_path / "a.gz"
    packed = gzip.compress((LOGS / "envoy.log").read_bytes() * 200)
    for damaged in (packed[:-40], packed[:30] + b"\x00" * 40 + packed[70:]):
        log.write_bytes(damaged)
        with pytest.raises(UserError, match="can't be read"):
            imported(tmp_path / "runs", log, "envoy")
