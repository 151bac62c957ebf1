"""The server of the benchmarks: writes precomputed chat streams and keeps the time of every write.

It does no more than it must, so that it is not what is measured: a bare epoll loop, answers made once,
requests looked at only for where they end. ``/{tokens}x{rate}/v1/chat/completions`` answers with a stream of
``tokens`` content events: each event by itself, ``rate`` a second, or with a rate of 0 the whole answer at
once. A stream has four more events: the role, the end, the usage and ``[DONE]``. ``/{tokens}x{rate}x{burst}``
writes ``burst`` content events at a time.

``GET /record`` returns what was done since it was last asked for: for each paced stream when its request had
arrived and when each event was written (``time.monotonic_ns``), and what the server itself spent.
"""

from __future__ import annotations

import argparse
import heapq
import json
import select
import socket
import struct
import sys
import time
from array import array
from functools import lru_cache
from typing import Any

EVENT_BYTES = 284
"""Of a content event, as DeepSeek's and OpenAI's are within a few bytes."""

SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@2q")
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-cache\r\nX-RateLimit-Limit-Requests: 1000000\r\n"
    b"X-RateLimit-Remaining-Requests: 999999\r\nX-Request-Id: %d\r\n\r\n"
)
_WRITES_BETWEEN_POLLS = 16


