"""Decompression of bodies. No request asks for a compressed one, but some gateways compress anyway."""

import zlib

from bltybench.wire.fault import Failure, Fault

CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
"""Content codings that the standard library decompresses piece by piece."""
MAX_DECOMPRESSED_BYTES = 16 * 1024 * 1024
"""Limit for a decompressed body: a small one can expand to a thousand times its size."""


class BodyDecoder:
    """Decompresses one body piece by piece, and stops at ``max_bytes``."""

    def __init__(self, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> None:
        self.failure: Failure | None = None
        self._left = self._max = max_bytes
        self._stream: zlib._Decompress | None = None

    @property
    def complete(self) -> bool:
        """Whether the body ended where its compression does."""
        return self._stream is None or self._stream.eof

    def decode(self, data: bytes) -> bytes:
        """Return what ``data`` adds to the body; nothing after a failure."""
        parts = []
        while data and self.failure is None:
            stream = self._stream = self._stream or zlib.decompressobj(_window_bits(data))
            try:
                part = stream.decompress(data, self._left + 1)
            except zlib.error as error:
                self.failure = Failure(Fault.CONTENT_ENCODING, f"the compressed body is damaged: {error}")
                break
            if len(part) > self._left:
                part = part[: self._left]
                message = f"more than {self._max} bytes after decompression"
                self.failure = Failure(Fault.BODY_TOO_LARGE, message)
            self._left -= len(part)
            parts.append(part)
            data = b""
            if stream.eof and stream.unused_data.startswith(b"\x1f\x8b"):  # gzip allows several in a row
                data, self._stream = stream.unused_data, None
        return b"".join(parts)


def _window_bits(start: bytes) -> int:
    """Return zlib's parameter for a body: gzip, or deflate with the header of zlib or without one."""
    zlib_header = start[0] & 0x0F == 8 and (len(start) < 2 or int.from_bytes(start[:2]) % 31 == 0)
    return zlib.MAX_WBITS | 32 if zlib_header or start[0] == 0x1F else -zlib.MAX_WBITS
