from __future__ import annotations

import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.check.client import MAX_BODY_BYTES, MAX_PIECE_BYTES, CheckResponse, Client
from bltybench.check.expectations.ratelimits import server_time, whole
from bltybench.check.expectations.stream import events
from bltybench.check.reach import tls_context
from bltybench.errors import UserError
from bltybench.scenario.target import Target

ENDED_S = 1_795_356_910.0


def answer(**headers: str) -> CheckResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return CheckResponse(status=200, headers=httpx.Headers(named), sent_s=ENDED_S - 1, ended_s=ENDED_S)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data:a\ndata:  b\n\n", ["a\n b"]),
        (b": keep-alive\n\nevent: x\nid: 1\ndata: a\n\n\n\n", ["a"]),
        ("data: \u2028\u0085ü\n\n".encode(), ["\u2028\u0085ü"]),
        (b"data: a\n\ndata: cut off", ["a"]),
        (b"data: a\n\ndata: whole line\n", ["a"]),
        (b"", []),
    ],
)
def test_stream_body_is_split_into_events(body: bytes, expected: list[str]) -> None:
    assert events(body) == expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Sun, 22 Nov 2026 14:15:20 GMT", ENDED_S + 10),
        ("Sun, 22 Nov 2026 14:15:20 -0000", ENDED_S + 10),
        ("Sun, 22 Nov 2026 15:15:20 +0100", ENDED_S + 10),
        ("soon", ENDED_S),
        ("", ENDED_S),
        ("Sun, 99 Nov 9999999 14:15:20 GMT", ENDED_S),
    ],
)
def test_server_clock_is_read_from_the_date_header(date: str, expected: float) -> None:
    assert server_time(answer(Date=date)) == expected


@given(st.text(alphabet=st.characters(codec="latin-1")))
def test_any_date_and_number_header_is_readable(text: str) -> None:
    made = CheckResponse(
        status=200,
        headers=httpx.Headers([(b"date", text.encode("latin-1")), (b"n", text.encode("latin-1"))]),
        sent_s=ENDED_S,
        ended_s=ENDED_S,
    )
    assert server_time(made) == server_time(made)
    assert (whole(made, "n") or 0) >= 0


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "1e3", "0x1", "٣", "1 2", "9" * 16])
def test_non_integers_are_rejected(value: str) -> None:
    made = CheckResponse(headers=httpx.Headers([(b"n", value.encode())]), sent_s=0, ended_s=0)
    assert whole(made, "n") is None


def test_endless_body_is_not_read_completely() -> None:
    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 100_000

    target = Target(base_url="http://127.0.0.1:9/v1")
    client = Client(
        target,
        target.access("t"),
        transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless())),
    )
    found = client.get("/models")
    assert len(found.body) <= MAX_BODY_BYTES + 100_000
    assert "reading stopped" in (found.failure or "")


class Pieces(httpx.SyncByteStream):
    """A body that arrives in the given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces


def compressed_answer(encoding: str, *pieces: bytes) -> CheckResponse:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=Pieces(*pieces)))
    target = Target(base_url="http://127.0.0.1:9/v1")
    return Client(target, target.access("t"), transport=transport).get("/models")


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("GZIP", 31), ("x-gzip", 31), ("deflate", 15)])
def test_compressed_bomb_is_read_up_to_the_limit(encoding: str, wbits: int) -> None:
    # A 1 MB gzip body of a hostile server expanded to 900 MB in memory.
    packer = zlib.compressobj(wbits=wbits)
    bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(300)) + packer.flush()
    tracemalloc.start()
    found = compressed_answer(encoding, bomb)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert MAX_BODY_BYTES < len(found.body) <= MAX_BODY_BYTES + MAX_PIECE_BYTES
    assert "reading stopped" in (found.failure or "")
    assert peak_bytes < 20_000_000


def test_compressed_body_in_small_pieces_is_decompressed() -> None:
    # Some gateways compress even if the client asks for identity.
    packed = gzip.compress(b'{"data": []}')
    found = compressed_answer("gzip", *(packed[at : at + 3] for at in range(0, len(packed), 3)))
    assert (found.body, found.failure) == (b'{"data": []}', None)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("br", "compressed with br, but the request accepts only identity"),
        ("gzip, gzip", "compressed with gzip, gzip"),
        ("gzip", "not valid gzip"),
    ],
)
def test_unreadable_encoding_is_a_failure(encoding: str, message: str) -> None:
    found = compressed_answer(encoding, b"nonsense that is not compressed")
    assert message in (found.failure or "")
    assert found.status == 200


def test_certificates_are_verified_by_default(tmp_path: Path) -> None:
    target = Target(base_url="https://localhost:9/v1")
    assert tls_context(target).verify_mode is ssl.CERT_REQUIRED
    assert tls_context(target.model_copy(update={"verify_tls": False})).verify_mode is ssl.CERT_NONE
    with pytest.raises(UserError, match="can't use ca_file"):
        tls_context(target.model_copy(update={"ca_file": str(tmp_path / "none.pem")}))
