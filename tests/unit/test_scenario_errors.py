"""Error messages for scenarios.toml: file, key, value, and the expected form."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from bltybench.errors import UserError
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.plan import make_plan
from bltybench.scenario.retry import PolicyName
from bltybench.scenario.workload import Arrivals

*_MOST, _LAST = (f"'{name}'" for name in get_args(PolicyName))
POLICY_NAMES = f"{', '.join(_MOST)} or {_LAST}"

GOOD = """\
default_scenario = "q"
[targets.sandbox]
base_url = "http://127.0.0.1:8910/v1"
[scenarios.q]
title = "t"
model = "m"
duration_s = 10
users = 2
arrivals = { kind = "constant", rate_per_min = 60 }
mix = [{ name = "a" }]
"""


def said(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_book(path)
    return str(caught.value).replace(str(path), "F")


def test_base_file_of_the_error_cases_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD)
    assert list(load_book(path).scenarios) == ["q"]


KINDS = ", ".join(
    repr(get_args(member.model_fields["kind"].annotation)[0]) for member in get_args(get_args(Arrivals)[0])
)
NAME = "must consist of lowercase letters, digits, - and _, and start with a letter or digit"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("= 60", "= -5", "scenarios.q.arrivals.rate_per_min = -5: must be greater than 0"),
        ("= 60", "= inf", "scenarios.q.arrivals.rate_per_min = inf: must be a finite number"),
        ("= 60", "= nan", "scenarios.q.arrivals.rate_per_min = nan: must be a finite number"),
        ("= 60", '= "60"', 'scenarios.q.arrivals.rate_per_min = "60": must be a number'),
        (
            '"constant"',
            '"steady"',
            f'scenarios.q.arrivals: kind is "steady"; must be one of {KINDS}',
        ),
        (
            'kind = "constant", ',
            "",
            f"scenarios.q.arrivals: needs a kind: one of {KINDS}",
        ),
        ("users = 2", 'users = "2"', 'scenarios.q.users = "2": must be an integer'),
        ("users = 2", "users = 2.5", "scenarios.q.users = 2.5: must be an integer"),
        ("users = 2", "users = true", "scenarios.q.users = true: must be an integer"),
        ("users = 2", "users = 0", "scenarios.q.users = 0: must be greater than 0"),
        ("duration_s = 10\n", "", "scenarios.q.duration_s: is missing"),
        ('title = "t"', "title = 3", "scenarios.q.title = 3: must be text in quotes"),
        ("users = 2", "users = 2\nmodle = 3", "scenarios.q.modle: unknown key; did you mean 'model'?"),
        (
            '{ name = "a" }',
            '{ name = "a", streem = true }',
            "scenarios.q.mix[a].streem: unknown key; did you mean 'stream'?",
        ),
        ('[{ name = "a" }]', "[]", "scenarios.q: mix must have 1 or more entries"),
        ('[{ name = "a" }]', '{ name = "a" }', "scenarios.q.mix: must be a list, in [ ]"),
        ("{ name =", "{ weight = 2, nme =", "scenarios.q.mix[#1].nme: unknown key; did you mean 'name'?"),
        ('{ name = "a" }', '{ name = "A b" }', f'scenarios.q.mix[A b].name = "A b": {NAME}'),
        (
            '{ name = "a" }',
            '{ name = "a" }, { name = "a" }',
            "scenarios.q: two calls of the mix have the same name",
        ),
        (
            '{ name = "a" }',
            '{ name = "a", prompt_tokens = { kind = "uniform", min = 5, max = 2 } }',
            "scenarios.q.mix[a].prompt_tokens: max must not be below min",
        ),
        (
            '{ name = "a" }',
            '{ name = "a", prompt_tokens = { kind = "fixed", tokens = 0 } }',
            "scenarios.q.mix[a].prompt_tokens.tokens = 0: must be greater than 0",
        ),
        (
            '{ name = "a" }',
            '{ name = "a", prompt_tokens = 64 }',
            "scenarios.q.mix[a].prompt_tokens = 64: must be a table with a kind: "
            "one of 'fixed', 'uniform', 'normal', 'lognormal', 'empirical'",
        ),
        (
            '{ name = "a" }',
            '{ name = "a", temperature = 3 }',
            "scenarios.q.mix[a].temperature = 3: must be 2 or less",
        ),
        ('"q"\n', '"qq"\n', "default_scenario = \"qq\": no such scenario; did you mean 'q'?"),
        (
            'title = "t"',
            'title = "t"\ntarget = "sandbx"',
            "scenarios.q.target = \"sandbx\": no such target; did you mean 'sandbox'?",
        ),
        ("[scenarios.q]", '[scenarios."../q"]', f'scenarios."../q": the name {NAME}'),
    ],
)
def test_error_names_the_key_and_the_expected_value(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert old in GOOD
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD.replace(old, new, 1))
    assert line in [part.strip() for part in said(path).removeprefix("F: ").splitlines()]


@pytest.mark.parametrize(
    ("added", "line"),
    [
        (
            '[scenarios.q.checks]\n"ttft.p96" = "< 3 s"',
            'scenarios.q.checks."ttft.p96" = "< 3 s": no such metric; did you mean \'ttft.p99\'?',
        ),
        (
            '[scenarios.q.checks]\n"in_flight.max" = [1]',
            'scenarios.q.checks."in_flight.max" = [1]: must be a comparison, such as ">= 55"',
        ),
        (
            "[targets.sandbox.sandbox.faults]\nstal = 0.1",
            "targets.sandbox.sandbox.faults.stal: unknown key; did you mean 'stall'?",
        ),
        (
            "[targets.sandbox.sandbox.faults]\nstall = 5",
            "targets.sandbox.sandbox.faults.stall = 5: must be 1 or less",
        ),
        (
            "[targets.sandbox.sandbox.faults]\nstall = 0.6\nhtml_502 = 0.6",
            "targets.sandbox.sandbox.faults: the rates of html_502, stall add up to 1.2; at most 1, because "
            "a request has at most one fault",
        ),
        (
            "[targets.sandbox.sandbox.faults]\ntls_untrusted = 0.1",
            "targets.sandbox: tls_untrusted in sandbox.faults needs a base_url with https",
        ),
        (
            "[targets.sandbox.sandbox.limits]\nrequests = { limit = 3, perod_s = 5 }",
            "targets.sandbox.sandbox.limits.requests.perod_s: unknown key; did you mean 'period_s'?",
        ),
        (
            '[scenarios.q.retry]\npolicy = "retry-after"',
            'scenarios.q.retry.policy = "retry-after": must be one of ' + POLICY_NAMES,
        ),
        (
            '[scenarios.q.checks]\n"ttft.p95" = 1979-05-27',
            'scenarios.q.checks."ttft.p95" = 1979-05-27: must be a comparison, such as "< 800 ms"',
        ),
        (
            '[scenarios.q.retry]\npolicy = "litellm"\ncap_s = 5.0',
            "scenarios.q.retry: policy litellm waits and retries as the SDK, so it can't have cap_s",
        ),
        (
            "[scenarios.q.retry]\npolicy = 3",
            "scenarios.q.retry.policy = 3: must be one of " + POLICY_NAMES,
        ),
        (
            '[targets.x]\nbase_url = "http://h:99999/v1"',
            'targets.x.base_url = "http://h:99999/v1": must look like https://api.example.com/v1',
        ),
        (
            '[targets.x]\nbase_url = "http://a b/v1"',
            'targets.x.base_url = "http://a b/v1": must not contain spaces or control characters',
        ),
        (
            '[targets.x]\nbase_url = "api.example.com"',
            'targets.x.base_url = "api.example.com": must look like https://api.example.com/v1',
        ),
        (
            '[targets.x]\nbase_url = "https://api.example.com/v1"\n[targets.x.sandbox]\nseed = 1',
            "targets.x: a sandbox runs on this machine: base_url must use 127.0.0.1 or localhost",
        ),
    ],
)
def test_error_in_an_added_table_is_named(tmp_path: Path, added: str, line: str) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD + added)
    assert said(path) == f"F: {line}"


@pytest.mark.parametrize(
    ("added", "line"),
    [
        (
            'base_url = "https://u:sk-1234567@api.example.com/v1"',
            "targets.x.base_url: must not contain a user name or password; set api_key_env instead",
        ),
        (
            'base_url = "https://api.example.com/v1?key=sk-1234567#top"',
            "targets.x.base_url: must not have a fragment",
        ),
        (
            'base_url = "https://api.example.com/v1?key=sk-1234567"\nquery = { key = "sk-1234567" }',
            "targets.x: the query of base_url: key appears twice",
        ),
        (
            'base_url = "https://api.example.com/v1"\nquery = { key = 1234567 }',
            'targets.x.query: key must be text in quotes, or { env = "NAME" }',
        ),
        (
            'base_url = "https://api.example.com/v1"\nheaders = { x-key = { envy = "1234567" } }',
            'targets.x.headers: x-key must be text in quotes, or { env = "NAME" }',
        ),
        (
            'base_url = "https://api.example.com/v1"\nheaders = { x-key = "sk-1234567\\n" }',
            "targets.x.headers: the value of x-key must consist of printable ASCII characters",
        ),
        (
            'base_url = "https://api.example.com/v1"\nheaders = { a = "sk-1", A = "sk-2" }',
            "targets.x.headers: a appears twice",
        ),
        (
            'base_url = "https://api.example.com/v1"\nheaders = { Host = "sk-1234567" }',
            "targets.x.headers: 'Host' is set by bltybench itself",
        ),
        (
            'base_url = "https://api.example.com/v1"\napi_key_env = "A"\n'
            'api_key_header = "api-key"\nheaders = { Api-Key = "sk-1234567" }',
            "targets.x: headers and api_key_env set the same header: keep one of them",
        ),
        (
            'base_url = "https://api.example.com/v1"\napi_key_header = "api key"',
            'targets.x.api_key_header = "api key": is not the name of a header; use for example "api-key" or '
            '"Authorization: Bearer"',
        ),
        (
            'base_url = "https://api.example.com/v1"\napi_key_env = "sk-1234567"',
            "targets.x.api_key_env: must be the name of an environment variable, never the key itself",
        ),
        (
            'base_url = "https://api.example.com/v1"\napi_key = "sk-1234567"',
            "targets.x.api_key: a key must not be in a file: name its environment variable in api_key_env",
        ),
    ],
)
def test_key_in_the_file_is_not_repeated(tmp_path: Path, added: str, line: str) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD + "[targets.x]\n" + added)
    assert said(path) == f"F: {line}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "users = 2",
            "users 2",
            "F: line 8, column 7: Expected '=' after a key in a key/value pair\n"
            "  → write it as key = value; a table is headed [name]",
        ),
        (
            'title = "t"',
            "title = t",
            "F: line 5, column 9: Invalid value\n  → text goes in quotes; numbers, true and false do not",
        ),
        (
            'title = "t"',
            'title = "t',
            "F: line 5, column 11: Illegal character '\\n'\n"
            "  → close the quotes on the same line, or remove the character",
        ),
        (
            "users = 2",
            "users = 2\nusers = 3",
            "F: line 9, column 10: Cannot overwrite a value\n  → the key appears twice: remove one",
        ),
        ("}]\n", "}", "F: line 10, column 22: Unclosed array\n  → close the bracket"),
    ],
)
def test_toml_error_is_named_with_its_location(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD.replace(old, new, 1))
    assert said(path) == message


def test_toml_error_does_not_repeat_the_line(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD + "[targets.x]\napi_key = sk-1234567\n")
    assert "sk-" not in said(path)


def test_all_errors_are_listed_together(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(
        GOOD.replace("users = 2", "users = 0").replace("= 60", "= 0").replace('title = "t"', 'target = "x"')
    )
    assert said(path) == (
        "F: 4 mistakes\n"
        "  scenarios.q.title: is missing\n"
        "  scenarios.q.users = 0: must be greater than 0\n"
        "  scenarios.q.arrivals.rate_per_min = 0: must be greater than 0\n"
        '  scenarios.q.target = "x": no such target; known: sandbox'
    )


def test_list_of_errors_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD + "".join(f"modl{i} = 1\n" for i in range(14)))
    lines = said(path).splitlines()
    assert lines[0] == "F: 14 mistakes"
    assert len(lines) == 12
    assert lines[-1] == "  … and 4 more"


def test_long_or_odd_value_is_shortened_and_escaped(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD + f'[scenarios.q.retry]\npolicy = "\\u001b[2J{"x" * 500}"')
    message = said(path)
    assert "\x1b" not in message
    assert len(message) < 200 + len(POLICY_NAMES)


def test_unreadable_files_are_reported(tmp_path: Path) -> None:
    assert said(tmp_path) == "F: is a folder\n  → name the scenarios file in it"
    missing = tmp_path / "nothing.toml"
    assert said(missing) == f"F: scenarios file not found\n  → looked in {tmp_path}"
    latin = tmp_path / "latin.toml"
    latin.write_bytes("title = 'é'".encode("latin-1"))
    assert said(latin) == "F: not UTF-8 text\n  → save the file as UTF-8"
    empty = tmp_path / "empty.toml"
    empty.touch()
    assert said(empty) == "F: 2 mistakes\n  targets: is missing\n  scenarios: is missing"


def test_tables_of_the_wrong_shape_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text("targets = 3\nscenarios = []\n")
    assert said(path) == "F: 2 mistakes\n  targets = 3: must be a table\n  scenarios: must be a table"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("users = 2", f"users = {'9' * 5000}", "F: line 8: a number has too many digits"),
        ("users = 2", f"users = {'9' * 400}", "scenarios.q.users"),
        ('title = "t"', f"title = {'[' * 2000}{']' * 2000}", "F: line 5: values are nested too deeply"),
        (
            "duration_s = 10",
            "duration_s = 1e18",
            "= 1e+18: must be 31,622,400 or less",
        ),
        ("duration_s = 10", "duration_s = 1e-320", "must be 1e-09 or more"),
        ("users = 2", "users = 1_000_000_000", "scenarios.q.users = 1000000000: must be 1,000,000 or less"),
        ("= 60", "= 1e-320", "must be 1e-09 or more"),
        (
            '{ name = "a" }',
            '{ name = "a", max_tokens = { kind = "fixed", tokens = 1_000_000_000 } }',
            "must be 10,000,000 or less",
        ),
        ('{ name = "a" }', '{ name = "\\u202ea" }', "scenarios.q.mix[a].name"),
    ],
)
def test_unusable_numbers_and_names_give_one_message(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    text = said(path)
    assert message in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_schedule_without_an_end_is_rejected_before_it_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(GOOD.replace("= 10", "= 31_000_000").replace("= 60", "= 6_000_000"))
    resolved = resolve(load_book(path), "q")
    with pytest.raises(UserError, match="more than 100,000,000 requests would be sent in"):
        make_plan(resolved.name, resolved.scenario, resolved.target_name, resolved.target, resolved.base_dir)


def test_message_shows_characters_that_a_terminal_would_obey() -> None:
    error = UserError("no file at a\x1b[2J\tb\u2028c", where="é\x07", remedy="create it\nor not")
    assert str(error) == "é\\x07: no file at a\\x1b[2J\\tb\\u2028c\n  → create it\nor not"
