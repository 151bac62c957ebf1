from __future__ import annotations

import socket

import gevent
import pytest

from bltybench.load import deferred as later_module
from bltybench.load.deferred import MANY, MOST, DeferredRecorder
from bltybench.runs.attempt import Outcome
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.result import ExchangeResult
from bltybench.wire.scheduling.reader import Reader


def refused() -> Exchange:
    exchange = Exchange(awaited=False)
    exchange.end_ns = 1
    exchange.failure = Failure(Fault.CONNECT, "refused")
    return exchange


def test_what_waits_is_recorded_in_order_when_it_is_asked_for() -> None:
    later, seen = DeferredRecorder(Reader()), list[ExchangeResult]()
    waiting = [refused() for _ in range(3)]
    for exchange in waiting:
        later.add(exchange, seen.append)
    gevent.sleep(0.01)
    assert (len(later), seen) == (3, [])
    later.settle()
    assert (len(later), seen) == (0, [exchange.result for exchange in waiting])
    assert {reading.outcome for reading in seen} == {Outcome.TRANSPORT_ERROR}
    later.settle()
    assert len(seen) == 3


@pytest.mark.parametrize("many", [MANY, MOST])
def test_many_are_recorded_without_being_asked_for(many: int) -> None:
    later, seen = DeferredRecorder(Reader()), list[ExchangeResult]()
    for _ in range(many):
        assert not later.full
        later.add(refused(), seen.append)
    assert (later.full, len(later)) == (many == MOST, many)
    with gevent.Timeout(20):
        while len(later):
            gevent.sleep(0.001)
    assert (later.full, len(seen)) == (False, many)


def test_sockets_are_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later_module, "slice_ns", lambda _waiting: 0)
    later, order = DeferredRecorder(Reader()), list[str]()
    for _ in range(3):
        later.add(refused(), lambda _: order.append("record"))
    near, far = socket.socketpair()
    watch = gevent.get_hub().loop.io(near.fileno(), 1)

    def read() -> None:
        watch.stop()
        order.append("read")

    watch.start(read)
    far.send(b"x")
    later.settle()
    watch.close()
    near.close()
    far.close()
    assert order == ["record", "read", "record", "record"]
