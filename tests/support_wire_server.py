"""A server that misbehaves on request. Run as a program, it prints its port and serves until killed.

The path of a request names the behavior. It uses sockets and threads only, and no code of the package.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable

EVENTS = b"Content-Type: text/event-stream\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\n" + EVENTS + b"Transfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n" + EVENTS + b"Connection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"
ANSWER = {
    "id": "chatcmpl-1",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def plain(
    body: bytes, status: str = "200 OK", headers: bytes = b"Content-Type: application/json\r\n"
) -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status.encode(), headers, len(body), body)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close(sock.detach())  # immediately, though its makefile is still open


def endlessly(first: bytes, data: bytes, pause_s: float = 0.0) -> Callable[[socket.socket], None]:
    def behave(sock: socket.socket) -> None:
        sock.sendall(first)
        while True:
            sock.sendall(data)
            time.sleep(pause_s)

    return behave


def slowly(sock: socket.socket, data: bytes) -> None:
    for at in range(len(data)):
        sock.sendall(data[at : at + 1])
        time.sleep(0.0005)


SPLIT = (DONE[:9], DONE[9:])
SLOW_EVENTS = 15
END = chunk(DONE) + b"0\r\n\r\n"


def timed_event() -> bytes:
    """Return an event that holds the monotonic time at which it was written."""
    return chunk(event(str(time.monotonic_ns())))


def paced(
    events: int = SLOW_EVENTS,
    end: Callable[[socket.socket], None] = lambda sock: sock.sendall(END),
    *,
    twice: int | None = None,
) -> Callable[[socket.socket], None]:
    """Write timed events 15 ms apart, the one with the number ``twice`` two times, then end in some way."""

    def behave(sock: socket.socket) -> None:
        sock.sendall(CHUNKED)
        for number in range(events):
            time.sleep(0.015)
            sock.sendall(timed_event() * (2 if number == twice else 1))
        time.sleep(0.015)
        end(sock)

    return behave


def paced_end_at_once(sock: socket.socket) -> None:
    """Write timed events 15 ms apart, the last one together with the end."""
    sock.sendall(CHUNKED)
    for number in range(SLOW_EVENTS):
        time.sleep(0.015)
        sock.sendall(timed_event() + (END if number == SLOW_EVENTS - 1 else b""))


def send(
    *parts: bytes, pause_s: float = 0.01, end: Callable[[socket.socket], None] = lambda _sock: None
) -> Callable[[socket.socket], None]:
    def behave(sock: socket.socket) -> None:
        for part in parts:
            sock.sendall(part)
            time.sleep(pause_s)
        end(sock)

    return behave


def close(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    sock.close()


def then_close(*parts: bytes) -> Callable[[socket.socket], None]:
    return send(*parts, pause_s=0.02, end=close)


def then_reset(*parts: bytes) -> Callable[[socket.socket], None]:
    return send(*parts, pause_s=0.05, end=reset)


FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
GZIPPED = CHUNKED.replace(EVENTS, EVENTS + b"Content-Encoding: gzip\r\n")
ERROR = json.dumps(
    {"error": {"message": "Rate limit, key sk-abcdefghijkl", "type": "requests", "code": "rl"}}
).encode()
STREAM = chunk(event("a")) + chunk(event("b")) + END
BEHAVIORS: dict[str, Callable[[socket.socket], None]] = {
    "plain": send(plain(json.dumps(ANSWER).encode())),
    "big": send(plain(json.dumps({**ANSWER, "id": "x" * 200_000}).encode())),
    "stream": send(CHUNKED + STREAM),
    "split": lambda sock: slowly(sock, CHUNKED + STREAM),
    "trailers": send(CHUNKED + STREAM[:-2] + b"Server-Timing: x\r\n\r\n"),
    "until-close": then_close(UNTIL_CLOSE, event("a") + DONE),
    "cut-after-done": then_close(CHUNKED + chunk(event("a")) + chunk(DONE)),
    "interim": send(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", CHUNKED + STREAM
    ),
    "timed-event": lambda sock: sock.sendall(CHUNKED + timed_event() + END),
    "paced": paced(30),
    "paced-end-at-once": paced_end_at_once,
    "paced-pair-first": paced(twice=0),
    "paced-closes-later": paced(30),
    "paced-cut": paced(end=then_close()),
    "paced-reset": paced(end=reset),
    "paced-stalls": paced(end=endlessly(b"", b"", 1.0)),
    "paced-junk": paced(end=lambda sock: sock.sendall(b"no chunk at all\r\n")),
    "paced-bytes": paced(end=lambda sock: slowly(sock, END)),
    "paced-pairs": paced(SLOW_EVENTS - 1, twice=SLOW_EVENTS // 2),
    "closes-idle": then_close(plain(json.dumps(ANSWER).encode())),
    "closes-later": send(plain(json.dumps(ANSWER).encode())),
    "once": send(plain(json.dumps(ANSWER).encode())),
    "once-reset": send(plain(json.dumps(ANSWER).encode())),
    "once-late": send(plain(json.dumps(ANSWER).encode())),
    "surplus": send(plain(json.dumps(ANSWER).encode()) + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
    "endless-headers": endlessly(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
    "endless-header-line": endlessly(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 10_000),
    "endless-interim": endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "endless-body": endlessly(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b"[" * 65536),
    "endless-event": endlessly(UNTIL_CLOSE + b"data: ", b"x" * 65536),
    "endless-events": endlessly(UNTIL_CLOSE, b": x\n\n" * 20_000),
    "endless-stream": endlessly(UNTIL_CLOSE, event("a"), 0.01),
    "one-byte-now-and-then": endlessly(UNTIL_CLOSE, b":", 0.05),
    "silent": endlessly(b"", b"", 1.0),
    "stalls": endlessly(CHUNKED + chunk(event("a")), b"", 1.0),
    "close": then_close(),
    "reset": then_reset(),
    "broken-off": then_close(CHUNKED + chunk(event("a"))),
    "reset-midway": then_reset(CHUNKED + chunk(event("a"))),
    "open-after-done": endlessly(CHUNKED + chunk(event("a")) + chunk(DONE + event("late")), b"", 1.0),
    "open-after-split-done": endlessly(CHUNKED + chunk(event("a")) + b"".join(map(chunk, SPLIT)), b"", 1.0),
    "talks-after-done": endlessly(CHUNKED + chunk(event("a")) + chunk(DONE), chunk(event("late")), 0.02),
    "open-after-finish": endlessly(CHUNKED + chunk(event("a")) + chunk(FINISH), b"", 1.0),
    "pings-after-finish": endlessly(
        CHUNKED + chunk(event("a")) + chunk(FINISH) + chunk(USAGE), chunk(b": ping\n\n"), 0.1
    ),
    "gzip-open": endlessly(GZIPPED + chunk(gzip.compress(event("a") + DONE)), b"", 1.0),
    "finish-then-usage": send(CHUNKED + chunk(event("a")) + chunk(FINISH), chunk(USAGE) + END, pause_s=1.0),
    "ends-after-done": send(CHUNKED + chunk(event("a")) + chunk(DONE), b"0\r\n\r\n", pause_s=0.03),
    "stalls-within-headers": endlessly(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05),
    "stalls-within-json": endlessly(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"", 1.0),
    "stalls-after-headers": endlessly(CHUNKED, b"", 1.0),
    "no-done": send(CHUNKED + chunk(event("a")) + b"0\r\n\r\n"),
    "error-event": send(
        CHUNKED + chunk(event("a") + b'data: {"error":{"message":"boom","code":"e"}}\n\n') + b"0\r\n\r\n"
    ),
    "html": send(plain(b"<html><title>Login</title>", headers=b"Content-Type: text/html\r\n")),
    "gzip": send(plain(b"\x1f\x8b\x08", headers=EVENTS + b"Content-Encoding: gzip\r\n")),
    "redirect": send(
        plain(b"", "307 Temporary Redirect", b"Location: https://elsewhere.example/v1?key=x\r\n")
    ),
    "not-http": send(b"SSH-2.0-OpenSSH_9.0\r\n"),
    "upgrade": send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "429": send(plain(ERROR, "429 Too Many Requests", b"Retry-After: 7\r\nx-request-id: r-1\r\n")),
    "429-bad-header": send(plain(ERROR, "429 Too Many Requests", b"X-Trace: \x01\x02\r\nRetry-After: 7\r\n")),
    "no-content-type": send(CHUNKED.replace(EVENTS, b"") + STREAM),
    "429-money": send(plain(b'{"error":{"code":"insufficient_quota"}}', "429 Too Many Requests")),
    "503": send(plain(b"<h1>busy</h1>", "503 Service Unavailable", b"Retry-After: 7\r\n")),
    "503-limit": send(plain(b'{"message":"Too many requests"}', "503 Service Unavailable")),
    "403": send(plain(b'{"error":{"message":"no"}}', "403 Forbidden")),
    "500": send(plain(b"oops", "500 Internal Server Error")),
    "early": send(plain(b'{"error":"too large"}', "413 Payload Too Large", b"Connection: close\r\n")),
}


def give_up(sock: socket.socket, path: str) -> None:
    """End a connection instead of answering its second request."""
    if path == "once-late":
        time.sleep(1.2)
    if path == "once-reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def serve(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        file, served = sock.makefile("rb"), False
        while line := file.readline():
            path = line.split()[1].decode().rpartition("/")[2]
            length = 0
            while (header := file.readline().strip().lower()) != b"":
                if header.startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            if path != "early":
                file.read(length)
            if served and path.startswith("once"):
                give_up(sock, path)
                break
            BEHAVIORS[path](sock)
            served = True
            if path.endswith("closes-later"):
                time.sleep(0.05)
                break
        file.close()
        sock.close()
    except (OSError, ValueError):
        sock.close()


def main() -> None:
    context = None
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock, context), daemon=True).start()


if __name__ == "__main__":
    main()
