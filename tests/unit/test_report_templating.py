"""Pages from templates."""

import pytest
from jinja2 import FileSystemBytecodeCache
from jinja2.bccache import Bucket

from bltybench.report import templating


def test_page_is_rendered_if_compiled_templates_cannot_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_cache: FileSystemBytecodeCache, _bucket: Bucket) -> None:
        raise PermissionError

    monkeypatch.setattr(FileSystemBytecodeCache, "load_bytecode", lambda _cache, _bucket: None)
    monkeypatch.setattr(FileSystemBytecodeCache, "dump_bytecode", refuse)
    assert "<html" in templating.render("index.html.j2", rows=[])
