"""From log files to a run folder: one pass to learn what the log holds, and one to write its attempts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bltybench.errors import UserError
from bltybench.imports.formats import SNIFFED_CHARS, LogFormat
from bltybench.imports.record import FILE, IMPORTED, ImportRecord
from bltybench.imports.row import BrokenRowError, LogRow, Skipped
from bltybench.imports.source import Report, Source
from bltybench.imports.survey import MAX_CLIENTS, Survey, lacks_of
from bltybench.runs.attempt import Attempt, TokensSource
from bltybench.runs.folder import RunFolder, create_run, write_atomically
from bltybench.runs.manifest import MAX_RUN_NS, Clock, Host, Manifest, TargetInfo, package_versions
from bltybench.runs.sealing.seal import seal
from bltybench.runs.spool import Spool
from bltybench.scenario.patterns import Closed
from bltybench.scenario.workload import NO_TIME_LIMIT_S, Scenario
from bltybench.text import sanitize

MAX_BROKEN_SHOWN = 10
"""Broken rows that are named; all are counted."""
MAX_BROKEN_SHARE = 0.5
"""Fraction of broken rows from which the format is probably another."""
NO_MODEL = "not in the log"


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Which rows to import."""

    client: str | None = field(default=None, repr=False)
    since_ns: int | None = None
    """Unix time of the first request to import."""
    until_ns: int | None = None

    def takes(self, row: LogRow) -> bool:
        """Return whether a row is to be imported."""
        at_ns = row.end_ns if row.start_ns is None else row.start_ns
        return (
            (self.client is None or row.client == self.client)
            and (self.since_ns is None or at_ns >= self.since_ns)
            and (self.until_ns is None or at_ns < self.until_ns)
        )


def import_logs(
    files: Sequence[Path],
    form: LogFormat,
    choice: RowSelection,
    target: TargetInfo | None,
    reports: Path,
    *,
    command: list[str],
    shared_limit: bool = False,
    report: Report | None = None,
) -> tuple[RunFolder, ImportRecord]:
    """Write the requests of log files as a run. Raise UserError if there are none, or too long apart."""
    survey = _survey(files, form, choice, report)
    _check(survey, files, form)
    source = ImportRecord(
        format=form.name,
        files=[file.name for file in files],
        rows=survey.rows,
        skipped=dict(survey.skipped.most_common()),
        broken=survey.broken,
        broken_rows=survey.broken_rows,
        clock_s=survey.clock_s,
        durations=survey.durations,
        measured_durations=form.measured_durations,
        retries_inside=form.retries_inside,
        clients=len(survey.clients) or None,
        shared_limit=shared_limit,
        tokens=survey.tokens,
        headers=survey.headers,
        lacks=lacks_of(survey, form, shared_limit=shared_limit),
    )
    folder = create_run(reports, f"import-{form.name.partition('+')[0]}")
    with Spool(folder.attempts_spool / "import.jsonl") as spool:
        for row in _requests(files, form, choice, None, report):
            if row.span is None or row.span not in survey.parents:
                spool.append(_attempt(row, spool.count, survey))
    write_atomically(folder.path / FILE, msgspec.json.format(msgspec.json.encode(source), indent=2))
    folder.write_manifest(_manifest(folder, survey, form, target, command))
    seal(folder)
    return folder, source


def _survey(files: Sequence[Path], form: LogFormat, choice: RowSelection, report: Report | None) -> Survey:
    survey = Survey()
    wrappers = Survey()
    for row in _requests(files, form, choice, survey, report):
        survey.add(row)
    if survey.parents:
        # A span that contains a request was counted before or after that request was seen.
        for row in _requests(files, form, choice, None, report):
            if row.span is None or row.span not in survey.parents:
                wrappers.add(row)
        wrappers.skipped, wrappers.broken = survey.skipped, survey.broken
        wrappers.broken_rows, wrappers.parents = survey.broken_rows, survey.parents
        if survey.rows > wrappers.rows:
            wrappers.skipped["spans that contain the span of the request"] = survey.rows - wrappers.rows
        return wrappers
    return survey


def _requests(
    files: Sequence[Path], form: LogFormat, choice: RowSelection, survey: Survey | None, report: Report | None
) -> Iterator[LogRow]:
    """Yield the requests to import. Count the other rows in ``survey``."""
    for file in files:
        with Source(file) as start:
            first = start.read(SNIFFED_CHARS)
        with Source(file, report) as source:
            for located in form.rows(source, first):
                where = f"{sanitize(file.name)}:{located.line}"
                for parsed in _parsed(located.value, form):
                    if isinstance(parsed, LogRow):
                        if choice.takes(parsed):
                            yield parsed
                        elif survey is not None:
                            survey.skipped["requests outside the selection"] += 1
                    elif survey is None:
                        continue
                    elif isinstance(parsed, Skipped):
                        survey.skipped[parsed.why] += 1
                    else:
                        survey.broken += 1
                        if len(survey.broken_rows) < MAX_BROKEN_SHOWN:
                            survey.broken_rows.append(f"{where}: {parsed}")


