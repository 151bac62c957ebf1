from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_cli import bltybench, free_port, listens, remote_target, sandbox_target, write_book
from support_sandbox import running_sandbox

from bltybench.scenario.target import SANDBOX_KEY, SANDBOX_RESTRICTED_KEY, SandboxKey

STATUSES = {"holds", "broken", "unclear", "skipped"}
SECRET = "sk-test-0123456789-not-to-be-seen"


def test_check_starts_the_sandbox_and_finds_nothing_broken(tmp_path: Path) -> None:
    port = free_port()
    write_book(tmp_path, sandbox_target(port))
    done = bltybench("check", "--target", "mine", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert {one["name"]: one["observed"] for one in found["findings"] if one["status"] == "broken"} == {}
    assert done.returncode == 0
    by_name = {(one["group"], one["name"]): one["status"] for one in found["findings"]}
    assert by_name["errors", "key without permission"] == "holds"
    assert by_name["rate limits", "a 429 is met"] == "holds"
    assert by_name["rate limits", "waiting helps"] == "holds"
    assert "Started the sandbox" in done.stderr
    assert not listens(port)


def test_json_output_matches_the_documented_format(tmp_path: Path) -> None:
    write_book(tmp_path, sandbox_target(free_port()))
    done = bltybench("check", "--target", "mine", "--json", "--no-spend-429", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert set(found) == {
        "format_version",
        "target",
        "base_url",
        "model",
        "started",
        "requests_sent",
        "passed",
        "counts",
        "works",
        "fails",
        "keys",
        "findings",
    }
    broken = [one for one in found["findings"] if one["status"] == "broken"]
    assert broken == []
    assert (found["format_version"], found["target"], found["passed"]) == (1, "mine", True)
    assert found["requests_sent"] == 12
    assert (found["fails"], found["keys"]) == ([], {})
    assert set(found["counts"]) == STATUSES
    assert sum(found["counts"].values()) == len(found["findings"])
    for one in found["findings"]:
        assert set(one) == {"group", "name", "status", "expected", "observed", "remedy"}
        assert one["status"] in STATUSES


def test_the_table_ends_with_the_counts(tmp_path: Path) -> None:
    write_book(tmp_path, sandbox_target(free_port()))
    done = bltybench("check", "--target", "mine", "--no-spend-429", cwd=tmp_path)
    assert done.returncode == 0
    last = done.stdout.strip().splitlines()[-1]
    assert " 0 broken" in last
    assert "12 requests" in last
    assert "\x1b" not in done.stdout


def test_running_sandbox_is_used_and_not_stopped(tmp_path: Path) -> None:
    with running_sandbox() as sandbox:
        port = int(sandbox.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
        write_book(tmp_path, sandbox_target(port))
        done = bltybench("check", "--target", "mine", "--no-spend-429", cwd=tmp_path)
        assert "Started the sandbox" not in done.stderr
        assert listens(port)
    # The sandbox has no limits, but the target documents 12. The check must notice.
    assert done.returncode == 1
    assert "X-RateLimit-Limit" in done.stdout


def test_maximum_spend_is_printed_before_sending(tmp_path: Path) -> None:
    key = SandboxKey(name="mine", key=SECRET)
    with running_sandbox(keys=(key,)) as sandbox:
        write_book(tmp_path, remote_target(sandbox.base_url))
        done = bltybench("check", "--target", "mine", cwd=tmp_path, env={"MINE_KEY": SECRET})
    first = done.stderr.splitlines()[0]
    assert "at most 15 requests" in first
    assert "tokens" in first
    assert "not provoked" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_restricted_key_enables_the_403_check(tmp_path: Path) -> None:
    with running_sandbox() as sandbox:
        write_book(tmp_path, remote_target(sandbox.base_url))
        env = {"MINE_KEY": SANDBOX_KEY, "MINE_KEY_RESTRICTED": SANDBOX_RESTRICTED_KEY}
        done = bltybench(
            "check", "--target", "mine", "--model", "gpt-4o-mini", "--json", cwd=tmp_path, env=env
        )
    by_name = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert by_name["key without permission"]["status"] == "holds"
    assert SANDBOX_RESTRICTED_KEY not in done.stdout + done.stderr


def test_rejected_key_names_its_environment_variable(tmp_path: Path) -> None:
    with running_sandbox() as sandbox:
        write_book(tmp_path, remote_target(sandbox.base_url))
        done = bltybench("check", "--target", "mine", "--json", cwd=tmp_path, env={"MINE_KEY": SECRET})
    assert done.returncode == 2
    assert "refuses the key in MINE_KEY" in done.stderr
    assert done.stdout == ""
    assert SECRET not in done.stderr


def test_missing_key_names_its_environment_variable(tmp_path: Path) -> None:
    write_book(tmp_path, remote_target("http://127.0.0.1:9/v1"))
    done = bltybench("check", "--target", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "MINE_KEY is not set" in done.stderr


def test_unknown_model_suggests_similar_ones(tmp_path: Path) -> None:
    write_book(tmp_path, sandbox_target(free_port()))
    done = bltybench("check", "--target", "mine", "--model", "deepseek-chatt", "--no-spend-429", cwd=tmp_path)
    assert done.returncode == 1
    assert "deepseek-chatt is not listed; similar: deepseek-chat" in done.stdout


@pytest.mark.parametrize("spend", [(), ("--spend-429",)])
def test_too_small_budget_is_refused_before_sending(tmp_path: Path, spend: tuple[str, ...]) -> None:
    port = free_port()
    budget = "[targets.mine.budget]\nrequests = 11\n[targets.mine.limits]\nrequests_per_min = 60\n"
    write_book(tmp_path, remote_target(f"http://127.0.0.1:{port}/v1", budget))
    done = bltybench("check", "--target", "mine", *spend, cwd=tmp_path, env={"MINE_KEY": SECRET})
    assert done.returncode == 2
    assert "the budget of target 'mine' is 11" in done.stderr
