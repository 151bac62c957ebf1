"""The least that a client in Python can do: an epoll loop that discards what it reads.

It measures nothing of a response. Its streams per second are the server's capacity.
"""

import json
import random
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
    waiting = []
    for _ in range(work.streams):
        sock = socket.create_connection((parts.hostname or "", parts.port or 80))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[sock.fileno()] = sock
        epoll.register(sock.fileno(), select.EPOLLIN)
        waiting.append((random.random() * work.spread_s, sock))
    waiting.sort(key=lambda pair: pair[0])
    meter = Meter(work)
    began_s = time.monotonic()
    begin_s = began_s + work.wait_s()
    end_s = begin_s + work.seconds
    measuring = False
    while (now_s := time.monotonic()) < end_s:
        if not measuring and now_s >= begin_s:
            meter.begin()
            measuring = True
        while waiting and now_s - began_s >= waiting[0][0]:
            waiting.pop(0)[1].send(request)
        for fileno, _ in epoll.poll(0.001 if waiting else 0.1):
            sock = sockets[fileno]
            data = sock.recv(65536)
            if data.endswith(_END):
                meter.add(0, 0, [], done=True)
                sock.send(request)
    meter.end()