def _parsed(value: object, form: LogFormat) -> Iterator[LogRow | Skipped | BrokenRowError]:
    if isinstance(value, BrokenRowError):
        yield value
        return
    try:
        yield from form.parse(value)
    except BrokenRowError as error:
        yield error


def _check(survey: Survey, files: Sequence[Path], form: LogFormat) -> None:
    where = ", ".join(map(str, files))
    total = survey.rows + survey.broken
    if survey.broken and survey.broken > MAX_BROKEN_SHARE * total:
        place, _, why = survey.broken_rows[0].partition(": ")
        what = f"{survey.broken:,} of {total:,} rows can't be read as {form.name}; the first: {why}"
        raise UserError(what, where=place, remedy="name the log's format with --format")
    if not survey.rows:
        others = "; ".join(f"{why}: {count:,}" for why, count in survey.skipped.most_common())
        what = f"has no requests to import{f' ({others})' if others else ''}"
        raise UserError(what, where=where, remedy="see --path, --client, --since, and --until")
    if survey.last_ns - survey.first_ns > MAX_RUN_NS:
        raise UserError("spans more than a year", where=where, remedy="import a part: --since and --until")


def _attempt(row: LogRow, number: int, survey: Survey) -> Attempt:
    result = row.result

    def at(ns: int | None) -> int | None:
        return None if ns is None else ns - survey.first_ns

    sent_ns, end_ns = at(row.start_ns), row.end_ns - survey.first_ns
    headers_ns, first_ns = at(row.headers_ns), at(row.first_token_ns)
    known = result.prompt_tokens is not None or result.completion_tokens is not None
    client = None if row.client is None else survey.clients.get(hash(row.client), MAX_CLIENTS)
    quota = result.quota
    return Attempt(
        worker=IMPORTED,
        user=client,
        scenario=IMPORTED,
        call_id=f"{IMPORTED}-{number}",
        attempt=0,
        request_id=result.request_id,
        response_id=result.response_id,
        due_ns=end_ns if sent_ns is None else sent_ns,
        sent_ns=sent_ns,
        headers_ns=headers_ns,
        first_token_ns=first_ns,
        gaps_us=None if first_ns is None else [],
        end_ns=end_ns,
        connect_ns=row.connect_ns,
        tls_ns=row.tls_ns,
        outcome=result.outcome,
        status=result.status,
        error_type=result.error_type,
        error_code=result.error_code,
        error_message=result.error_message,
        finish_reason=result.finish_reason,
        notes=result.notes,
        endpoint=row.endpoint,
        model=row.model,
        stream=row.stream,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        cached_tokens=result.cached_tokens,
        reasoning_tokens=result.reasoning_tokens,
        tokens_source=TokensSource.USAGE if known else None,
        max_tokens=row.max_tokens,
        bytes_sent=row.bytes_sent,
        bytes_received=row.bytes_received,
        limit_requests=quota.limit_requests,
        remaining_requests=quota.remaining_requests,
        reset_requests_s=quota.reset_requests_s,
        limit_tokens=quota.limit_tokens,
        remaining_tokens=quota.remaining_tokens,
        reset_tokens_s=quota.reset_tokens_s,
        retry_after_s=quota.retry_after_s,
        header_dialect=quota.dialect,
    )


def _manifest(
    folder: RunFolder, survey: Survey, form: LogFormat, target: TargetInfo | None, command: list[str]
) -> Manifest:
    host = next(iter(survey.hosts)) if len(survey.hosts) == 1 else None
    models = f"{len(survey.models):,} models" if survey.models else NO_MODEL
    scenario = Scenario(
        title=f"Traffic imported from a log ({form.name})",
        target="log" if target is None else target.name,
        model=next(iter(survey.models)) if len(survey.models) == 1 else models,
        duration_s=NO_TIME_LIMIT_S,
        users=1,
        arrivals=Closed(kind="closed"),
    )
    known = target or TargetInfo(
        name=sanitize(host or "log", limit=80), base_url=f"https://{host}" if host else ""
    )
    return Manifest(
        run_id=folder.path.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        scenario=f"import-{form.name}",
        resolved=scenario.model_dump(mode="json"),
        target=known,
        command=command,
        versions=package_versions(),
        host=Host.here(),
        clock=Clock(monotonic_ns=0, wall_ns=survey.first_ns),
        ended_ns=survey.last_ns - survey.first_ns,
        ended=IMPORTED,
    )
