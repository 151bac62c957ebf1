from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support_runs import table

from bltybench.errors import UserError
from bltybench.runs.attempt import Attempt, GeneratorSecond, Outcome, Stamp
from bltybench.runs.folder import RunFolder, create_run, find_run, list_runs
from bltybench.runs.sealing.seal import seal
from bltybench.runs.spool import FLUSH_BYTES, Spool
from bltybench.runs.store import (
    ATTEMPT_SCHEMA,
    GENERATOR_SCHEMA,
    attempt_rows,
    load_attempts,
    read_attempts,
    read_generator,
    to_attempts,
)


def attempt(**changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "worker": "local",
        "user": 1,
        "scenario": "quickstart",
        "call_id": "c1",
        "attempt": 0,
        "due_ns": 10,
        "sent_ns": 20,
        "end_ns": 90,
        "outcome": Outcome.OK,
        "status": 200,
        "endpoint": "/chat/completions",
        "stream": False,
        "bytes_sent": 0,
        "bytes_received": 7,
        "in_flight": 1,
    }
    return Attempt(**(fields | changes))


def streamed(**changes: Any) -> Attempt:
    times = {"headers_ns": 30, "first_token_ns": 40, "last_token_ns": 80, "gaps_us": [1, 0, 3]}
    return attempt(stream=True, stamp=Stamp.KERNEL, **(times | changes))


def second(**changes: Any) -> GeneratorSecond:
    fields: dict[str, Any] = {
        "worker": "local",
        "at_ns": 1_000_000_000,
        "stall_us": 12,
        "cpu_share": 0.25,
        "rss_bytes": 1,
        "users": 2,
        "in_flight": 2,
        "sent": 3,
        "events": 4,
        "coalesced_events": 0,
        "bytes_received": 5,
        "backlog": 0,
    }
    return GeneratorSecond(**(fields | changes))


def test_schemas_have_the_record_fields_in_order() -> None:
    assert tuple(ATTEMPT_SCHEMA.names) == Attempt.__struct_fields__
    assert tuple(GENERATOR_SCHEMA.names) == GeneratorSecond.__struct_fields__


@pytest.mark.parametrize(
    ("schema", "struct"), [(ATTEMPT_SCHEMA, Attempt), (GENERATOR_SCHEMA, GeneratorSecond)]
)
def test_column_is_nullable_exactly_if_the_field_is_optional(schema: pa.Schema, struct: type) -> None:
    nullable = {field.name for field in msgspec.structs.fields(struct) if field.default is None}
    assert {field.name for field in schema if field.nullable} == nullable


def test_types_of_columns_do_not_change() -> None:
    names: dict[str, set[str]] = {}
    for field in (*ATTEMPT_SCHEMA, *GENERATOR_SCHEMA):
        names.setdefault(str(field.type), set()).add(field.name)
    assert names.pop("list<item: int64>") == {"gaps_us"}
    assert names.pop("bool") == {"first_token_coalesced", "json_valid", "schema_valid", "stream"}
    assert names.pop("double") == {
        "cpu_share",
        "cpu_wait_share",
        "reset_requests_s",
        "reset_tokens_s",
        "retry_after_s",
        "steal_share",
        "waited_s",
        "window_requests_s",
    }
    assert names.pop("string") == {
        "call_id",
        "endpoint",
        "error_code",
        "error_message",
        "error_type",
        "finish_reason",
        "header_dialect",
        "key",
        "model",
        "name",
        "notes",
        "outcome",
        "request_id",
        "requested_model",
        "response_id",
        "scenario",
        "stage",
        "stamp",
        "target",
        "tokens_source",
        "worker",
    }
    assert names.keys() == {"int64"}


def test_attempts_survive_spool_and_parquet_unchanged(tmp_path: Path) -> None:
    run = create_run(tmp_path, "quickstart")
    rows = [
        attempt(),
        streamed(call_id="c2"),
        attempt(call_id="c3", outcome=Outcome.RATE_LIMITED, status=429),
    ]
    with Spool(run.attempts_spool / "local.jsonl") as spool:
        for row in rows:
            spool.append(row)
    with Spool(run.generator_spool / "local.jsonl") as spool:
        spool.append(second())

    unsealed = read_attempts(run)
    assert msgspec.convert(unsealed.to_pylist(), list[Attempt], strict=False) == rows
    seal(run)
    assert read_attempts(run) == unsealed
    assert msgspec.convert(read_generator(run).to_pylist(), list[GeneratorSecond]) == [second()]
    assert not run.attempts_spool.exists()
    seal(run)
    assert read_attempts(run) == unsealed


def test_load_attempts_returns_the_records_without_their_gaps(tmp_path: Path) -> None:
    run = create_run(tmp_path, "s")
    rows = [
        streamed(call_id="c2", retry_after_s=1.5),
        attempt(call_id="c3", outcome=Outcome.RATE_LIMITED, status=429, error_message="wait"),
        attempt(call_id="c4", sent_ns=None, outcome=Outcome.TRANSPORT_ERROR, status=None),
    ]
    with Spool(run.attempts_spool / "local.jsonl") as spool:
        for row in rows:
            spool.append(row)
    loaded = load_attempts(run)
    assert loaded == [msgspec.structs.replace(rows[0], gaps_us=[]), *rows[1:]]
    assert type(loaded[0].first_token_ns) is int
    assert loaded[0].stream is True
    assert to_attempts(read_attempts(run).slice(0, 0), run) == []


