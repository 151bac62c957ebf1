"""Messages in which a worker sends its records to the process that owns the run, and what answers them."""

import zlib
from contextlib import suppress

import msgspec

BATCH_MESSAGE = "bltybench_batch"
"""Message of a worker: a part of one of its files."""
RECEIPT_MESSAGE = "bltybench_receipt"
"""Message to a worker: how much of a file has been received."""

MAX_BATCH_BYTES = 64 * 1024
"""Maximum bytes of a file in one batch. Compressing them takes about a millisecond of the event loop."""
COMPRESSION_LEVEL = 1


class FilePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a file of a worker."""

    run_id: str
    file: str
    """Name in the run's directory."""
    offset: int
    """Bytes of the file before this part. It makes a repeated batch harmless."""
    data: bytes
    """The part, compressed."""

    @classmethod
    def of(cls, run_id: str, file: str, offset: int, part: bytes) -> "FilePart":
        """Return a batch with a part of a file."""
        return cls(run_id=run_id, file=file, offset=offset, data=zlib.compress(part, COMPRESSION_LEVEL))

    def part(self) -> bytes:
        """Return the part of the file. Raise ValueError if the data is damaged, or the part too large."""
        unpacking = zlib.decompressobj()
        with suppress(zlib.error):
            part = unpacking.decompress(self.data, MAX_BATCH_BYTES + 1)
            if unpacking.eof and len(part) <= MAX_BATCH_BYTES:
                return part
        raise ValueError(f"a batch of {self.file[:60]!r} is damaged")


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a file has been received."""

    run_id: str
    file: str
    size: int | None
    """Bytes of the file that are in the run's directory. None if the run takes no more records."""
