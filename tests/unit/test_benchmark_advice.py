"""Prescriptions on workloads that they were not derived from: a few of the cases of the benchmark."""

from pathlib import Path

from benchmarks.advice import play, rows, table


def test_prescriptions_keep_the_limits_with_other_workloads(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    found = list(rows([1, 3, 6], file))
    assert [row.case for row in found] == [1, 3, 6]
    assert all(row.keeps_limits and row.is_fast for row in found)
    # The second time, they are read.
    file.write_bytes(file.read_bytes().replace(b'"clients":', b'"clients":1'))
    again = list(rows([1, 3, 6], file))
    assert [row.clients for row in again] != [row.clients for row in found]
    assert "| all | 3 | 100" in table(found)
    assert play(3) == found[1]
