from __future__ import annotations

import socket
import sys
import time
from itertools import accumulate

import gevent
import pytest
from support_wire import HEADERS, PATIENT, Server, exchange_with
from support_wire_server import SLOW_EVENTS

from bltybench.runs.attempt import Outcome, Stamp
from bltybench.wire import Connection, Exchange, ExchangeResult, Fault, Origin, Reader
from bltybench.wire.scheduling import batched_reads
from bltybench.wire.stamps import enable


def test_kernel_stamps_are_of_the_arrival_not_of_the_read(server: Server, reader: Reader) -> None:
    with socket.socket() as probe:
        if not enable(probe):
            pytest.skip("no kernel receive stamps on this system")
    busy: list[tuple[int, int]] = []

    def be_busy() -> None:
        for _ in range(4):
            began = time.monotonic_ns()
            while time.monotonic_ns() - began < 35_000_000:
                pass
            busy.append((began, time.monotonic_ns()))
            gevent.sleep(0.03)

    gevent.spawn_later(0.05, be_busy)
    exchange, reading = exchange_with(server.port, "paced", reader, timeouts=PATIENT)
    assert reading.outcome is Outcome.OK
    assert exchange.stamp is Stamp.KERNEL
    written = [int(part) for part in _split_times(reading.text)]
    stamped = _stamped(reading)
    assert len(stamped) == len(written) == 30
    # Gaps are cut to microseconds; no stamp lies before its event was written.
    assert all(at + 2_000 >= wrote for at, wrote in zip(stamped, written, strict=True))
    # Something arrived while the loop was busy and was stamped then, though it was read only afterwards.
    assert any(began < at < ended - 1_000_000 for at in stamped for began, ended in busy)
    assert (exchange.observer_lag_us or 0) >= 1_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")
def test_a_slow_stream_is_read_in_rounds_and_stamped_no_worse(
    server: Server, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched_reads, "_SAMPLE_SIZE", 4)
    monkeypatch.setattr(
        batched_reads, "_MIN_READS_PER_S", 1.0
    )  # a single stream of some 60 events a second pays
    seen: list[tuple[int, bool]] = []

    def look() -> None:
        while True:
            seen.append((len(reader.batched_reads), reader.batched_reads.batching))
            gevent.sleep(0.001)

    watcher = gevent.spawn(look)
    exchange, reading = exchange_with(server.port, "paced", reader, timeouts=PATIENT)
    watcher.kill()
    assert (reading.outcome, exchange.stamp) == (Outcome.OK, Stamp.KERNEL)
    assert (1, True) in seen
    assert (len(reader.batched_reads), reader.batched_reads.batching) == (0, False)
    written = [int(part) for part in _split_times(reading.text)]
    stamped = _stamped(reading)
    late_ns = sorted(at - wrote for at, wrote in zip(stamped, written, strict=True))
    # Had they been stamped when they were read, half of them would be later than a round is long.
    assert late_ns[len(late_ns) // 2] < batched_reads.BATCH_PERIOD_S * 1e9
    assert late_ns[0] >= -2_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")
@pytest.mark.parametrize(
    ("path", "fewest", "fewer_than"),
    [
        ("paced", 0, 1),
        ("paced-end-at-once", 0, 1),
        ("paced-pair-first", batched_reads.MIN_SLOW_READS_AGAIN, batched_reads.MIN_SLOW_READS),
    ],
)
def test_what_was_slow_is_sooner_seen_to_be_so_again(
    server: Server, reader: Reader, path: str, fewest: int, fewer_than: int
) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT), reader)
    reads_until_rounds: list[int] = []
    for _ in range(5):
        exchange = Exchange(stream=True)
        sent = gevent.spawn(connection.send, "POST", f"/{path}", HEADERS, b"{}", exchange)
        with gevent.Timeout(20):
            gevent.sleep(0)
            while not len(reader.batched_reads):
                gevent.sleep(0.001)
            reads_until_rounds.append(len(exchange.arrivals))
            sent.join()
        assert reader.read(exchange).outcome is Outcome.OK
    connection.close()
    # On a busy machine events come unevenly, and it takes longer.
    assert reads_until_rounds[0] >= batched_reads.MIN_SLOW_READS
    assert fewest <= min(reads_until_rounds[1:]) < fewer_than
    assert len(reader.batched_reads) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")
def test_an_idle_connection_that_had_a_slow_stream_is_seen_to_be_closed(
    server: Server, reader: Reader
) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT), reader)
    connection.send("POST", "/paced-closes-later", HEADERS, b"{}", exchange := Exchange(stream=True))
    assert reader.read(exchange).outcome is Outcome.OK
    if not len(reader.batched_reads):
        pytest.skip("the machine was too busy for a slow stream")
    with gevent.Timeout(20):
        while len(reader.batched_reads):
            gevent.sleep(0.001)
    connection.send("POST", "/paced", HEADERS, b"{}", exchange := Exchange(stream=True))
    assert (reader.read(exchange).outcome, exchange.connect_ns is not None) == (Outcome.OK, True)
    connection.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")
@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("paced-cut", (Outcome.BROKEN_STREAM, Fault.CLOSED_EARLY)),
        ("paced-reset", (Outcome.BROKEN_STREAM, Fault.RESET)),
        ("paced-stalls", (Outcome.TIMEOUT, Fault.IDLE_TIMEOUT)),
        ("paced-junk", (Outcome.BROKEN_STREAM, Fault.BAD_HTTP)),
        ("paced-bytes", (Outcome.OK, None)),
        ("paced-pairs", (Outcome.OK, None)),
    ],
)
def test_no_event_of_a_slow_stream_is_lost_however_it_ends(
    server: Server, reader: Reader, path: str, wanted: tuple[Outcome, Fault | None]
) -> None:
    exchange, reading = exchange_with(server.port, path, reader)
    assert (reading.outcome, reading.error_type) == wanted
    stamped = _stamped(reading)
    assert len(stamped) == len(_split_times(reading.text)) == SLOW_EVENTS
    assert exchange.stamp is Stamp.KERNEL
    # Two are written at once and share a read; on a busy machine others may too.
    assert (reading.coalesced_events or 0) >= (path == "paced-pairs")
    assert len(reader.batched_reads) == 0


def test_a_slow_stream_that_is_given_up_keeps_what_had_come(server: Server, reader: Reader) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT), reader)
    exchange = Exchange(stream=True)
    sent = gevent.spawn(connection.send, "POST", "/paced-stalls", HEADERS, b"{}", exchange)
    with gevent.Timeout(20):
        while len(exchange.pieces) < SLOW_EVENTS:
            gevent.sleep(0.01)
    sent.kill()
    reading = reader.read(exchange)
    assert (reading.outcome, reading.events) == (Outcome.CANCELLED, SLOW_EVENTS)


def _stamped(reading: ExchangeResult) -> list[int]:
    assert reading.first_token_ns is not None
    return list(
        accumulate((gap_us * 1000 for gap_us in reading.gaps_us or []), initial=reading.first_token_ns)
    )


def _split_times(text: str) -> list[str]:
    width = len(str(time.monotonic_ns()))
    return [text[at : at + width] for at in range(0, len(text), width)]
