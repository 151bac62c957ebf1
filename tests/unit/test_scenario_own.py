from __future__ import annotations

from pathlib import Path

import pytest
from locust import HttpUser

from bltybench.errors import UserError
from bltybench.load.locust_plugin.user_classes import UserClasses, uses_name
from bltybench.load.users import ChatUser, ScenarioUser
from bltybench.scenario.file.own_load import own_scenario
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import Book, load_book

BOOK = """
default_scenario = "{default}"
[targets.here]
base_url = "http://127.0.0.1:1/v1"
[targets.there]
base_url = "http://127.0.0.1:2/v1"

[scenarios.open]
title = "Open"
target = "here"
model = "first"
duration_s = 10
users = 50
arrivals = {{ kind = "constant", rate_per_min = 60 }}
mix = [{{ name = "a" }}]
checks = {{ "errors.share" = "<= 0%" }}

[scenarios.ladder]
title = "Ladder"
target = "there"
model = "second"
duration_s = 10
users = 8
arrivals = {{ kind = "ladder", users = [4, 8], think_s = 2 }}
mix = [{{ name = "a" }}]

[scenarios.mine]
title = "Mine"
target = "there"
model = "third"
duration_s = 10
users = 5
arrivals = {{ kind = "closed", think_s = 1 }}
"""


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return book_with_default(tmp_path, "open")


def book_with_default(folder: Path, default: str) -> Book:
    path = folder / "scenarios.toml"
    path.write_text(BOOK.format(default=default))
    return load_book(path)


def test_class_without_a_scenario_is_one_user_without_limit_or_checks(book: Book) -> None:
    name, scenario = own_scenario(book, None, None, {"CuriousUser": " Asks things.\n\nMore."})
    assert (name, scenario.title, scenario.answers) == ("curious-user", "CuriousUser: Asks things", "")
    assert (scenario.target, scenario.model) == ("here", "first")
    assert (scenario.users, scenario.spawn_rate, scenario.checks) == (1, 1.0, {})
    assert not scenario.is_open_loop
    assert not scenario.has_time_limit


def test_model_is_that_of_a_scenario_with_the_same_target(book: Book) -> None:
    assert own_scenario(book, None, "there", {"A": None})[1].model == "second"


def test_several_classes_are_all_in_the_title(book: Book) -> None:
    name, scenario = own_scenario(book, None, None, {"A": None, "B": "Does b.", "C": "Does c."})
    assert (name, scenario.title) == ("a-b-and-c", "A, B and C")
    assert scenario.answers == "B: Does b\nC: Does c"


@pytest.mark.parametrize("name", ["X" * 100, "Ünï", "_"])
def test_any_class_name_gives_a_name_that_a_folder_can_have(book: Book, name: str) -> None:
    named, scenario = own_scenario(book, None, None, {name: None})
    changed = book.model_copy(update={"scenarios": book.scenarios | {named: scenario}})
    assert named in Book.model_validate(changed.model_dump()).scenarios  # which checks the names


def test_named_scenario_keeps_its_settings_but_not_its_arrivals(book: Book) -> None:
    name, scenario = own_scenario(book, "open", None, {"A": "Doc."})
    assert (name, scenario.title, scenario.checks) == ("open", "Open", {"errors.share": "<= 0%"})
    # The 50 users of an open loop are its calls in flight.
    assert (scenario.users, scenario.mix, scenario.is_open_loop) == (1, (), False)
    assert own_scenario(book, "mine", None, {"A": None})[1].users == 5
    with pytest.raises(UserError, match='no such scenario: "mien"'):
        own_scenario(book, "mien", None, {"A": None})


def test_default_scenario_without_a_mix_is_meant_for_own_classes(tmp_path: Path) -> None:
    name, scenario = own_scenario(book_with_default(tmp_path, "mine"), None, None, {"A": None})
    assert (name, scenario.title, scenario.model) == ("mine", "Mine", "third")


def test_options_override_an_own_scenario(book: Book) -> None:
    name, scenario = own_scenario(book, None, None, {"A": None})
    book = book.model_copy(update={"scenarios": book.scenarios | {name: scenario}})
    resolved = resolve(book, name, users=7, duration_s=3.0)
    assert (resolved.scenario.users, resolved.scenario.duration_s) == (7, 3.0)
    assert resolved.target_name == "here"


def test_use_of_the_sdk_is_found_in_methods_and_task_sets_of_a_class() -> None:
    class Plain:
        def on_start(self) -> None:
            print("as_openai")

    class Direct:
        def on_start(self) -> None:
            self.openai = self.client.as_openai()  # type: ignore[attr-defined]

    class Nested:
        Tasks = Direct

    assert not uses_name(Plain, "as_openai")
    assert uses_name(Direct, "as_openai")
    assert uses_name(Nested, "as_openai")


def test_user_classes_are_split_and_compared() -> None:
    class Reader(ChatUser):
        scenario = "a"
        host = "http://127.0.0.1:1"

    class Replayer(ScenarioUser):
        scenario = "b"

    class Health(HttpUser):
        host = "http://127.0.0.1:2"

    classes = UserClasses([Replayer, Reader, Health])
    assert classes.recorded == [Reader, Replayer]
    assert classes.unrecorded == [Health]
    assert classes.replays
    assert classes.host == "http://127.0.0.1:1"
    assert not UserClasses([Reader, Health]).replays
    assert UserClasses([Reader, Health]).scenario == "a"
    with pytest.raises(UserError, match="the user classes name different scenarios: a, b"):
        _ = classes.scenario
