"""Records of workers that do not see the run's directory: delivery and merge."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import gevent
import msgspec
import pytest
from support_runs import attempt_at, generator_seconds, manifest, write_run

from bltybench.errors import UserError
from bltybench.load.distributed import clock_exchange
from bltybench.load.distributed import courier as courier_module
from bltybench.load.distributed.clock_exchange import ClockAnswer, MasterClock, Question
from bltybench.load.distributed.courier import Courier
from bltybench.load.distributed.inbox import Inbox
from bltybench.load.distributed.messages import MAX_BATCH_BYTES, FilePart, Receipt
from bltybench.load.distributed.presence import PartState, Presence, part_of
from bltybench.load.distributed.scenario_files import ScenarioFiles
from bltybench.runs.clocks import ClockSample, read_clocks
from bltybench.runs.folder import RunFolder, Spill, create_run, create_spill
from bltybench.runs.manifest import Clock
from bltybench.runs.sealing.merge import merge
from bltybench.runs.sealing.seal import seal
from bltybench.runs.spool import Spool
from bltybench.runs.store import load_attempts, read_generator
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import load_book

S, MS = 10**9, 10**6
FILE = "attempts/w0.jsonl"


def batch(offset: int, part: bytes, file: str = FILE) -> FilePart:
    return FilePart.of("run", file, offset, part)


class TestInbox:
    def test_stored_file_is_the_same_whatever_is_repeated_reordered_or_overlaps(self, tmp_path: Path) -> None:
        folder = create_run(tmp_path, "s")
        inbox = Inbox(folder)
        inbox.expect("w0")
        sizes = [
            inbox.take("w0", batch(offset, part)).size
            for offset, part in ((0, b"abc"), (6, b"gh"), (0, b"abc"), (2, b"cdef"), (6, b"gh"), (0, b"a"))
        ]
        inbox.close()
        assert sizes == [3, 3, 3, 6, 8, 8]
        assert (folder.path / FILE).read_bytes() == b"abcdefgh"

    def test_worker_is_running_until_its_last_file_arrives(self, tmp_path: Path) -> None:
        folder = create_run(tmp_path, "s")
        inbox = Inbox(folder)
        assert not inbox
        for worker, text, part in (
            ("w0", b"finished\n", PartState.FINISHED),
            ("w1", b"failed\n", PartState.FAILED),
        ):
            inbox.expect(worker)
            assert part_of(folder, worker) is PartState.RUNNING
            last = batch(0, text, f"attempts/{worker}.part")
            # The receipt can be lost, so the worker sends it again.
            assert [inbox.take(worker, last).size for _ in range(2)] == [len(text)] * 2
            assert part_of(folder, worker) is part
        inbox.expect("w2")
        inbox.close()
        assert part_of(folder, "w2") is PartState.UNKNOWN

    @pytest.mark.parametrize("file", ["manifest.json", "attempts/w1.jsonl", "../x", "/etc/x"])
    def test_worker_can_write_its_own_files_only(self, tmp_path: Path, file: str) -> None:
        folder = create_run(tmp_path, "s")
        inbox = Inbox(folder)
        inbox.expect("w0")
        with pytest.raises(ValueError, match="no file of it"):
            inbox.take("w0", batch(0, b"x", file))
        inbox.close()

    def test_run_without_the_worker_or_after_its_end_takes_nothing(self, tmp_path: Path) -> None:
        inbox = Inbox(create_run(tmp_path, "s"))
        inbox.expect("w0")
        assert inbox.take("?", batch(0, b"x")).size is None
        inbox.close()
        assert inbox.take("w0", batch(0, b"x")).size is None

    def test_batch_that_is_damaged_or_too_large_is_refused(self) -> None:
        whole = batch(0, bytes(MAX_BATCH_BYTES))
        assert len(whole.part()) == MAX_BATCH_BYTES
        for wrong in (b"x", b"xxxxxx", whole.data[:-1], batch(0, bytes(MAX_BATCH_BYTES + 1)).data):
            with pytest.raises(ValueError, match="is damaged"):
                msgspec.structs.replace(whole, data=wrong).part()


class LossyNetwork:
    """Loses, repeats, and delays batches and receipts at random."""

    def __init__(self, inbox: Inbox, seed: int) -> None:
        self.inbox, self.rng = inbox, random.Random(seed)
        self.courier: Courier | None = None
        self.down = False

    def send(self, sent: FilePart) -> None:
        if not self.down:
            for _ in range(self.rng.randrange(3)):
                gevent.spawn_later(self.rng.random() / 100, self._arrive, sent)

    def _arrive(self, sent: FilePart) -> None:
        receipt = self.inbox.take("w1", sent)
        if self.courier is not None and self.rng.random() < 0.8:
            self.courier.take(receipt)


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("INTERVAL_S", 0.01), ("RESEND_S", 0.01), ("MAX_SILENCE_S", 0.1)):
        monkeypatch.setattr(courier_module, name, value)
    monkeypatch.setattr(courier_module, "MAX_BATCH_BYTES", 700)


def spill_of(reports: Path, run: RunFolder, worker: str = "w1") -> RunFolder:
    return create_spill(reports, Spill(run_id=run.path.name, worker=worker))


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("seed", range(3))
def test_every_record_arrives_once_over_a_network_that_loses_and_repeats(tmp_path: Path, seed: int) -> None:
    run = create_run(tmp_path / "master", "s")
    spill = spill_of(tmp_path / "worker", run)
    inbox = Inbox(run)
    inbox.expect("w1")
    network = LossyNetwork(inbox, seed)
    courier = network.courier = Courier(spill, "w1", network.send, "reports/run")
    courier.begin()
    with Presence(spill, "w1") as presence, Spool(spill.path / "attempts/w1.jsonl") as spool:
        for number in range(40):
            spool.append(attempt_at(number / 10, worker="w1", call_id=f"w1-{number}"))
            spool.flush()
            gevent.sleep(0.002)
        presence.leave(failed=False)
    written = (spill.path / "attempts/w1.jsonl").read_bytes()
    courier.finish()
    assert courier.done.wait(20)
    inbox.close()
    assert (run.path / "attempts/w1.jsonl").read_bytes() == written
    assert part_of(run, "w1") is PartState.FINISHED
    assert not (tmp_path / "worker" / "spill-w1").exists()


@pytest.mark.usefixtures("_fast")
def test_records_are_kept_and_named_if_the_master_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = create_run(tmp_path / "master", "s")
    spill = spill_of(tmp_path / "worker", run)
    network = LossyNetwork(Inbox(run), 1)
    network.down = True
    courier = Courier(spill, "w1", network.send, "reports/run")
    courier.begin()
    with Spool(spill.path / "attempts/w1.jsonl") as spool:
        spool.append(attempt_at(1, worker="w1"))
    courier.finish()
    courier.wait()
    assert len(load_attempts(spill)) == 1
    assert f"Copy {spill.path} to the master's machine" in caplog.text
    assert "bltybench report reports/run --merge DIRECTORY" in caplog.text


@pytest.mark.usefixtures("_fast")
def test_worker_stops_sending_to_a_run_that_takes_no_more_records(tmp_path: Path) -> None:
    spill = spill_of(tmp_path, create_run(tmp_path / "master", "s"))
    sent: list[FilePart] = []
    courier = Courier(spill, "w1", sent.append, "reports/run")
    with Spool(spill.path / FILE.replace("w0", "w1")) as spool:
        spool.append(attempt_at(1, worker="w1"))
    courier.begin()
    gevent.sleep(0.05)
    courier.take(Receipt(run_id=spill.path.name, file=FILE, size=None))
    count = len(sent)
    gevent.sleep(0.05)
    assert len(sent) == count > 0
    assert courier.done.is_set()
    assert spill.attempts_spool.exists()


@pytest.mark.usefixtures("_fast")
def test_records_are_kept_if_the_run_has_others_of_the_worker(tmp_path: Path) -> None:
    run = create_run(tmp_path / "master", "s")
    spill = spill_of(tmp_path, run)
    with Spool(spill.path / "attempts/w1.jsonl") as spool:
        spool.append(attempt_at(1, worker="w1"))
    courier: Courier
    courier = Courier(
        spill,
        "w1",
        lambda sent: courier.take(Receipt(run_id=sent.run_id, file=sent.file, size=10**6)),
        "reports/run",
    )
    courier.begin()
    courier.finish()
    assert not courier.wait()
    assert len(load_attempts(spill)) == 1


class TestMerge:
    """A run with two workers, and what the second one kept."""

    def run_and_spill(self, folder: Path) -> tuple[RunFolder, RunFolder]:
        about = manifest(run_id="run", workers=2, ended_ns=None, ended=None)
        mine = [attempt_at(n, worker="w0", call_id=f"w0-{n}") for n in range(5)]
        run = write_run(folder / "run", mine, about=about, seconds=generator_seconds(3, worker="w0"))
        spill = spill_of(folder, RunFolder(Path("run")))
        with Spool(spill.path / "attempts/w1.jsonl") as attempts:
            for n in range(6):
                attempts.append(attempt_at(n + 0.5, worker="w1", call_id=f"w1-{n}"))
        with Spool(spill.path / "generator/w1.jsonl") as generator:
            for second in generator_seconds(3, worker="w1"):
                generator.append(second)
        with Spool(spill.path / "clocks/w1.jsonl") as clocks:
            for n in range(10):
                clocks.append(ClockSample(host="h", at_ns=n * S, ahead_ns=MS, round_trip_ns=MS, applied_ns=0))
        return run, spill

    def deliver(self, run: RunFolder, spill: RunFolder, fraction: float) -> None:
        run.clocks_spool.mkdir()
        for name in spill.spool_files("w1"):
            whole = (spill.path / name).read_bytes()
            (run.path / name).write_bytes(whole[: int(len(whole) * fraction)])

    @pytest.mark.parametrize("sealed", [False, True])
    @pytest.mark.parametrize("fraction", [None, 0.0, 0.45, 1.0])
    def test_merge_adds_what_is_missing_and_repeating_it_changes_nothing(
        self, tmp_path: Path, fraction: float | None, sealed: bool
    ) -> None:
        run, spill = self.run_and_spill(tmp_path)
        if fraction is not None:
            self.deliver(run, spill, fraction)
        if sealed:
            seal(run)
        had = len(load_attempts(run))
        assert merge(run, spill.path).added == 11 - had
        assert merge(run, spill.path).added == 0
        seal(run)
        assert merge(run, spill.path).added == 0
        ids = sorted(row.call_id for row in load_attempts(run))
        assert ids == sorted([f"w0-{n}" for n in range(5)] + [f"w1-{n}" for n in range(6)])
        assert {row.due_ns % S for row in load_attempts(run) if row.worker == "w1"} == {S // 2 + MS}
        assert read_generator(run).num_rows == 6
        assert [clock.offset_ns for clock in run.manifest().worker_clocks] == [MS]
        assert run.manifest().merged_workers == ["w1"]
        assert (spill.path / "attempts/w1.jsonl").exists()

    def test_merge_of_another_run_is_refused_by_name(self, tmp_path: Path) -> None:
        run, spill = self.run_and_spill(tmp_path)
        other = msgspec.structs.replace(run.manifest(), run_id="other")
        run.write_manifest(other)
        with pytest.raises(UserError, match="records of worker w1 in run run, not in other"):
            merge(run, spill.path)

    def test_merge_of_a_worker_that_the_run_never_had_is_refused(self, tmp_path: Path) -> None:
        run, _ = self.run_and_spill(tmp_path)
        with pytest.raises(UserError, match="2 workers, and none is named w2"):
            merge(run, spill_of(tmp_path, run, "w2").path)

    @pytest.mark.parametrize("sealed", [False, True])
    def test_merge_that_contradicts_the_run_is_refused(self, tmp_path: Path, sealed: bool) -> None:
        run, spill = self.run_and_spill(tmp_path)
        self.deliver(run, spill, 1.0)
        if sealed:
            seal(run)
        path = spill.path / "attempts/w1.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"w1-0"', b'"w1-9"'))
        before = load_attempts(run)
        with pytest.raises(UserError, match="contradicts the records of the run in "):
            merge(run, spill.path)
        assert load_attempts(run) == before

    def test_merge_of_something_else_is_refused(self, tmp_path: Path) -> None:
        run, spill = self.run_and_spill(tmp_path)
        for path in (run.path, tmp_path / "nowhere", run.manifest_json):
            with pytest.raises(UserError, match="not a directory with records that a worker kept"):
                merge(run, path)
        spill.spill_json.write_text('{"run_id": "run", "worker": "../w1"}')
        with pytest.raises(UserError, match="cannot be read"):
            merge(run, spill.path)

    def test_merge_waits_for_no_worker_that_still_writes(self, tmp_path: Path) -> None:
        run, spill = self.run_and_spill(tmp_path)
        from bltybench.runs.ownership import WriterLock

        lock = WriterLock(spill.path)
        with pytest.raises(UserError, match="still active"):
            merge(run, spill.path)
        lock.release()
        shutil.rmtree(spill.attempts_spool)
        assert merge(run, spill.path).added == 0


class TestScenarioFiles:
    """The files of a scenario on the master, and what a worker has of them."""

    TOML = """
