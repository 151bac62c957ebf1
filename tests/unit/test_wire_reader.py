from __future__ import annotations

import gevent
import pytest
from support_wire import ended_exchange

from bltybench.wire.exchange import Exchange
from bltybench.wire.scheduling import reader as reader_module
from bltybench.wire.scheduling.reader import MAX_INLINE_BYTES, Reader

EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"tok"},"finish_reason":null}]}\n\n'


def streamed(events: int) -> Exchange:
    body = EVENT * events + b"data: [DONE]\n\n"
    return ended_exchange(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body, stream=True)


def test_large_responses_wait_in_the_queue_and_small_ones_do_not() -> None:
    reader = Reader()
    sizes = [1000, 2000, 1500, 500]
    readers = [gevent.spawn(reader.read, streamed(size)) for size in sizes]
    gevent.sleep(0)
    assert reader.backlog > 0
    small = reader.read(streamed(3))
    assert small.events == 3
    gevent.joinall(readers, raise_error=True)
    assert [greenlet.value.events for greenlet in readers] == sizes
    assert reader.backlog == 0


def test_the_queue_continues_after_a_waiting_greenlet_is_killed() -> None:
    reader = Reader()
    killed = gevent.spawn(reader.read, streamed(1000))
    kept = gevent.spawn(reader.read, streamed(1000))
    gevent.sleep(0)
    killed.kill()
    assert kept.get(timeout=10).events == 1000


def test_the_queue_is_served_while_the_loop_never_idles() -> None:
    reader = Reader()

    def never_idle() -> None:
        while True:
            gevent.sleep(0)

    busy = [gevent.spawn(never_idle) for _ in range(3)]
    waiting = gevent.spawn(reader.read, streamed(MAX_INLINE_BYTES))
    assert waiting.get(timeout=10).events == MAX_INLINE_BYTES
    gevent.killall(busy)


def test_open_streams_are_folded_immediately_if_the_queue_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "MAX_QUEUED_FOLDS", 2)
    reader = Reader()
    kept = [streamed(200) for _ in range(4)]
    folded: list[Exchange] = []
    for exchange in kept:
        reader.fold(exchange, lambda exchange, _: folded.append(exchange))
    assert folded == kept[2:]
    assert reader.backlog == 2
    while reader.backlog:
        gevent.sleep(0)
    assert folded == [*kept[2:], *kept[:2]]
    assert not any(exchange.kept_bytes for exchange in kept)
    assert {reader.read_now(exchange).events for exchange in kept} == {200}


def test_reading_an_exchange_in_progress_raises() -> None:
    with pytest.raises(RuntimeError, match="not ended"):
        Reader().read(Exchange())
