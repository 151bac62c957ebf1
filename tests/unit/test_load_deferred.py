from __future__ import annotations

import socket

import gevent
import pytest

from bltybench.load import deferred as deferred_module
from bltybench.load.deferred import BATCH_SIZE, MAX_QUEUED, DeferredRecorder
from bltybench.runs.attempt import Outcome
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.result import ExchangeResult
from bltybench.wire.scheduling.reader import Reader


def ended_exchange() -> Exchange:
    exchange = Exchange(awaited=False)
    exchange.end_ns = 1
    exchange.failure = Failure(Fault.CONNECT, "refused")
    return exchange


def test_settle_records_queued_exchanges_in_order() -> None:
    deferred, recorded = DeferredRecorder(Reader()), list[ExchangeResult]()
    exchanges = [ended_exchange() for _ in range(3)]
    for exchange in exchanges:
        deferred.add(exchange, recorded.append)
    gevent.sleep(0.01)
    assert (len(deferred), recorded) == (3, [])
    deferred.settle()
    assert (len(deferred), recorded) == (0, [exchange.result for exchange in exchanges])
    assert {reading.outcome for reading in recorded} == {Outcome.TRANSPORT_ERROR}
    deferred.settle()
    assert len(recorded) == 3


def test_settle_ends_though_exchanges_are_queued_as_fast_as_they_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At full load, the audit and the flush of a second waited for the end of the load.
    monkeypatch.setattr(deferred_module, "slice_ns", lambda _queued: 0)
    deferred, recorded = DeferredRecorder(Reader()), list[ExchangeResult]()

    def record_and_queue(result: ExchangeResult) -> None:
        recorded.append(result)
        deferred.add(ended_exchange(), record_and_queue)

    for _ in range(3):
        deferred.add(ended_exchange(), record_and_queue)
    with gevent.Timeout(20):
        deferred.settle()
    assert (len(recorded), len(deferred)) == (3, 3)


@pytest.mark.parametrize("count", [BATCH_SIZE, MAX_QUEUED])
def test_a_full_batch_is_recorded_without_settle(count: int) -> None:
    deferred, recorded = DeferredRecorder(Reader()), list[ExchangeResult]()
    for _ in range(count):
        assert not deferred.full
        deferred.add(ended_exchange(), recorded.append)
    assert (deferred.full, len(deferred)) == (count == MAX_QUEUED, count)
    with gevent.Timeout(20):
        while len(deferred):
            gevent.sleep(0.001)
    assert (deferred.full, len(recorded)) == (False, count)


def test_sockets_are_read_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred_module, "slice_ns", lambda _queued: 0)
    deferred, order = DeferredRecorder(Reader()), list[str]()
    for _ in range(3):
        deferred.add(ended_exchange(), lambda _: order.append("record"))
    near, far = socket.socketpair()
    watch = gevent.get_hub().loop.io(near.fileno(), 1)

    def read() -> None:
        watch.stop()
        order.append("read")

    watch.start(read)
    far.send(b"x")
    deferred.settle()
    watch.close()
    near.close()
    far.close()
    assert order == ["record", "read", "record", "record"]
