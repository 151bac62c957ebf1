"""Pages from templates. Text from outside is escaped; style and script are inline."""

import json
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, StrictUndefined, select_autoescape
from jinja2.bccache import Bucket
from markupsafe import Markup

from bltybench.report import text
from bltybench.report.figures.drawing import Drawing
from bltybench.report.glossary import TERMS, gloss


class _CompiledTemplates(FileSystemBytecodeCache):
    """Compiled templates, next to the compiled modules: compiling takes longer than rendering.

    Jinja compiles a template again if it changed.
    """

    def __init__(self) -> None:
        super().__init__(str(Path(__file__).parent / "__pycache__"), f"jinja-{jinja2.__version__}-%s.cache")

    def dump_bytecode(self, bucket: Bucket) -> None:
        if not sys.dont_write_bytecode:
            with suppress(OSError):  # the package can be read-only
                super().dump_bytecode(bucket)


def render(template: str, **values: Any) -> str:
    """Return a page made from a template of this package."""
    environment = Environment(
        loader=PackageLoader("bltybench.report"),
        bytecode_cache=_CompiledTemplates(),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        num=text.number,
        ms=text.milliseconds,
        pct=text.percent,
        bounded=text.bounded,
        clock=text.clock,
        compact=text.compact,
        sentence=text.sentence,
        gloss=gloss,
    )
    environment.globals.update(
        unit=text.with_unit,
        count=text.count,
        range_ms=text.range_ms,
        signed=text.signed,
        terms=TERMS,
        style=Markup(_asset("report.css")),  # noqa: S704 - our own file, not input
        script=Markup(_asset("report.js")),  # noqa: S704 - our own file, not input
    )
    return environment.get_template(template).render(values)


def figure(drawing: Drawing, folder: str = "figures") -> dict[str, Any]:
    """Return a drawing as the templates' macro ``figure`` takes it, with links to its data in ``folder``."""
    return {
        "title": drawing.title,
        "says": drawing.says,
        "wide": Markup(drawing.wide),  # noqa: S704 - drawn by us; matplotlib escapes its texts
        "narrow": Markup(drawing.narrow),  # noqa: S704 - drawn by us; matplotlib escapes its texts
        "csv": [f"{quote(folder)}/{quote(name)}.csv" for name in drawing.data],
        "hover": json.dumps(drawing.hover, separators=(",", ":")) if drawing.hover else "",
    }


def _asset(name: str) -> str:
    return (files("bltybench.report") / "templates" / name).read_text(encoding="utf-8")
