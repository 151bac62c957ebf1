"""The client in C (``cref.c``): the cost of reading streams without Python, in the same run as ours."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benchmarks.work import ClientResult, ClientStream, Work, rss_mb

SOURCE = Path(__file__).with_suffix(".c")


def run(work: Work) -> None:
    """Compile the client, run it, and write its result."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("the client in C needs a compiler: install gcc")
    folder = Path(work.result).parent
    program, figures = folder / "cref", folder / "figures"
    subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
    parts = urlsplit(work.base_url)
    body = json.dumps(work.body).encode()
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    start_s = max(0.0, (work.wait_for_start() - time.monotonic_ns()) / 1e9)
    numbers = (parts.port, work.streams, start_s, work.spread_s, work.seconds)
    subprocess.run([str(program), *map(str, numbers), str(figures)], input=head.encode() + body, check=True)
    from_ns, to_ns, cpu_s, ended = map(float, figures.read_text("ascii").split())
    result = ClientResult(
        from_ns=round(from_ns),
        to_ns=round(to_ns),
        cpu_s=cpu_s,
        rss_mb=rss_mb(),
        streams=[ClientStream(0, 0, round(from_ns), [])] * round(ended),
    )
    Path(work.result).write_bytes(msgspec.json.encode(result))