class Events:
    """One answer of ``tokens`` content events, ready to be written: ``burst`` of them at a time."""

    def __init__(self, tokens: int, burst: int) -> None:
        bare = len(_event({"content": ""}))
        word = " " + "x" * (EVENT_BYTES - bare - 1)
        usage = {"prompt_tokens": 64, "completion_tokens": tokens, "total_tokens": 64 + tokens}
        self.chunks = [
            _chunk(_event({"role": "assistant", "content": ""})),
            *([_chunk(_event({"content": word})) * burst] * (tokens // burst)),
            _chunk(_event({}, finish="stop")),
            _chunk(_event(None, usage=usage)),
            _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
        ]
        self.whole = b"".join(self.chunks)


def _event(delta: dict[str, str] | None, finish: str | None = None, usage: Any = None) -> bytes:
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    )
    chunk = {
        "id": "chatcmpl-6f1c9c9be4b04d6c8e2a",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "deepseek-chat",
        "system_fingerprint": "fp_3b2a1c",
        "choices": choices,
        **({"usage": usage} if usage else {}),
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@lru_cache
def events_of(tokens: int, burst: int) -> Events:
    """Return the events of an answer of that length."""
    return Events(tokens, burst)


class Peer:
    """One connection, and the stream that is written to it."""

    __slots__ = (
        "arrived_ns",
        "due_ns",
        "events",
        "interval_ns",
        "next",
        "number",
        "out",
        "rest",
        "sock",
        "times",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.out = b""
        self.events: Events | None = None
        self.number = self.next = self.due_ns = self.interval_ns = self.arrived_ns = 0
        self.times = array("q")


class Server:
    """Serves on one port until its process ends."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._peers: dict[int, Peer] = {}
        self._due: list[tuple[int, int, Peer]] = []
        self._answers = 0
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._clear()

    def _clear(self) -> None:
        self._streams: dict[int, tuple[int, list[int]]] = {}
        self._late_ns = array("q")
        self._first_ns = self._last_ns = 0
        self._since = (time.monotonic(), time.process_time(), self._answers)

    def run(self, lifeline: int) -> None:
        """Serve until the file ``lifeline`` has something to say: it does when who started this is gone."""
        listener, epoll = self._listener.fileno(), self._epoll
        epoll.register(lifeline, select.EPOLLIN | select.EPOLLHUP)
        while True:
            wait_s = self._write_due()
            found = epoll.poll(0)
            if not found and wait_s > 0:
                # epoll waits in whole milliseconds; select on the epoll itself in microseconds.
                select.select([epoll], [], [], min(wait_s, 1.0))
                found = epoll.poll(0)
            for fileno, mask in found:
                if fileno == listener:
                    self._accept()
                elif fileno == lifeline:
                    return
                elif (peer := self._peers.get(fileno)) is not None:
                    if mask & select.EPOLLOUT:
                        self._send(peer, b"")
                    if mask & ~select.EPOLLOUT:
                        self._read(peer)

    def _write_due(self) -> float:
        """Write some of what is due; return the seconds until the next is."""
        due = self._due
        for _ in range(_WRITES_BETWEEN_POLLS):
            if not due:
                return 1.0
            now_ns = time.monotonic_ns()
            if due[0][0] > now_ns:
                return (due[0][0] - now_ns) / 1e9
            at_ns, number, peer = due[0]
            events = peer.events
            if events is None or peer.number != number:  # gone in the middle of its stream
                heapq.heappop(due)
                continue
            self._late_ns.append(now_ns - at_ns)
            last = peer.next + 1 == len(events.chunks)
            if last:
                heapq.heappop(due)
                self._streams[number] = (peer.arrived_ns, peer.times.tolist())
                peer.events = None
            else:
                peer.due_ns += peer.interval_ns
                heapq.heapreplace(due, (peer.due_ns, number, peer))
            peer.next += 1
            if 1 < peer.next <= len(events.chunks) - 3:
                peer.times.append(time.monotonic_ns())
            self._send(peer, events.chunks[peer.next - 1])
        return 0.0

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._peers[sock.fileno()] = Peer(sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, peer: Peer) -> None:
        try:
            data, ancillary, _, _ = peer.sock.recvmsg(65536, 64)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        peer.rest += data
        end = peer.rest.find(b"\r\n\r\n")
        if end < 0:
            return
        head = peer.rest[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(peer.rest) < end + 4 + length:
            return
        peer.rest = b""
        peer.arrived_ns = time.monotonic_ns()
        for _, kind, stamp in ancillary:
            if kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                peer.arrived_ns = seconds * 1_000_000_000 + nanoseconds - self._offset_ns
        self._answer(peer, head.split(b" ", 2)[1].decode())

    def _answer(self, peer: Peer, path: str) -> None:
        what = path.split("/", 2)[1]
        if what == "record":
            self._send(peer, self._record())
            return
        tokens, rate, *burst = what.split("x")
        events = events_of(int(tokens), int(burst[0]) if burst else 1)
        self._answers += 1
        self._last_ns = time.monotonic_ns()
        self._first_ns = self._first_ns or self._last_ns
        peer.number = self._answers
        head = _HEAD % peer.number
        if rate == "0":
            self._send(peer, head + events.whole)
            return
        now_ns = time.monotonic_ns()
        peer.events, peer.next, peer.times = events, 0, array("q")
        peer.interval_ns = round(1e9 / float(rate))
        peer.due_ns = now_ns + peer.interval_ns
        self._send(peer, head)
        heapq.heappush(self._due, (peer.due_ns, peer.number, peer))

    def _record(self) -> bytes:
        """Return and forget. Its clock's offset is measured again: nothing is under way now."""
        wall_s, cpu_s, answers = self._since
        late = sorted(self._late_ns)
        body = json.dumps(
            {
                "streams": self._streams,
                "answers": self._answers - answers,
                "asked_s": (self._last_ns - self._first_ns) / 1e9,
                "cpu_share": (time.process_time() - cpu_s) / (time.monotonic() - wall_s),
                "late_p99_us": late[int(len(late) * 0.99)] / 1000 if late else None,
            }
        ).encode()
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._clear()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            len(body),
            body,
        )

    def _send(self, peer: Peer, data: bytes) -> None:
        """Send what the socket takes; the rest when it takes more."""
        waiting = bool(peer.out)
        if waiting:
            data = peer.out + data
        try:
            sent = peer.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(peer)
            return
        peer.out = data[sent:]
        if bool(peer.out) != waiting:
            mask = select.EPOLLIN | select.EPOLLOUT if peer.out else select.EPOLLIN
            self._epoll.modify(peer.sock.fileno(), mask)

    def _drop(self, peer: Peer) -> None:
        self._peers.pop(peer.sock.fileno(), None)
        peer.events = None
        peer.sock.close()


def main() -> None:
    """Serve until the standard input ends: a server never outlives the benchmark that started it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    server = Server(parser.parse_args().port)
    print(server.port, flush=True)
    server.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
