"""Adding a target, or keys of one, to the text of scenarios.toml."""

from __future__ import annotations

import tomllib

import pytest

from bltybench.errors import UserError
from bltybench.scenario.file.add_target import with_target

TEXT = """\
# My targets
[targets.mine]  # the first
base_url = "https://a.example/v1"   # keep

[scenarios.x]
title = "[targets.mine]"
"""


def test_new_target_is_appended_and_nothing_else_changes() -> None:
    keys = {"base_url": "https://b.example/v1", "stream_options": False, "budget": {"requests": 200}}
    text = with_target(TEXT, "other", keys, where="f")
    assert text.startswith(TEXT)
    assert tomllib.loads(text)["targets"]["other"] == keys


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_keys_are_added_below_the_heading_of_an_existing_target(end: str) -> None:
    text = with_target(
        TEXT.replace("\n", end), "mine", {"max_tokens_key": "max_completion_tokens"}, where="f"
    )
    assert text == TEXT.replace("\n", end).replace(
        f"# the first{end}", f'# the first{end}max_tokens_key = "max_completion_tokens"{end}'
    )


def test_other_value_is_refused_and_the_same_value_changes_nothing() -> None:
    with pytest.raises(UserError, match=r"targets\.mine exists with another base_url"):
        with_target(TEXT, "mine", {"base_url": "https://b.example/v1"}, where="f")
    assert with_target(TEXT, "mine", {"base_url": "https://a.example/v1"}, where="f") == TEXT


def test_layout_without_a_heading_names_the_lines_to_add() -> None:
    text = 'targets.mine = { base_url = "https://a.example/v1" }\n'
    with pytest.raises(UserError, match="no heading") as caught:
        with_target(text, "mine", {"stream_options": False}, where="f")
    assert "stream_options = false" in str(caught.value)
    with pytest.raises(UserError, match="can't be a target's name"):
        with_target(text, "Mine!", {}, where="f")
