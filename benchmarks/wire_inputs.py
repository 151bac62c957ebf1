"""Seeded HTTP responses for fuzzing: by grammar, then damaged by mutations.

Pieces are assembled into heads, chunks, events, and JSON bodies that are mostly valid, because most paths lie
behind a valid beginning.
"""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

MAX_READS = 40
BOM = b"\xef\xbb\xbf"
STATUS_LINES = (
    *[b"HTTP/1.1 200 OK\r\n"] * 40,
    b"HTTP/1.1 429 Too Many Requests\r\n",
    b"HTTP/1.1 503 Unavailable\r\n",
    b"HTTP/1.1 500 \r\n",
    b"HTTP/1.1 402 Payment Required\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://user:pw@elsewhere/\xc3\xa9\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.0 200\r\n",
    b"HTTP/9.9 999 ?\r\n",
    b"ICY 200 OK\r\n",
    b"\x00\x00\x12\x04\x00",
)
HEADERS = (
    b"Content-Type: text/event-stream; charset=utf-8\r\n",
    b"Content-Type: application/json\r\n",
    b"Content-Type: text/html\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Retry-After: 3\r\n",
    b"Retry-After: 1e400\r\n",
    b"Retry-After: Mon, 30 Nov 2026 00:00:00 GMT\r\n",
    b"X-RateLimit-Limit-Requests: 60\r\nX-RateLimit-Remaining-Requests: 0\r\n",
    b"X-RateLimit-Reset-Requests: 6m0s\r\n",
    b"X-RateLimit-Reset: 99999999999999999999999\r\n",
    b'RateLimit: "default";r=50;t=30\r\nRateLimit-Policy: "default";q=100;w=60\r\n',
    b"X-Request-Id: \xff\xfe\x80\r\n",
    b"X-Request-Id: " + b"a" * 300 + b"\r\n",
    b"Bad Header : x\r\n",
    b": no name\r\n",
    b" folded\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
)
TEXTS = (
    b"tok",
    b" the",
    b"\\n",
    b"\\u00e9",
    b"\\ud83d",
    b"\\ude00",
    b"\\udcff",
    b'\\"',
    b"\\\\",
    b"\xc3\xa9",
    b"\xf0\x9f",
    b"\xff",
    b"",
    b"a\\",
    b"data: [DONE]",
    b"\\u0000\x01",
)
DELTAS = (
    *[b'"content":"%s"'] * 6,
    b'"reasoning_content":"%s"',
    b'"reasoning":"%s","content":null',
    b'"role":"assistant","content":"%s"',
    b'"content":[{"type":"text","text":"%s"},{"type":"thinking","thinking":[{"text":"x"}]}]',
    b'"refusal":"%s"',
    b'"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"%s"}}]',
    b'"tool_calls":[{"index":-1,"function":{"name":3}},4,null,{"index":true,"id":"%s"}]',
    b'"audio":{"data":"%s"}',
    b'"content":{"text":"%s"}',
    b'"content":17,"x":"%s"',
)
CHUNKS = (
    *[b'{"id":"c","choices":[{"index":0,"delta":{%s},"finish_reason":null}]}'] * 8,
    b'{"id":"c","model":"m","choices":[{"index":1,"delta":{%s}},{"index":0,"delta":{%s}}]}',
    b'{"choices":[{"delta":{%s},"finish_reason":"stop"}]}',
    b'{"choices":[{"delta":{%s},"finish_reason":{"type":"length"}}]}',
    b'{"choices":[{"message":{%s},"finish_reason":"error"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    b'{"choices":[],"usage":{"prompt_tokens":1e400,"completion_tokens":-1,"x":{%s}}}',
    b'{"choices":[],"usage":{"completion_tokens":99999999999999999999,"prompt_tokens_details":{%s}}}',
    b'{"choices":null,"x_groq":{"usage":{"prompt_tokens":"7"}},"y":{%s}}',
    b'{"error":{"message":"busy","type":"server_error","code":429,"param":{%s}}}',
    b'{"choices":[{"text":"t","error":{"code":5},"delta":{%s}}]}',
    b'{"object":"error","message":["a"],"detail":{%s}}',
)
PREFIXES = (*[b"data: "] * 8, b"data:", b"event: error\ndata: ", b"id: 1\ndata: ", b": ping\n\ndata: ", b"")
LINE_ENDS = (*[b"\n"] * 6, b"\r\n", b"\r")
FRAGMENTS = (
    b"data: [DONE]\n\n",
    b"data: [DONE]",
    b"data: {}\n\n",
    b"data: \n\n",
    b"event: error\ndata: out of memory\n\n",
    b": keep-alive\n\n",
    b"retry: 10\n\n",
    b"[" * 300,
    b"{" * 300,
    b'{"a":' * 200,
    b"<html><title>502 Bad Gateway</title>",
    b"9" * 400,
    b"null",
    b"NaN",
    b"\x00",
    b"\xed\xa0\x80",
    BOM,
)
NESTED = (
    *[b"[" * depth + b"]" * depth for depth in (500, 960, 990, 1100)],
    *[b'{"error":%s}' % (b"[" * depth + b"]" * depth) for depth in (500, 940, 970, 990)],
    *[b'{"message":{"x":%s}}' % (b'{"a":' * depth + b"0" + b"}" * depth) for depth in (470, 940, 980)],
    b'data: {"choices":[{"delta":{"content":%s}}]}\n\n' % (b'{"text":' * 320 + b'""' + b"}" * 320),
)
"""Deep nesting, about as deep as the decoders accept."""


