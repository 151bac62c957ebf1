"""A strict HTTP proxy. Run as a program, it prints its port and serves until killed.

It tunnels CONNECT and forwards requests in absolute form, both only with the credentials given as argument.
The host of a CONNECT can name a misbehavior. It uses sockets and threads only, and no code of the package.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
MISBEHAVIORS = {
    "forbidden.example": b"HTTP/1.1 403 Forbidden by rule s3cret-pass\r\n\r\n",
    "early.example": OPENED + b"x",
    "nonsense.example": b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
    "close.example": b"",
    "endless.example": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
}


@contextmanager
def running_proxy(credentials: str = "") -> Iterator[int]:
    """Run the proxy in its own process and yield its port."""
    command = [sys.executable, __file__, credentials]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # closing alone waits for the files of the socket
            sock.close()


def serve(client: socket.socket, credentials: str) -> None:
    file, upstream = client.makefile("rb"), None
    expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else None
    try:
        while line := file.readline():
            method, target, _ = line.decode().split()
            headers = [header.decode() for header in iter(file.readline, b"\r\n")]
            given = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in headers)}
            body = file.read(int(given.get("content-length", 0)))
            if given.get("proxy-authorization") != expected:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            if method == "CONNECT":
                tunnel(client, target)
                return
            if not target.startswith("http://"):
                client.sendall(b"HTTP/1.1 400 Not in absolute form\r\nContent-Length: 0\r\n\r\n")
                return
            parts = urlsplit(target)
            if upstream is None:
                upstream = socket.create_connection((parts.hostname or "", parts.port or 80))
                threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
            kept = [header for header in headers if not header.lower().startswith("proxy-")]
            address = parts._replace(scheme="", netloc="").geturl()
            line_sent = f"{method} {address} HTTP/1.1\r\n"
            upstream.sendall((line_sent + "".join(kept) + "\r\n").encode() + body)
    except (OSError, ValueError):
        pass
    finally:
        client.close()


def tunnel(client: socket.socket, target: str) -> None:
    host, _, port = target.rpartition(":")
    if host in MISBEHAVIORS:
        client.sendall(MISBEHAVIORS[host])
        return
    upstream = socket.create_connection((host, int(port)))
    client.sendall(OPENED)
    back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
    back.start()
    pump(client, upstream)
    back.join()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, sys.argv[1]), daemon=True).start()


if __name__ == "__main__":
    main()
