"""The page's structure against a golden file: sections, headings, tables, and figures, in order.

After an intended change, run ``pytest --update-golden`` on this file and commit the new golden file.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from bltybench.report.summary import Summary
from bltybench.runs.folder import RunFolder

GOLDEN = Path(__file__).parent.parent / "data" / "report_structure.txt"
HEADINGS = frozenset({"h1", "h2", "h3"})


class Structure(HTMLParser):
    """Collects one line per section, heading, column header, term, and drawing."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._open: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in {"section", "figure", "details", "main", "header"}:
            self.lines.append(" ".join(filter(None, [tag, named.get("id"), named.get("aria-label")])))
        elif tag == "svg":
            self.lines.append("  drawing")
        elif tag == "table":
            self.lines.append("  table")
        elif tag in HEADINGS | {"dt"} or (tag == "th" and named.get("scope") == "col"):
            self._open = tag
            self.lines.append(f"  {tag} ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.lines[-1] += data.strip()


def test_page_structure_equals_the_golden_file(
    usual_run: tuple[RunFolder, Summary], pytestconfig: pytest.Config
) -> None:
    folder, _ = usual_run
    structure = "\n".join(Structure(folder.report_html.read_text(encoding="utf-8")).lines) + "\n"
    if pytestconfig.getoption("--update-golden"):
        GOLDEN.write_text(structure, encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == structure, "if intended, run pytest --update-golden"
