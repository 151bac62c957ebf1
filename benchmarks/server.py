"""The benchmark server, which writes precomputed chat streams and records the time of every write.

It does as little as possible, so that it is not the bottleneck: a bare epoll loop, precomputed responses, and
requests that are only searched for their end. ``/{format}-{tokens}x{rate}x{burst}/v1/chat/completions``
returns a stream of ``tokens`` content events in one of the FORMATS, written ``burst`` at a time at ``rate``
per second, or all immediately if the rate is 0.

``GET /record`` returns the record since the previous call: for each paced stream the arrival of its request
and the time of each write (``time.monotonic_ns``), and the server's own CPU use.
"""

import argparse
import heapq
import json
import select
import socket
import struct
import sys
import time
from array import array

from benchmarks.stream_formats import StreamBody, body_of

SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@2q")
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-cache\r\nX-RateLimit-Limit-Requests: 1000000\r\n"
    b"X-RateLimit-Remaining-Requests: 999999\r\nX-Request-Id: %d\r\n\r\n"
)
_WRITES_BETWEEN_POLLS = 16


class ServedConnection:
    """One connection, and the stream that is being written to it."""

    __slots__ = (
        "arrived_ns",
        "body",
        "due_ns",
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
        self.body: StreamBody | None = None
        self.number = self.next = self.due_ns = self.interval_ns = self.arrived_ns = 0
        self.times = array("q")


class StreamServer:
    """Serves one port until the process ends."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, ServedConnection] = {}
        self._due: list[tuple[int, int, ServedConnection]] = []
        self._response_count = 0
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._clear()

    def _clear(self) -> None:
        self._streams: dict[int, tuple[int, list[int]]] = {}
        self._late_ns = array("q")
        self._first_ns = self._last_ns = 0
        self._since = (time.monotonic(), time.process_time(), self._response_count)

    def run(self, lifeline: int) -> None:
        """Serve until the file ``lifeline`` becomes readable, which it does when the parent process ends."""
        listener, epoll = self._listener.fileno(), self._epoll
        epoll.register(lifeline, select.EPOLLIN | select.EPOLLHUP)
        while True:
            wait_s = self._write_due()
            ready = epoll.poll(0)
            if not ready and wait_s > 0:
                # epoll waits in whole milliseconds, select on the epoll file in microseconds.
                select.select([epoll], [], [], min(wait_s, 1.0))
                ready = epoll.poll(0)
            for fileno, mask in ready:
                if fileno == listener:
                    self._accept()
                elif fileno == lifeline:
                    return
                elif (connection := self._connections.get(fileno)) is not None:
                    if mask & select.EPOLLOUT:
                        self._send(connection, b"")
                    if mask & ~select.EPOLLOUT:
                        self._read(connection)

    def _write_due(self) -> float:
        """Write some of the events that are due. Return the seconds until the next one."""
        due = self._due
        for _ in range(_WRITES_BETWEEN_POLLS):
            if not due:
                return 1.0
            now_ns = time.monotonic_ns()
            if due[0][0] > now_ns:
                return (due[0][0] - now_ns) / 1e9
            at_ns, number, connection = due[0]
            body = connection.body
            if body is None or connection.number != number:  # the client has closed it
                heapq.heappop(due)
                continue
            self._late_ns.append(now_ns - at_ns)
            last = connection.next + 1 == len(body.chunks)
            if last:
                heapq.heappop(due)
                self._streams[number] = (connection.arrived_ns, connection.times.tolist())
                connection.body = None
            else:
                connection.due_ns += connection.interval_ns
                heapq.heapreplace(due, (connection.due_ns, number, connection))
            connection.next += 1
            if 1 < connection.next <= len(body.chunks) - 3:
                connection.times.append(time.monotonic_ns())
            self._send(connection, body.chunks[connection.next - 1])
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
            self._connections[sock.fileno()] = ServedConnection(sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, connection: ServedConnection) -> None:
        try:
            data, ancillary, _, _ = connection.sock.recvmsg(65536, 64)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        connection.rest += data
        end = connection.rest.find(b"\r\n\r\n")
        if end < 0:
            return
        head = connection.rest[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(connection.rest) < end + 4 + length:
            return
        connection.rest = b""
        connection.arrived_ns = time.monotonic_ns()
        for _, kind, stamp in ancillary:
            if kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                connection.arrived_ns = seconds * 1_000_000_000 + nanoseconds - self._offset_ns
        self._answer(connection, head.split(b" ", 2)[1].decode())

    def _answer(self, connection: ServedConnection, path: str) -> None:
        what = path.split("/", 2)[1]
        if what == "record":
            self._send(connection, self._record())
            return
        name, _, numbers = what.partition("-")
        tokens, rate, burst = numbers.split("x")
        body = body_of(name, int(tokens), int(burst))
        self._response_count += 1
        self._last_ns = time.monotonic_ns()
        self._first_ns = self._first_ns or self._last_ns
        connection.number = self._response_count
        head = _HEAD % connection.number
        if rate == "0":
            self._send(connection, head + body.whole)
            return
        now_ns = time.monotonic_ns()
        connection.body, connection.next, connection.times = body, 0, array("q")
        connection.interval_ns = round(1e9 / float(rate))
        connection.due_ns = now_ns + connection.interval_ns
        self._send(connection, head)
        heapq.heappush(self._due, (connection.due_ns, connection.number, connection))

    def _record(self) -> bytes:
        """Return the record as a response and clear it. Also measure the clocks' offset again."""
        wall_s, cpu_s, answers = self._since
        late = sorted(self._late_ns)
        record = json.dumps(
            {
                "streams": self._streams,
                "answers": self._response_count - answers,
                "asked_s": (self._last_ns - self._first_ns) / 1e9,
                "cpu_share": (time.process_time() - cpu_s) / (time.monotonic() - wall_s),
                "late_p99_us": late[int(len(late) * 0.99)] / 1000 if late else None,
            }
        ).encode()
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._clear()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            len(record),
            record,
        )

    def _send(self, connection: ServedConnection, data: bytes) -> None:
        """Send ``data``, the rest of it as soon as the socket takes more."""
        waiting = bool(connection.out)
        if waiting:
            data = connection.out + data
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        connection.out = data[sent:]
        if bool(connection.out) != waiting:
            mask = select.EPOLLIN | select.EPOLLOUT if connection.out else select.EPOLLIN
            self._epoll.modify(connection.sock.fileno(), mask)

    def _drop(self, connection: ServedConnection) -> None:
        self._connections.pop(connection.sock.fileno(), None)
        connection.body = None
        connection.sock.close()


def main() -> None:
    """Serve until the standard input ends, so that the server never outlives its benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    server = StreamServer(parser.parse_args().port)
    print(server.port, flush=True)
    server.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
