"""Reject phrases that readers stumbled over, in code, docs, and templates.

    python lint/prose.py            # every file that git tracks; exit code 1 if a phrase is found
    python lint/prose.py FILE ...   # these files only

Each phrase has a plain replacement. A line that must contain one, a quotation for example, can end in a
comment with ``prose: allow``.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PHRASES = {
    r"\bso (many|much|often|long)\b(?! as\b)": "the number with its unit",
    r"\bwho (comes|asks|lets|waits|refuses|sends|goes|is|has)\b": "the client, the caller, or the server",
    r"\b(let|lets|letting) (in|through)\b": "accepted, accepts",
    r"\bkept out\b": "refused",
    r"\b(is|are|was|were|be) told\b": "reported, announced",
    r"\btold (apart|from)\b": "distinguished from",
    r"\b(in lumps|lumps?|lumpy)\b": "ticks, interval refill",
    r"\b(taken|takes|take) for\b(?! granted| each| every)": "mistaken for",
    r"\bwhat (became|becomes) of\b": "outcome",
    r"\bfor ever\b": "indefinitely, permanently",
    r"\bin the air\b": "in flight",
    r"\bstands? still\b": "stalls",
    r"\banew\b": "again",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bto be mended\b": "to fix",
    r"\bhow it (went|goes)\b": "outcome, progress",
    r"^\s*(#|\"\"\")?\s*Of (the|those|what|which)\b.*:": "start with the subject",
    r"\bfor each in\b": "name the thing",
}
SUFFIXES = {".py", ".md", ".j2", ".toml", ".ipynb", ".js", ".css", ".html", ".yml"}
EXCLUDED = ("lint/prose.py", "bltybench/scenario/prompts/sentences.txt", "tests/data/", "reports/sample/")
ALLOW = "prose: allow"


def tracked() -> list[Path]:
    """Return the files to check."""
    names = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split()  # noqa: S607
    return [Path(name) for name in names if Path(name).suffix in SUFFIXES and not name.startswith(EXCLUDED)]


def findings(path: Path) -> Iterator[str]:
    """Yield one line for each phrase in a file: place, phrase, and replacement."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if ALLOW in line:
            continue
        for pattern, replacement in PHRASES.items():
            match = re.search(pattern, line, re.IGNORECASE if pattern[0] != "^" else 0)
            if match:
                yield f'{path}:{number}: "{match.group(0).strip()[:40]}": write {replacement}'


def main() -> int:
    """Check the files and print the findings."""
    paths = [Path(name) for name in sys.argv[1:]] or tracked()
    found = [line for path in paths if path.exists() for line in findings(path)]
    print("\n".join(found) if found else f"{len(paths)} files: no phrase to rewrite")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
