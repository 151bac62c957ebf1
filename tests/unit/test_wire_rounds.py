from __future__ import annotations

import socket
import sys

import gevent
import pytest
from gevent.event import Event

from bltybench.wire.scheduling.batched_reads import BatchedReads

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")


class Peer:
    """A socket pair: what comes in at one end is read as its bytes are counted."""

    def __init__(self, rounds: BatchedReads) -> None:
        self.rounds = rounds
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.received = 0
        self.came = Event()
        rounds.add(self.near.fileno(), self.read)

    def read(self) -> None:
        self.received += len(self.near.recv(1000))
        self.came.set()

    def close(self) -> None:
        self.rounds.remove(self.near.fileno())
        self.near.close()
        self.far.close()


def test_few_are_read_as_they_come_and_many_in_rounds() -> None:
    rounds = BatchedReads(gevent.get_hub().loop)
    peers = [Peer(rounds) for _ in range(50)]
    peers[0].far.send(b"x")
    assert peers[0].came.wait(5)

    def now() -> bool:
        return rounds.batching

    seen = [now()]
    sent = 1
    with gevent.Timeout(20):
        while not now():  # on a slow machine fewer come in a second
            for peer in peers:
                peer.far.send(b"x" * 3)
            sent += 3 * len(peers)
            gevent.sleep(0)
        seen.append(now())
        while sum(peer.received for peer in peers) < sent:
            gevent.sleep(0.001)
        while now():
            gevent.sleep(0.01)
    peers[0].came.clear()
    peers[0].far.send(b"x")
    assert peers[0].came.wait(5)
    for peer in peers:
        peer.close()
    assert seen == [False, True]
    assert not len(rounds)


def test_one_read_may_end_another() -> None:
    rounds = BatchedReads(gevent.get_hub().loop)
    first, second = Peer(rounds), Peer(rounds)
    survivor: list[Peer] = []

    def end(other: Peer, me: Peer) -> None:
        other.close()
        Peer.read(me)
        survivor.append(me)

    first.read = lambda: end(second, first)  # type: ignore[method-assign]
    second.read = lambda: end(first, second)  # type: ignore[method-assign]
    for peer in (first, second):
        rounds.remove(peer.near.fileno())
        rounds.add(peer.near.fileno(), peer.read)
        peer.far.send(b"x")
    assert first.came.wait(5) or second.came.wait(5)
    (left,) = survivor
    assert len(rounds) == 1
    left.close()
