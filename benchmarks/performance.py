"""The tables of docs/performance.md, one after the other.

python -m benchmarks.performance                    everything, which takes an hour or so
python -m benchmarks.performance formats startup    only these tables

Prints each command with its output. Published tools are measured if ``benchmarks.peers --install`` has
installed them.
"""

import argparse
import shlex
import subprocess
import sys
import time

from benchmarks.bench import REPO
from benchmarks.client import OURS
from benchmarks.stream_formats import FORMATS

THREE = f"{OURS} FastHttpUser aiohttp"
TABLES = {
    "clients": f"wire --clients {THREE} --rates 0 50 --streams 50 200",
    "together": f"wire --together --clients {THREE} 'C epoll' --rates 0 50 --streams 50 200",
    "all-clients": "wire --runs 1 --seconds 2",
    "formats": f"wire --clients {OURS} --rates 0 --streams 200 --seconds 1.5 --formats {' '.join(FORMATS)}",
    "at-once": f"wire --at-once --clients {OURS} --rates 50 --streams 400 1000",
    "peers": "peers --rates 0 --streams 200 --requests 3000",
    "scale": "scale",
    "processes": "scale 100x50 --processes 1 2",
    "startup": "startup",
}
"""Commands by the name of their table, in the order of the page."""


def main() -> None:
    """Run the commands of the chosen tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help=f"any of {', '.join(TABLES)} (default: all)")
    tables = parser.parse_args().tables or list(TABLES)
    if unknown := set(tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    failed = []
    for name in tables:
        print(
            f"\n## {name}: python -m benchmarks.{TABLES[name]}, {time.strftime('%Y-%m-%d %H:%M %Z')}\n",
            flush=True,
        )
        module, *options = shlex.split(TABLES[name])
        command = [sys.executable, "-m", f"benchmarks.{module}", *options]
        if subprocess.run(command, cwd=REPO, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