def test_zero_and_missing_stay_distinct(tmp_path: Path) -> None:
    run = create_run(tmp_path, "s")
    with Spool(run.attempts_spool / "local.jsonl") as spool:
        spool.append(streamed(gaps_us=[], coalesced_events=0, observer_lag_us=0))
        spool.append(attempt())
    table = read_attempts(run)
    assert table["gaps_us"].to_pylist() == [[], None]
    assert table["coalesced_events"].to_pylist() == [0, None]
    assert table["bytes_sent"].to_pylist() == [0, 0]


def test_spools_of_several_processes_become_one_table(tmp_path: Path) -> None:
    run = create_run(tmp_path, "s")
    for worker in ("w0", "w1"):
        with Spool(run.attempts_spool / f"{worker}.jsonl") as spool:
            spool.append(attempt(worker=worker))
    seal(run)
    assert read_attempts(run)["worker"].to_pylist() == ["w0", "w1"]


def test_incomplete_last_line_is_dropped(tmp_path: Path) -> None:
    run = create_run(tmp_path, "s")
    path = run.attempts_spool / "local.jsonl"
    with Spool(path) as spool:
        spool.append(attempt())
        spool.append(attempt(call_id="cut"))
    os.truncate(path, path.stat().st_size - 9)
    assert read_attempts(run)["call_id"].to_pylist() == ["c1"]


def test_spool_with_only_an_incomplete_line_is_empty(tmp_path: Path) -> None:
    run = create_run(tmp_path, "s")
    (run.attempts_spool / "local.jsonl").write_bytes(b'{"worker":"lo')
    seal(run)
    assert read_attempts(run).num_rows == 0
    assert read_attempts(run).schema == ATTEMPT_SCHEMA


def test_damaged_line_gives_an_error_with_the_file(tmp_path: Path) -> None:
    run = create_run(tmp_path, "s")
    (run.attempts_spool / "local.jsonl").write_bytes(b"{]\n")
    with pytest.raises(UserError, match=r"local\.jsonl: is damaged"):
        read_attempts(run)


def test_appending_past_the_flush_size_writes_to_disk(tmp_path: Path) -> None:
    with Spool(tmp_path / "x.jsonl") as spool:
        while spool.path.stat().st_size == 0:
            spool.append(attempt(error_message="x" * 300))
        assert spool.path.stat().st_size >= FLUSH_BYTES
        assert spool.count < 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end_ns": 5}, "end_ns"),
        ({"status": 500}, "cannot be ok"),
        ({"outcome": Outcome.RATE_LIMITED, "status": None}, "refusal"),
        ({"gaps_us": [1]}, "set together"),
        ({"attempt": -1}, "0 or more"),
    ],
)
def test_contradictory_record_is_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attempt(**changes)


def test_runs_are_found_by_path_id_prefix_and_newest(tmp_path: Path) -> None:
    names = ["20260101-000000-a", "20260102-000000-b", "20260102-000000-b-2"]
    for name in [*names, "sample"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "not-a-run").mkdir()
    assert [run.path.name for run in list_runs(tmp_path)] == [*names[::-1], "sample"]
    assert find_run(None, tmp_path).path.name == names[2]
    assert find_run("20260101", tmp_path).path.name == names[0]
    assert find_run("20260102-000000-b", tmp_path).path.name == names[1]
    assert find_run(str(tmp_path / names[0])).path == tmp_path / names[0]
    with pytest.raises(UserError, match="matches several"):
        find_run("20260102", tmp_path)
    with pytest.raises(UserError, match="no such run: 'x'"):
        find_run("x", tmp_path)
    with pytest.raises(UserError, match="no runs here yet"):
        find_run(None, tmp_path / "empty")


def test_two_runs_within_a_second_get_different_ids(tmp_path: Path) -> None:
    made = {create_run(tmp_path, "s").path.name for _ in range(3)}
    assert len(made) == 3


def test_file_in_place_of_the_reports_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    with pytest.raises(UserError, match="cannot store a run here"):
        create_run(tmp_path / "reports", "s")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format_version": 1}'])
def test_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):
        RunFolder(tmp_path).manifest()


def test_runs_of_an_older_format_are_read_with_null_in_newer_columns(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rows = [msgspec.to_builtins(attempt())]
    older = ATTEMPT_SCHEMA.remove(ATTEMPT_SCHEMA.get_field_index("notes"))
    pq.write_table(pa.Table.from_pylist(rows, older), folder.attempts_parquet)
    assert to_attempts(read_attempts(folder), folder) == [attempt()]


def test_records_that_cannot_be_written_are_kept_and_written_later(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    full = os.open("/dev/full", os.O_WRONLY)
    with Spool(path) as spool:
        file = os.dup(spool._fd)
        os.dup2(full, spool._fd)
        os.close(full)
        while spool.count < 200:
            # More than a flush: what can't be written must not stop the caller.
            spool.append(attempt(error_message="x" * 1000))
        with pytest.raises(OSError, match=r"No space left on device: .*x\.jsonl"):
            spool.flush()
        assert path.stat().st_size == 0
        os.dup2(file, spool._fd)
        os.close(file)
    assert path.read_bytes().count(b"\n") == 200


def test_rows_are_the_same_whichever_row_groups_they_are_in(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    expected = table(*(attempt(user=number, sent_ns=number, end_ns=number + 1) for number in range(10)))
    pq.write_table(expected, folder.attempts_parquet, row_group_size=3)
    for rows in ([5, 4, 7], [9], [0, 9], list(range(10)), []):
        assert attempt_rows(folder, np.array(rows, np.uint64)) == expected.take(pa.array(rows, pa.uint64()))
