"""Write the campaigns' results into the table of docs/reliability.md.

python -m benchmarks.reliability kills.json fuzz.json mutations.json folders.json soak.json

The files are those that the campaigns wrote with ``--json``, in any order. Each adds or replaces the row of
its program. A campaign can be played in parts, for example with ``--first 100 --cases 100`` after ``--cases
100``: the files of its parts give one row. A campaign with failed or missing cases is refused.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"


def _kills(document: dict[str, Any]) -> str:
    counts = document["counts"]
    by_kind: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        if name.startswith("kills: "):
            kind, phase = name.removeprefix("kills: ").split(", ")
            by_kind.setdefault(kind, {})[phase] = count
    kinds = "; ".join(f"{kind} {_sum(phases)}" for kind, phases in sorted(by_kind.items()))
    signals = ", ".join(
        f"{name.removeprefix('signals: ')} {count:,}"
        for name, count in sorted(counts.items())
        if name.startswith("signals: ")
    )
    return (
        f"{counts['kills in total']:,} kills: {kinds}. Signals: {signals}. "
        f"{counts['runs compared']:,} runs with {counts['records']:,} records: "
        f"none of the {counts['records required']:,} required ones is missing, none is doubled"
    )


def _sum(phases: dict[str, int]) -> str:
    parts = ", ".join(f"{phase} {count:,}" for phase, count in sorted(phases.items()))
    return f"{sum(phases.values()):,} ({parts})"


def _counted(unit: str) -> Callable[[dict[str, Any]], str]:
    def text(document: dict[str, Any]) -> str:
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(document["counts"].items()))
        return f"{document['cases']:,} {unit}: {counts}. Largest memory {document['peak_mb']:.0f} MB"

    return text


def _soak(document: dict[str, Any]) -> str:
    (load,) = document["loads"]
    delays = " / ".join(f"{p50:.1f} and {p99:.1f}" for p50, p99, _ in load["schedule_delay_ms_thirds"])
    return (
        f"{load['attempts']:,} attempts of {load['planned']:,}, {load['ok']:,} ok, up to "
        f"{load['streams_in_flight_max']:,} streams, {load['events_per_s']:,.0f} events/s. By thirds: memory "
        f"{' / '.join(f'{mb:g}' for mb in load['rss_mb_thirds'])} MB, descriptors "
        f"{' / '.join(f'{count:,}' for count in load['descriptors_thirds'])}, "
        f"schedule delay p50 and p99 {delays} ms"
    )


def _machines(document: dict[str, Any]) -> str:
    cases = "; ".join(
        f"{result['case']} {result['attempts']:,}"
        + (f" (clocks ±{result['uncertainty_ms']:.1f} ms)" if result["uncertainty_ms"] else "")
        for result in document["results"]
    )
    return f"attempts of each case: {cases}. All agree with the sandbox's log row by row, and none is doubled"


ROWS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "benchmarks.kills": ("Random kills of our own processes, in every phase", _kills),
    "benchmarks.damaged_folders": ("Damaged run folders", _counted("folders")),
    "benchmarks.fuzz": ("Byte sequences through HTTP, event streams, and interpretation", _counted("inputs")),
    "benchmarks.scenario_mutations": ("Damaged scenarios.toml", _counted("files")),
    "benchmarks.machines": ("A master and three workers on machines of their own", _machines),
    "benchmarks.scale": ("1,000 streams for ten minutes", _soak),
}
"""What was tried, and the text of the result, by program. The table has this order."""
HEADER = "| tried | command | result |\n|---|---|---|\n"
TABLE = re.compile(r"(?s)(?<=<!-- campaigns -->\n).*(?=<!-- end -->)")


def row_of(parts: list[dict[str, Any]]) -> str:
    """Return the row of one campaign. Raise ValueError if cases failed, or if its parts do not adjoin."""
    document = _joined(parts) if "cases" in parts[0] else parts[-1]
    module, ended = _module(document), document["ended"][:16].replace("T", " ")
    if document.get("failures"):
        raise ValueError(f"{len(document['failures'])} cases of {module} failed")
    title, text = ROWS[module]
    shown = re.sub(r" --json \S+", "", document["command"])
    return f"| {title} | `{shown}` | {text(document)} ({ended} UTC) |\n"


def _module(document: dict[str, Any]) -> str:
    module: str = document["command"].split()[2]
    return module


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the parts of a campaign as one document, with the command that repeats all of it."""
    ordered = sorted(parts, key=lambda part: part["first"])
    module, end = _module(ordered[0]), 0
    for part in ordered:
        if part["first"] != end:
            raise ValueError(f"{module}: a part begins with case {part['first']:,} instead of {end:,}")
        end += part["cases"]
    return {
        "command": f"python -m {module} --cases {end}",
        "ended": max(part["ended"] for part in parts),
        "cases": end,
        "counts": sum((Counter(part["counts"]) for part in parts), Counter()),
        "failures": [failure for part in ordered for failure in part["failures"]],
        "peak_mb": max(part["peak_mb"] for part in parts),
    }


def filled(page: str, documents: Iterable[dict[str, Any]]) -> str:
    """Return the page with the given campaigns in its table, and the other rows as they are."""
    found = TABLE.search(page)
    if found is None:
        raise ValueError(f"{PAGE.name} has no place for the table")
    known = {
        module: line + "\n"
        for line in found[0].splitlines()
        for module in ROWS
        if re.search(rf"-m {re.escape(module)}[ `]", line)
    }
    parts: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        parts.setdefault(_module(document), []).append(document)
    rows = known | {module: row_of(found) for module, found in parts.items()}
    table = HEADER + "".join(rows[module] for module in ROWS if module in rows) if rows else ""
    return page[: found.start()] + table + page[found.end() :]


def main() -> None:
    """Write all results into the page."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("results", nargs="+", type=Path, help="files that campaigns wrote")
    documents = [json.loads(path.read_bytes()) for path in options.parse_args().results]
    try:
        page = filled(PAGE.read_text(encoding="utf-8"), documents)
    except ValueError as error:
        sys.exit(str(error))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
