from __future__ import annotations

import contextlib
import ssl
from typing import Any, cast

import pytest
import trustme

from bltybench.wire.http.tls import Tls


class Far:
    """The far end of a session, in memory. To the near end it looks like a socket."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def sendall(self, data: bytes) -> None:
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._session.do_handshake()

    def recv(self, size: int) -> bytes:
        return self._outgoing.read(size)

    def written(self, *parts: bytes) -> bytes:
        """Return the bytes for ``parts``, one record each."""
        for part in parts:
            self._session.write(part)
        return self._outgoing.read()

    def closed(self) -> bytes:
        """Return the bytes that announce the end."""
        with pytest.raises(ssl.SSLWantReadError):
            self._session.unwrap()
        return self._outgoing.read()


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    near, far = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(near)
    authority.issue_cert("localhost").configure_cert(far)
    return near, far


@pytest.fixture
def ends(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[Tls, Far]:
    near, far = Tls(contexts[0], "localhost"), Far(contexts[1])
    near.handshake(cast(Any, far))
    return near, far


def test_all_records_of_one_read_are_decrypted(ends: tuple[Tls, Far]) -> None:
    near, far = ends
    tickets = far.written()
    assert near.decrypt(tickets + far.written(b"one")) == b"one"
    assert near.decrypt(far.written(b"two", b"", b"three", b"x" * 100_000)) == b"twothree" + b"x" * 100_000
    assert near.decrypt(far.written()) == b""
    assert not near.ended


def test_a_record_can_arrive_in_parts_and_with_others(ends: tuple[Tls, Far]) -> None:
    near, far = ends
    data = far.written(b"one", b"two" * 10_000, b"three")
    got = [near.decrypt(data[at : at + 7_001]) for at in range(0, len(data), 7_001)]
    assert b"".join(got) == b"one" + b"two" * 10_000 + b"three"
    assert b"" in got


@pytest.mark.parametrize("together", [True, False])
def test_the_end_is_noticed_after_the_last_bytes_and_alone(ends: tuple[Tls, Far], together: bool) -> None:
    near, far = ends
    last, end = far.written(b"last"), far.closed()
    if together:
        assert near.decrypt(last + end) == b"last"
    else:
        assert near.decrypt(last) == b"last"
        assert not near.ended
        assert near.decrypt(end) == b""
    assert near.ended
