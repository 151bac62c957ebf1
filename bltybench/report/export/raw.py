"""Hashes of the raw files that a page is made from."""

import hashlib
from typing import NamedTuple

from bltybench.runs.folder import RunFolder


class RawFile(NamedTuple):
    """One file: its name, SHA-256, and size in bytes."""

    name: str
    sha256: str
    size: int


def hashes(folder: RunFolder) -> list[RawFile]:
    """Return the raw files of a run."""
    found: list[RawFile] = []
    for path in (folder.manifest_json, folder.attempts_parquet, folder.generator_parquet):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append(RawFile(path.name, digest, path.stat().st_size))
    return found