class WireInput(NamedTuple):
    """A response, how it is split into reads, and what was requested."""

    response: bytes
    splits: tuple[int, ...]
    """Sizes of the reads, repeated in turn."""
    stream: bool
    keep_text: bool
    fold_every: int
    """Reads after which an open stream is folded. 0: never."""


def wire_input(number: int) -> WireInput:
    """Return input ``number``, always the same."""
    rng = Random(number)
    chance = rng.random
    stream = chance() < 0.8
    body = _body(rng, stream=stream)
    response = _head(rng, len(body), stream=stream) + body if chance() < 0.98 else body
    if chance() < 0.3:
        response = _chunked(rng, body, stream=stream)
    if chance() < 0.45:
        for _ in range(1 + int(4 * chance() ** 2)):
            response = MUTATIONS[int(len(MUTATIONS) * chance())](rng, response)
    small = 1 + int(40 * chance()) + len(response) // MAX_READS
    splits = ((len(response) or 1,), (small,), (1 + int(300 * chance()), small, 2000))[int(3 * chance())]
    return WireInput(response, splits, stream, chance() < 0.5, int(4 * chance()))


def _text(rng: Random) -> bytes:
    return TEXTS[int(len(TEXTS) * rng.random() ** 2)]


def _fragment(rng: Random) -> bytes:
    pieces = FRAGMENTS if rng.random() < 0.95 else NESTED
    return pieces[int(len(pieces) * rng.random())]


def _chunk(rng: Random) -> bytes:
    chance = rng.random
    chunk = CHUNKS[int(len(CHUNKS) * chance() ** 2)]
    for _ in range(chunk.count(b"%s")):
        chunk = chunk.replace(b"%s", DELTAS[int(len(DELTAS) * chance() ** 2)].replace(b"%s", _text(rng)), 1)
    return chunk


def _body(rng: Random, *, stream: bool) -> bytes:
    chance = rng.random
    if not stream:
        return _chunk(rng) if chance() < 0.8 else _fragment(rng)
    end = LINE_ENDS[int(len(LINE_ENDS) * chance())]
    events = [BOM] if chance() < 0.05 else []
    # Several events with the same bytes around the text, as a server sends them, and then others.
    frame = _chunk(rng)
    middle = frame.find(b'"tok"') + 1
    for _ in range(int(6 * chance())):
        event = frame[:middle] + _text(rng) + frame[middle + 3 :] if middle else _chunk(rng)
        events.append(PREFIXES[0] + event + end + end)
    for _ in range(int(4 * chance())):
        if chance() < 0.85:
            events.append(PREFIXES[int(len(PREFIXES) * chance() ** 2)] + _chunk(rng) + end + end)
        else:
            events.append(_fragment(rng))
    if chance() < 0.6:
        events.append(b"data: [DONE]" + end + end)
    return b"".join(events)


def _lines(rng: Random, *, stream: bool) -> bytes:
    chance = rng.random
    lines = STATUS_LINES[int(len(STATUS_LINES) * chance())]
    lines += HEADERS[not stream]
    for _ in range(int(3 * chance() ** 2)):
        lines += HEADERS[int(len(HEADERS) * chance())]
    return lines


def _head(rng: Random, length: int, *, stream: bool) -> bytes:
    lines = _lines(rng, stream=stream)
    kind = rng.random()
    if kind < 0.5:
        lines += b"Content-Length: %d\r\n" % (length + (int(6 * rng.random()) - 3 if kind < 0.04 else 0))
    elif kind < 0.52:
        lines += b"Transfer-Encoding: chunked\r\n"
    return lines + b"\r\n"


def _chunked(rng: Random, body: bytes, *, stream: bool) -> bytes:
    chance = rng.random
    parts = [_lines(rng, stream=stream), b"Transfer-Encoding: chunked\r\n\r\n"]
    at = 0
    while at < len(body):
        size = 1 + int(400 * chance())
        part = body[at : at + size]
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), b";ext=1" if chance() < 0.05 else b"", part))
        at += size
    parts.append(
        (b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"ffffffffffffffff\r\n", b"")[int(4 * chance() ** 3)]
    )
    return b"".join(parts)


def _place(rng: Random, data: bytes) -> int:
    return int((len(data) + 1) * rng.random())


def _flip(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([int(256 * rng.random())]) + data[at + 1 :]


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _delete(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + 1 + int(30 * rng.random()) :]


def _repeat(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[max(0, at - 1 - int(60 * rng.random())) :]


def _insert(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + _fragment(rng) + data[at:]


def _noise(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(1 + int(12 * rng.random())) + data[at:]


def _digits(rng: Random, data: bytes) -> bytes:
    """Replace a digit by an extreme number."""
    at = data.find(b"0123456789"[int(10 * rng.random()) :][:1])
    number = (b"-1", b"1e999", b"9" * 25, b"0x10", b"0.5")[int(5 * rng.random())]
    return data if at < 0 else data[:at] + number + data[at + 1 :]


MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _delete,
    _repeat,
    _insert,
    _noise,
    _digits,
)
