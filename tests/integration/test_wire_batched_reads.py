from __future__ import annotations

import socket
import sys

import gevent
import pytest
from gevent.event import Event

from bltybench.wire.scheduling.batched_reads import BatchedReads
from bltybench.wire.scheduling.early_reads import EarlyReads

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs epoll (Linux)")


class Peer:
    """A socket pair. The bytes sent to the near end are read and counted."""

    def __init__(self, batched: BatchedReads) -> None:
        self.batched = batched
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.received = 0
        self.arrived = Event()
        batched.add(self.near.fileno(), self.read)

    def read(self) -> None:
        self.received += len(self.near.recv(1000))
        self.arrived.set()

    def close(self) -> None:
        self.batched.remove(self.near.fileno())
        self.near.close()
        self.far.close()


def test_what_arrived_is_read_without_the_event_loop() -> None:
    loop = gevent.get_hub().loop
    early, batched = EarlyReads(loop), BatchedReads(loop)
    slow = Peer(batched)
    near, far = socket.socketpair()
    received: list[bytes] = []
    watcher = loop.io(near.fileno(), 1)
    watcher.start(lambda: received.append(near.recv(1000)))
    early.add(near.fileno(), lambda: received.append(near.recv(1000)))
    gevent.sleep(0.001)  # the loop begins to watch
    early.read()
    batched.read_ready()
    assert not received
    far.send(b"first")
    slow.far.send(b"slow")
    early.read()
    batched.read_ready()
    assert (received, slow.received) == ([b"first"], 4)
    early.remove(near.fileno())
    far.send(b"second")
    early.read()
    assert received == [b"first"]
    gevent.sleep(0.001)
    assert received == [b"first", b"second"]
    watcher.stop()
    watcher.close()
    for sock in (near, far):
        sock.close()
    slow.close()
    batched.read_ready()


def test_reads_are_batched_only_while_there_are_many() -> None:
    batched = BatchedReads(gevent.get_hub().loop)
    peers = [Peer(batched) for _ in range(50)]
    peers[0].far.send(b"x")
    assert peers[0].arrived.wait(5)

    def batching() -> bool:
        return batched.batching

    observed = [batching()]
    sent = 1
    with gevent.Timeout(20):
        while not batching():  # a slow machine reads fewer per second
            for peer in peers:
                peer.far.send(b"x" * 3)
            sent += 3 * len(peers)
            gevent.sleep(0)
        observed.append(batching())
        while sum(peer.received for peer in peers) < sent:
            gevent.sleep(0.001)
        while batching():
            gevent.sleep(0.01)
    peers[0].arrived.clear()
    peers[0].far.send(b"x")
    assert peers[0].arrived.wait(5)
    for peer in peers:
        peer.close()
    assert observed == [False, True]
    assert not len(batched)


def test_a_read_can_remove_another() -> None:
    batched = BatchedReads(gevent.get_hub().loop)
    first, second = Peer(batched), Peer(batched)
    survivors: list[Peer] = []

    def end(other: Peer, me: Peer) -> None:
        other.close()
        Peer.read(me)
        survivors.append(me)

    first.read = lambda: end(second, first)  # type: ignore[method-assign]
    second.read = lambda: end(first, second)  # type: ignore[method-assign]
    for peer in (first, second):
        batched.remove(peer.near.fileno())
        batched.add(peer.near.fileno(), peer.read)
        peer.far.send(b"x")
    assert first.arrived.wait(5) or second.arrived.wait(5)
    (survivor,) = survivors
    assert len(batched) == 1
    survivor.close()
