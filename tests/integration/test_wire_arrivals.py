from __future__ import annotations

import select
import socket
import sys
import time
from itertools import accumulate

import gevent
import pytest
from support_wire import HEADERS, PATIENT, Server, exchange_with
from support_wire_server import SLOW_EVENTS

from bltybench.runs.attempt import Outcome, Stamp
from bltybench.wire import Exchange, ExchangeResult, Fault, Reader
from bltybench.wire.scheduling import batched_reads
from bltybench.wire.stamps import enable

linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs kernel timestamps (Linux)"
)


def test_kernel_timestamps_are_of_the_arrival_and_not_of_a_late_read(server: Server, reader: Reader) -> None:
    with socket.socket() as probe:
        if not enable(probe):
            pytest.skip("no kernel timestamps on this system")
    connection = server.connection(reader)
    for _ in range(4):
        exchange = Exchange(stream=True)
        sent = gevent.spawn(connection.send, "POST", "/timed-event", HEADERS, b"{}", exchange)
        with gevent.Timeout(20):
            while exchange.sent_ns is None:
                gevent.sleep(0)
        assert connection._io is not None
        # The event loop stalls until the response has arrived, and for 5 ms more. The test waits for
        # the bytes instead of the clock, so it does not depend on when the server gets to run.
        readable, _, _ = select.select([connection._io.socket], [], [], 20)
        assert readable
        time.sleep(0.005)
        read_after_ns = time.monotonic_ns()
        sent.join(20)
        result = reader.read(exchange)
        assert (result.outcome, exchange.stamp) == (Outcome.OK, Stamp.KERNEL)
        assert result.first_token_ns is not None
        assert exchange.sent_ns < int(result.text) <= result.first_token_ns + 2_000
        assert result.first_token_ns < read_after_ns - 1_000_000
        assert (exchange.observer_lag_us or 0) >= 1_000
    connection.close()


@linux_only
def test_a_slow_stream_is_read_in_batches_with_timestamps_as_accurate(
    server: Server, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched_reads, "_SAMPLE_SIZE", 4)
    monkeypatch.setattr(
        batched_reads, "_MIN_READS_PER_S", 1.0
    )  # one stream of 60 events per second is enough
    observed: list[tuple[int, bool]] = []

    def watch() -> None:
        while True:
            observed.append((len(reader.batched_reads), reader.batched_reads.batching))
            gevent.sleep(0.001)

    watcher = gevent.spawn(watch)
    exchange, result = exchange_with(server, "paced", reader, timeouts=PATIENT)
    watcher.kill()
    assert (result.outcome, exchange.stamp) == (Outcome.OK, Stamp.KERNEL)
    assert (1, True) in observed
    assert (len(reader.batched_reads), reader.batched_reads.batching) == (0, False)
    written, arrived = _written_ns(result), _arrived_ns(result)
    assert len(arrived) == len(written) == 30
    late_ns = sorted(at - wrote for at, wrote in zip(arrived, written, strict=True))
    # If they were timestamped when they were read, half of them would be later than a batch is long.
    assert late_ns[len(late_ns) // 2] < batched_reads.BATCH_PERIOD_S * 1e9
    # Gaps are truncated to microseconds; otherwise no timestamp precedes the writing of its event.
    assert late_ns[0] >= -2_000


@linux_only
@pytest.mark.parametrize(
    ("path", "at_least", "fewer_than"),
    [
        ("paced", 0, 1),
        ("paced-end-at-once", 0, 1),
        ("paced-pair-first", batched_reads.MIN_SLOW_READS_AGAIN, batched_reads.MIN_SLOW_READS),
    ],
)
def test_slow_connection_is_detected_sooner_on_later_streams(
    server: Server, reader: Reader, path: str, at_least: int, fewer_than: int
) -> None:
    connection = server.connection(reader)
    reads_before: list[int] = []
    for _ in range(5):
        exchange = Exchange(stream=True)
        sent = gevent.spawn(connection.send, "POST", f"/{path}", HEADERS, b"{}", exchange)
        with gevent.Timeout(20):
            gevent.sleep(0)
            while not len(reader.batched_reads):
                gevent.sleep(0.001)
            reads_before.append(len(exchange.arrivals))
            sent.join()
        assert reader.read(exchange).outcome is Outcome.OK
    connection.close()
    # On a busy machine, events arrive unevenly and detection takes longer.
    assert reads_before[0] >= batched_reads.MIN_SLOW_READS
    assert at_least <= min(reads_before[1:]) < fewer_than
    assert len(reader.batched_reads) == 0


@linux_only
def test_the_end_of_an_idle_batched_connection_is_noticed(server: Server, reader: Reader) -> None:
    connection = server.connection(reader)
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


@linux_only
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("paced-cut", (Outcome.BROKEN_STREAM, Fault.CLOSED_EARLY)),
        ("paced-reset", (Outcome.BROKEN_STREAM, Fault.RESET)),
        ("paced-stalls", (Outcome.TIMEOUT, Fault.IDLE_TIMEOUT)),
        ("paced-junk", (Outcome.BROKEN_STREAM, Fault.BAD_HTTP)),
        ("paced-bytes", (Outcome.OK, None)),
        ("paced-pairs", (Outcome.OK, None)),
    ],
)
def test_a_slow_stream_keeps_every_event_however_it_ends(
    server: Server, reader: Reader, path: str, expected: tuple[Outcome, Fault | None]
) -> None:
    exchange, result = exchange_with(server, path, reader)
    assert (result.outcome, result.error_type) == expected
    assert len(_arrived_ns(result)) == len(_written_ns(result)) == SLOW_EVENTS
    assert exchange.stamp is Stamp.KERNEL
    # Two events are written together and share a read; on a busy machine others can, too.
    assert (result.coalesced_events or 0) >= (path == "paced-pairs")
    assert len(reader.batched_reads) == 0


def test_a_cancelled_slow_stream_keeps_the_received_events(server: Server, reader: Reader) -> None:
    connection = server.connection(reader)
    exchange = Exchange(stream=True)
    sent = gevent.spawn(connection.send, "POST", "/paced-stalls", HEADERS, b"{}", exchange)
    with gevent.Timeout(20):
        while len(exchange.pieces) < SLOW_EVENTS:
            gevent.sleep(0.01)
    sent.kill()
    result = reader.read(exchange)
    assert (result.outcome, result.events) == (Outcome.CANCELLED, SLOW_EVENTS)


def _arrived_ns(result: ExchangeResult) -> list[int]:
    assert result.first_token_ns is not None
    return list(accumulate((gap_us * 1000 for gap_us in result.gaps_us or []), initial=result.first_token_ns))


def _written_ns(result: ExchangeResult) -> list[int]:
    """Return the times that the server wrote into its events."""
    width = len(str(time.monotonic_ns()))
    return [int(result.text[at : at + width]) for at in range(0, len(result.text), width)]