[targets.sandbox]
base_url = "http://127.0.0.1:8000/v1"
[scenarios.quickstart]
title = "T"
duration_s = 1
users = 1
model = "m"
arrivals = { kind = "trace", file = "trace.csv" }
[[scenarios.quickstart.mix]]
name = "m"
"""

    def master(self, folder: Path) -> ScenarioFiles:
        folder.mkdir()
        (folder / "scenarios.toml").write_text(self.TOML)
        (folder / "trace.csv").write_text("at_s\n0.5\n")
        return ScenarioFiles.of(resolve(load_book(folder / "scenarios.toml")))

    def worker(self, folder: Path, files: ScenarioFiles, monkeypatch: pytest.MonkeyPatch) -> Path:
        shutil.copytree(files.base_dir, folder)
        monkeypatch.chdir(folder)
        return folder

    def test_worker_with_the_same_files_uses_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = self.master(tmp_path / "master")
        folder = self.worker(tmp_path / "worker", files, monkeypatch)
        assert [file.name for file in files.named] == ["trace.csv"]
        assert files.find(None) == folder
        assert files.find(Path("scenarios.toml")) == folder
        (folder / "scenarios.toml").rename(folder / "mine.toml")
        assert files.find(folder / "mine.toml") == folder

    def test_worker_without_scenarios_needs_the_named_files_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = self.master(tmp_path / "master")
        folder = self.worker(tmp_path / "worker", files, monkeypatch)
        (folder / "scenarios.toml").unlink()
        assert files.find(None) == tmp_path / "master"
        elsewhere = msgspec.structs.replace(files, base_dir="/nowhere")
        assert elsewhere.find(None) == folder

    @pytest.mark.parametrize("name", ["scenarios.toml", "trace.csv"])
    def test_worker_with_another_file_is_refused_by_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        files = self.master(tmp_path / "master")
        folder = self.worker(tmp_path / "worker", files, monkeypatch)
        with (folder / name).open("a") as file:
            file.write("# changed\n")
        with pytest.raises(UserError, match=f"{folder / name}: differs from that of the master"):
            files.find(None)
        (folder / name).unlink()
        with pytest.raises(UserError, match="not found"):
            files.find(Path("scenarios.toml"))


class Master:
    """A master whose clocks differ from ours, and that answers some questions late or never."""

    def __init__(self, *, ahead_s: float, wall_ahead_s: float = 0.0) -> None:
        self.ahead_ns, self.wall_ahead_ns = round(ahead_s * S), round(wall_ahead_s * S)
        self.asked = 0
        self.clock: MasterClock | None = None

    def ask(self, question: Question) -> None:
        assert self.clock is not None
        self.asked += 1
        answer = ClockAnswer.to(question)
        answer = msgspec.structs.replace(
            answer,
            monotonic_ns=answer.monotonic_ns + self.ahead_ns,
            wall_ns=answer.wall_ns + self.wall_ahead_ns,
        )
        if self.asked % 3 == 1:
            # The answer to an earlier question, which took very long, is not one to this question.
            answer = msgspec.structs.replace(answer, asked_ns=answer.asked_ns - S, monotonic_ns=0)
        self.clock.take(answer)


class TestMasterClock:
    def clock(self, folder: Path, master: Master, monkeypatch: pytest.MonkeyPatch) -> MasterClock:
        monkeypatch.setattr(clock_exchange, "MAX_ANSWER_S", 0.01)
        run = create_run(folder, "s")
        master.clock = MasterClock(run, "w0", master.ask)
        return master.clock

    @pytest.mark.parametrize("ahead_s", [0.25, -0.25, 86_400.0])
    def test_measured_offset_puts_the_axis_where_the_master_has_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float
    ) -> None:
        master = Master(ahead_s=ahead_s)
        clock = self.clock(tmp_path, master, monkeypatch)
        clock.measure_first()
        anchor = Clock.now()
        theirs = msgspec.structs.replace(anchor, monotonic_ns=anchor.monotonic_ns + master.ahead_ns)
        assert abs(clock.translated(theirs).local_start_ns() - anchor.monotonic_ns) < 20 * MS
        clock.measure()
        clock.close()
        (run,) = tmp_path.iterdir()
        measured = read_clocks(RunFolder(run).clocks_spool)["w0"]
        assert measured.exchanges == 2
        assert abs(measured.applied_ns - master.ahead_ns) <= 20 * MS
        assert abs(measured.offset_ns) <= measured.uncertainty_ns < 20 * MS

    @pytest.mark.parametrize(
        ("wall_ahead_s", "message"),
        [(59, None), (-59, None), (3600, "is 3,600 s behind that of"), (-90, "is 90 s ahead of that of")],
    )
    def test_worker_with_another_time_of_day_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall_ahead_s: int, message: str | None
    ) -> None:
        clock = self.clock(tmp_path, Master(ahead_s=5, wall_ahead_s=wall_ahead_s), monkeypatch)
        if message is None:
            clock.measure_first()
        else:
            with pytest.raises(UserError, match=message):
                clock.measure_first()
        clock.close()
