"""The clocks of workers on other machines."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from support_runs import attempt_at, generator_seconds, manifest, write_run

from bltybench.errors import UserError
from bltybench.metrics.run_findings import clocks
from bltybench.runs import manifest as manifest_module
from bltybench.runs.clocks import ClockSample, fit_clock, read_clocks
from bltybench.runs.manifest import boot_id
from bltybench.runs.sealing.seal import seal
from bltybench.runs.spool_batches import DURATIONS
from bltybench.runs.store import (
    ATTEMPT_SCHEMA,
    GENERATOR_SCHEMA,
    read_attempts,
    read_generator,
)

S, MS, US = 10**9, 10**6, 10**3


def sample(at_ns: int, ahead_ns: int, round_trip_ns: int = 100 * US) -> ClockSample:
    return ClockSample(host="node", at_ns=at_ns, ahead_ns=ahead_ns, round_trip_ns=round_trip_ns, applied_ns=7)


def exchanges(
    truth: Callable[[int], float], rng: random.Random, *, there_ms: float, back_ms: float, seconds: int = 120
) -> list[ClockSample]:
    """Return measurements over a network with random delays in both directions."""
    samples = []
    for at_s in range(0, seconds, 5):
        there, back = (round(rng.expovariate(1 / ms) * MS) for ms in (there_ms, back_ms))
        asked = at_s * S
        arrived = asked + there
        ahead = arrived + round(truth(arrived)) - asked - (there + back) // 2
        samples.append(sample(asked + (there + back) // 2, ahead, there + back))
    return samples


@pytest.mark.parametrize("offset_ns", [0, 250 * MS, -250 * MS])
@pytest.mark.parametrize("drift_ppm", [0.0, 40.0, -400.0])
@pytest.mark.parametrize("delays_ms", [(0.05, 0.05), (20, 20), (30, 1)])
def test_times_agree_within_the_stated_uncertainty(
    offset_ns: int, drift_ppm: float, delays_ms: tuple[float, float]
) -> None:
    def truth(at_ns: float) -> float:
        return offset_ns + drift_ppm / 1e6 * at_ns

    there, back = delays_ms
    for seed in range(20):
        samples = exchanges(truth, random.Random(seed), there_ms=there, back_ms=back)
        clock = fit_clock("w1", samples)
        first, last = samples[0].at_ns, samples[-1].at_ns
        for at_ns in range(first, last, S):
            mine = clock.offset_ns + clock.drift_ppm / 1e6 * at_ns
            assert abs(mine - truth(at_ns)) <= clock.uncertainty_ns
        # It is not a large number to be on the safe side.
        assert clock.uncertainty_ns < 3 * (there + back) * MS
    assert clock.exchanges == 24


def test_slow_exchange_does_not_spoil_the_fast_ones() -> None:
    fast = [sample(at * S, 5 * US) for at in range(10)]
    clock = fit_clock("w1", [*fast, sample(11 * S, 400 * MS, S)])
    assert (clock.offset_ns, clock.drift_ppm, clock.uncertainty_ns) == (5 * US, 0.0, 50 * US)


def test_uneven_measurements_of_a_short_run_do_not_change_how_long_things_took() -> None:
    samples = [sample(0, 0, 80 * MS), sample(5 * S, 39 * MS, 80 * MS), sample(6 * S, -39 * MS, 80 * MS)]
    clock = fit_clock("w1", samples)
    assert abs(clock.drift_ppm) <= 500
    assert 39 * MS <= clock.uncertainty_ns <= 90 * MS


def test_single_measurement_has_no_drift() -> None:
    clock = fit_clock("w1", [sample(3 * S, 9 * MS, 4 * MS)])
    assert (clock.offset_ns, clock.drift_ppm, clock.uncertainty_ns) == (9 * MS, 0.0, 2 * MS)
    assert fit_clock("w1", [sample(0, 0, 0)]).uncertainty_ns == 0


def test_all_times_of_a_worker_are_put_on_the_axis_of_the_run(tmp_path: Path) -> None:
    rows = [attempt_at(1, worker="w0"), attempt_at(2, worker="w0", stream=False)]
    folder = write_run(tmp_path / "run", rows, seconds=generator_seconds(2, worker="w0"))
    plain, seconds = read_attempts(folder), read_generator(folder)
    folder.clocks_spool.mkdir()
    lines = [sample(at * S, 250 * MS + at * 100 * US) for at in range(10)]
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    (folder.clocks_spool / "w1.jsonl").write_bytes(text)
    assert read_attempts(folder).equals(plain), "another worker's clock"
    (folder.clocks_spool / "w0.jsonl").write_bytes(text + b'{"cut off')
    clock = read_clocks(folder.clocks_spool)["w0"]
    assert clock.drift_ppm == pytest.approx(100)

    def on_axis(table: pa.Table) -> pa.Table:
        for number, name in enumerate(table.schema.names):
            if name.endswith("_ns") and name not in DURATIONS:
                moved = [
                    None if at is None else at + clock.offset_ns + round(at * clock.drift_ppm / 1e6)
                    for at in table[name].to_pylist()
                ]
                table = table.set_column(number, table.schema.field(number), pa.array(moved, pa.int64()))
        return table

    for sealed in (False, True):
        assert read_attempts(folder).equals(on_axis(plain)), sealed
        assert read_generator(folder).equals(on_axis(seconds)), sealed
        seal(folder)
    assert [stored.worker for stored in folder.manifest().worker_clocks] == ["w0", "w1"]
    assert not folder.clocks_spool.exists()
    seal(folder)
    assert read_attempts(folder).equals(on_axis(plain))


@pytest.mark.parametrize("damage", [b"{}\n", b"\xff\n", b'{"host": 1}\n'])
def test_damaged_measurements_are_a_user_error(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "w0.jsonl").write_bytes(damage)
    with pytest.raises(UserError, match="is damaged"):
        read_clocks(tmp_path)


def test_audit_states_the_uncertainty_between_machines() -> None:
    assert not list(clocks(manifest()))
    exact = fit_clock("w0", [sample(0, 0)])
    (finding,) = clocks(manifest(worker_clocks=[exact]))
    assert (finding.holds, finding.actual) == (True, "±0.1 ms between machines")
    vague = msgspec.structs.replace(exact, worker="w1", uncertainty_ns=101 * MS)
    (finding,) = clocks(manifest(worker_clocks=[exact, vague]))
    assert not finding.holds
    assert "worker w1 (node) are known to ±101 ms only" in (finding.reason or "")


def test_processes_in_another_time_namespace_do_not_share_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "time"
    monkeypatch.setattr(manifest_module, "TIME_NAMESPACE", link)
    without = boot_id()
    link.symlink_to(manifest_module.FIRST_TIME_NAMESPACE)
    assert boot_id() == without
    link.unlink()
    link.symlink_to("time:[4026532178]")
    assert boot_id() == f"{without} time:[4026532178]"


def test_every_column_in_nanoseconds_is_a_time_on_the_axis_or_a_known_duration() -> None:
    names = {name for name in ATTEMPT_SCHEMA.names + GENERATOR_SCHEMA.names if name.endswith("_ns")}
    times = {"at_ns", "due_ns", "sent_ns", "headers_ns", "first_token_ns", "first_output_ns", "last_token_ns"}
    # A new column of either kind belongs in one of the two.
    assert names == times | {"end_ns", "held_until_ns"} | DURATIONS
