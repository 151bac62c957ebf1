"""The least that a client in Python can do: an epoll loop that discards what it reads.

It measures nothing of a response. Its streams per second are the server's capacity.
"""

import json
import select
import socket
import time
from urllib.parse import urlsplit

from benchmarks.work import Meter, Work

_END = b"0\r\n\r\n"


def run(work: Work) -> None:
    """Keep the streams open until the time is over."""
    parts = urlsplit(work.base_url)
    body = json.dumps(work.body).encode()
    request = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    epoll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(work.streams):
        sock = socket.create_connection((parts.hostname or "", parts.port or 80))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[sock.fileno()] = sock
        epoll.register(sock.fileno(), select.EPOLLIN)
    meter = Meter(work)
    start_ns = work.wait_for_start()
    began_s = time.monotonic()
    pending = sorted(
        ((work.user_delay_s(start_ns), sock) for sock in sockets.values()), key=lambda pair: pair[0]
    )
    begin_s = began_s + work.measure_in_s(start_ns)
    end_s = begin_s + work.seconds
    measuring = False
    while (now_s := time.monotonic()) < end_s:
        if not measuring and now_s >= begin_s:
            meter.begin()
            measuring = True
        while pending and now_s - began_s >= pending[0][0]:
            pending.pop(0)[1].send(request)
        for fileno, _ in epoll.poll(0.001 if pending else 0.1):
            sock = sockets[fileno]
            data = sock.recv(65536)
            if data.endswith(_END):
                meter.add(0, 0, [], done=True)
                sock.send(request)
    meter.end()
