"""Pages in a real browser: errors, network, contrast, keyboard, widths, and print."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support_browser import Tab, browser
from support_runs import S, attempt, generator_seconds, manifest, realistic, write_run

from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.model import encode
from bltybench.metrics.analysis import load
from bltybench.metrics.compare import Tolerance
from bltybench.metrics.outline import outline
from bltybench.report.build import build
from bltybench.report.comparison.labels import name_sides
from bltybench.report.comparison.model import compare_sides
from bltybench.report.comparison.page import write_page
from bltybench.report.page.answer import answer_of
from bltybench.report.page.index import index
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.trials.search import SearchResult

HOSTILE = "<script>alert(1)</script>\"'><img src=http://127.0.0.1:9/x onerror=alert(2)>\x1b[31m{{ 7*7 }}"

CONTRAST = """
(() => {
  const parts = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  const over = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const box = element.getBoundingClientRect();
    if (!walker.currentNode.data.trim() || box.width < 2) continue;
    if (element.closest("script, style, .sr, .skip")) continue;
    const behind = [];
    for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
    const style = getComputedStyle(element);
    const colour = element.closest("svg") ? style.fill : style.color;
    const below = light(over(["white", ...behind])), text = light(over(["white", ...behind, colour]));
    const ratio = (Math.max(below, text) + 0.05) / (Math.min(below, text) + 0.05);
    if (ratio < 4.5) found.push([walker.currentNode.data.trim().slice(0, 40), Math.round(ratio * 100) / 100]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser() as opened:
        yield opened


@pytest.fixture
def fresh(tab: Tab) -> Tab:
    tab.send("Emulation.setEmulatedMedia", media="", features=[])
    tab.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    tab.open("about:blank#fresh")
    tab.events.clear()
    return tab


def report(path: Path, attempts: list[Attempt], *, stall_us: int = 1_000, **about: Any) -> str:
    seconds = generator_seconds(90, stall_us=stall_us)
    folder = write_run(path / "run", attempts, seconds=seconds, about=manifest(**about))
    build(folder, formats={"html"})
    return folder.report_html.as_uri()


def probe_report(path: Path) -> str:
    """Write the report of a probe that was interrupted."""
    folder = write_run(path / "run", realistic(), seconds=generator_seconds(90))
    findings = find(realistic(), folder.manifest().clock.wall_ns / S, 60, probed=True)
    (folder.path / "limits.json").write_bytes(encode(to_record(findings, "run", "it was interrupted")))
    build(folder, formats={"html"})
    return folder.report_html.as_uri()


def search_report(path: Path) -> str:
    """Write the report of a capacity search of five trials."""
    rows = [
        msgspec.structs.replace(row, stage=f"trial {place // 40 + 1}: {1000.5 + place // 40}/min")
        for place, row in enumerate(realistic())
    ]
    folder = write_run(path / "run", rows, seconds=generator_seconds(90))
    search = SearchResult(
        load="rate", objectives={"refused.share": "<= 1%"}, precision=0.05, confirm=1, holds=57.0, fails=60.5,
        ended="found", requests=len(rows), trials=[],
    )  # fmt: skip
    folder.search_json.write_bytes(msgspec.json.encode(search))
    build(folder, formats={"html"})
    return folder.report_html.as_uri()


NOT_SENT = {"sent_ns": None, "headers_ns": None, "status": None, "outcome": Outcome.TRANSPORT_ERROR}
KINDS: dict[str, Callable[[Path], str]] = {
    "realistic": lambda path: report(path, realistic()),
    "empty": lambda path: report(path, []),
    "all refused": lambda path: report(
        path,
        [
            attempt(call_id=f"c{i}", sent_ns=i * S // 2, outcome=Outcome.RATE_LIMITED, status=429)
            for i in range(150)
        ],
    ),
    "nothing refused": lambda path: report(
        path, [attempt(call_id=f"c{i}", sent_ns=i * S) for i in range(30)]
    ),
    "invalid": lambda path: report(path, realistic(), stall_us=900_000),
    "dead server": lambda path: report(
        path, [attempt(call_id=f"c{i}", error_type="connection_refused", **NOT_SENT) for i in range(50)]
    ),
    "probe": probe_report,
    "capacity search": search_report,
}
"""Writes the report of a run, by its kind."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The URL of the page of each kind of run, for tests that only read it."""
    return {kind: write(tmp_path_factory.mktemp("run")) for kind, write in KINDS.items()}


@pytest.fixture
def usual(pages: dict[str, str]) -> str:
    return pages["realistic"]


@pytest.mark.parametrize("kind", KINDS)
def test_page_logs_no_errors_and_loads_nothing(kind: str, fresh: Tab, pages: dict[str, str]) -> None:
    fresh.open(pages[kind])
    assert fresh.complaints() == []
    assert [url for url in fresh.requested() if not url.startswith("data:")] == [pages[kind]]


@pytest.fixture(scope="module")
def other_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A comparison with a candidate of each kind (judged, too short, unlike), and the index of the runs."""
    place = tmp_path_factory.mktemp("pages")
    runs = []
    kinds: dict[str, dict[str, Any]] = {
        "base": {},
        "candidate": {},
        "short": {"ended_ns": 30 * S},
        "unlike": {},
    }
    for seed, (name, about) in enumerate(kinds.items()):
        resolved = manifest().resolved | {"model": HOSTILE} | ({"users": 3} if name == "unlike" else {})
        folder = write_run(
            place / name,
            realistic(seed=seed),
            seconds=generator_seconds(90),
            about=manifest(run_id=name, resolved=resolved, **about),
        )
        runs.append((folder, build(folder, formats={"json"})))
    sides = name_sides(
        [[outline(load(folder))] for folder, _ in runs], [HOSTILE + folder.path.name for folder, _ in runs]
    )
    compared = compare_sides(sides[0], sides[1:], Tolerance())
    assert [one.verdict for one in compared.candidates][1:] == ["not decided", "not comparable"]
    write_page(place / "comparison.html", compared, sides, [answer_of(folder).says for folder, _ in runs])
    (place / "index.html").write_text(index(runs, place), encoding="utf-8")
    return {name: place / f"{name}.html" for name in ("index", "comparison")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", "comparison"])
def test_index_and_comparison_log_no_errors_and_are_readable(
    name: str, scheme: str, fresh: Tab, other_pages: dict[str, Path]
) -> None:
    fresh.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    address = other_pages[name].as_uri()
    fresh.open(address)
    assert fresh.complaints() == []
    assert [url for url in fresh.requested() if not url.startswith("data:")] == [address]
    assert fresh.run(CONTRAST) == []
    fresh.send("Emulation.setDeviceMetricsOverride", width=360, height=900, deviceScaleFactor=1, mobile=False)
    assert fresh.run("document.documentElement.scrollWidth") <= 360


def test_hostile_text_runs_and_loads_nothing(fresh: Tab, tmp_path: Path) -> None:
    hostile = attempt(
        outcome=Outcome.CLIENT_ERROR,
        status=400,
        error_type=HOSTILE,
        error_code=HOSTILE,
        error_message=HOSTILE,
        model=HOSTILE,
    )
    others = [attempt(call_id=f"m{i}", model=HOSTILE + str(i)) for i in range(2)]
    resolved = manifest().resolved | {"title": HOSTILE, "answers": HOSTILE, "model": HOSTILE}
    address = report(tmp_path, [hostile, *others], resolved=resolved, command=["locust", HOSTILE])
    fresh.open(address)
    assert fresh.of("Page.javascriptDialogOpening") == []
    assert [url for url in fresh.requested() if not url.startswith("data:")] == [address]
    assert fresh.complaints() == []
    assert fresh.run("document.scripts.length") == 1
    assert fresh.run("document.images.length") == 0
    assert "<script>alert(1)</script>" in fresh.run("document.querySelector('h1').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(scheme: str, fresh: Tab, usual: str) -> None:
    fresh.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    fresh.open(usual)
    fresh.run("document.querySelectorAll('details').forEach((element) => element.open = true)")
    assert fresh.run(CONTRAST) == []


CUT_OFF = """
[...document.querySelectorAll("th, td, dt, dd, .tile, .value")].filter((cell) => {
  const box = cell.getBoundingClientRect();
  const hidden = box.width < 2 || cell.closest("thead");
  return !hidden && (box.right > innerWidth + 1 || cell.scrollWidth > cell.clientWidth + 1);
}).map((cell) => cell.innerText)
"""


PRINTED_PX = 703
"""Width of A4 without its margins."""


@pytest.mark.parametrize("width", [360, 390, PRINTED_PX, 768, 1024, 1280])
def test_no_column_is_cut_off(
    width: int, fresh: Tab, pages: dict[str, str], other_pages: dict[str, Path]
) -> None:
    fresh.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    fresh.send("Emulation.setEmulatedMedia", media="print" if width == PRINTED_PX else "")
    for address in (*pages.values(), *(path.as_uri() for path in other_pages.values())):
        fresh.open(address)
        fresh.run("document.querySelectorAll('details').forEach((element) => element.open = true)")
        assert fresh.run("document.documentElement.scrollWidth") <= width
        wide = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth)"
        assert fresh.run(f"{wide}.map((box) => box.innerText)") == []
        assert fresh.run(CUT_OFF) == []


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_first_screen_has_answer_verdicts_and_advice(
    width: int, height: int, fresh: Tab, pages: dict[str, str]
) -> None:
    fresh.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
    )
    for kind, address in pages.items():
        fresh.open(address)
        # On a phone, the reasons of INVALID fill the screen, and the answer says what to do.
        reasons_only = kind == "invalid" and width < 640
        further = () if reasons_only else (".tile:nth-child(6)", ".advice dt, #advice .quiet")
        for selector in (".answer", ".verdict", *further):
            bottom = fresh.run(f"document.querySelector('{selector}').getBoundingClientRect().bottom")
            assert bottom <= height, (kind, selector)


def test_arrow_keys_show_the_values_of_a_figure(fresh: Tab, usual: str) -> None:
    fresh.open(usual)
    fresh.run("document.getElementById('timeline').focus()")
    assert fresh.run("document.activeElement.id") == "timeline"
    assert fresh.run("document.getElementById('tip').hidden") is True
    fresh.press("ArrowRight")
    first = fresh.run("document.getElementById('tip').innerText")
    assert "accepted" in first
    fresh.press("ArrowRight")
    assert fresh.run("document.getElementById('tip').innerText") != first
    fresh.press("Escape")
    assert fresh.run("document.getElementById('tip').hidden") is True


def test_distributions_limits_and_changes_show_their_values(
    fresh: Tab, usual: str, other_pages: dict[str, Path]
) -> None:
    fresh.open(usual)
    fresh.run("document.getElementById('ecdf').focus()")
    for _ in range(60):
        fresh.press("ArrowRight")
    tip = fresh.run("document.getElementById('tip').innerText")
    assert "at most" in tip
    assert "TTFT, %" in tip
    shown = {
        "limits-evidence": "accepted by the model",
        "limits-half-1": "refusals",
        "limits-half-2": "responses",
    }
    for figure, value in shown.items():
        fresh.run(f"document.getElementById('{figure}').focus()")
        fresh.press("ArrowRight")
        assert value in fresh.run("document.getElementById('tip').innerText")
    fresh.open(other_pages["comparison"].as_uri())
    fresh.run("document.getElementById('changes-0-0').focus()")
    fresh.press("ArrowDown")
    assert "change, %" in fresh.run("document.getElementById('tip').innerText")
    edges = "(({left, top, width, height}) => [left + width / 2, top + height / 2])"
    fresh.run("document.querySelector('#distribution-0 svg').scrollIntoView({block: 'center'})")
    x, y = fresh.run(f"{edges}(document.querySelector('#distribution-0 svg').getBoundingClientRect())")
    fresh.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert "at most" in fresh.run("document.getElementById('tip').innerText")


def test_screen_reader_finds_names_for_everything(fresh: Tab, usual: str) -> None:
    fresh.open(usual)
    assert fresh.run("document.documentElement.lang") == "en"
    levels = fresh.run("[...document.querySelectorAll('h1, h2, h3')].map((element) => +element.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    unnamed = "[...document.querySelectorAll('svg')].filter((element) => !element.ariaLabel).length"
    assert fresh.run(unnamed) == 0
    loose = "[...document.querySelectorAll('th')].filter((element) => !element.scope).length"
    assert fresh.run(loose) == 0


def test_page_prints_on_few_sheets_with_a_light_background(fresh: Tab, usual: str) -> None:
    fresh.open(usual)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    fresh.send("Emulation.setEmulatedMedia", media="print", features=dark)
    assert fresh.run(CONTRAST) == []
    ground = fresh.run("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    # A4 without its margins: the first sheet holds the answer, the advice, and the timeline.
    fresh.send(
        "Emulation.setDeviceMetricsOverride", width=PRINTED_PX, height=1032, deviceScaleFactor=1, mobile=False
    )
    assert fresh.run("document.getElementById('timeline').getBoundingClientRect().bottom") <= 1032
    pdf = base64.b64decode(fresh.send("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 8
