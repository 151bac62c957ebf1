"""The preflight ends a run before its load for each mistake, and the first calls end it if all fail alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support_locust import LOCUSTFILES, free_port, run_locust, write_scenarios
from support_sandbox import running_sandbox

from bltybench.errors import UserError
from bltybench.load.preflight import Subject, preflight
from bltybench.scenario.target import SANDBOX_KEY, SANDBOX_SECOND_KEY, Target

KEY = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY}
SHORT = 'duration_s = 2\nusers = 4\narrivals = { kind = "closed", think_s = 0.1 }'


@contextmanager
def serving(status: int) -> Iterator[tuple[str, list[str]]]:
    """Serve ``status`` for each POST and 404 for each GET. Yield the base URL and the requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._respond(status)

        def _respond(self, code: int) -> None:
            requests.append(self.command)
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("host", "DNS: the name no-such-host.invalid does not resolve"),
        ("scheme", "TLS: "),
        ("port", "connection refused: nothing listens there"),
        ("key", "the API refuses the key in BLTYBENCH_TEST_KEY (401"),
        ("model", "the API has no model 'deepseek-chatt' (404"),
        ("version", "base_url has no /v1"),
        ("probe's key", "the API refuses the key in BLTYBENCH_TEST_KEY (401"),
    ],
)
def test_mistake_ends_the_run_before_the_load(mistake: str, message: str, tmp_path: Path) -> None:
    key, locustfile, args = SANDBOX_KEY, LOCUSTFILES / "mixed.py", ["--scenario", "chat"]
    with running_sandbox() as sandbox:
        base_url = sandbox.base_url
        if mistake == "host":
            base_url, target = "https://no-such-host.invalid/v1", "[targets.here.budget]\nrequests = 9\n"
        else:
            target = ""
        if mistake == "scheme":
            base_url = base_url.replace("http:", "https:")
        elif mistake == "port":
            base_url = f"http://127.0.0.1:{free_port()}/v1"
        elif mistake == "version":
            base_url = base_url.removesuffix("/v1")
        elif "key" in mistake:
            key = "sk-not-to-be-seen-0123456789"
        path = write_scenarios(tmp_path, base_url, SHORT, target=target)
        if mistake == "model":
            path.write_text(path.read_text().replace('"deepseek-chat"', '"deepseek-chatt"'))
        if mistake == "probe's key":
            locustfile = LOCUSTFILES / "limits.py"
        done = run_locust(locustfile, *args, cwd=tmp_path, BLTYBENCH_TEST_KEY=key)
    assert done.code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert "sk-not-to-be-seen" not in done.output
    if mistake == "probe's key":  # a request before the probe could count against the limits that it measures
        assert "Preflight: the server accepts a connection" in done.output
        assert len(done.attempts) == 1
    else:
        assert not any((tmp_path / "reports").iterdir())
    if mistake == "model":
        assert "choose a model that the API lists: deepseek-chat" in done.output


def test_server_without_a_list_of_models_passes_and_20_like_failures_end_the_run(tmp_path: Path) -> None:
    with serving(500) as (base_url, requests):
        write_scenarios(tmp_path, base_url, SHORT.replace("duration_s = 2", "duration_s = 30"))
        done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, **KEY)
    assert "Preflight: the API responds, one answer of at most one token with 500" in done.output
    assert "the first 20 calls all failed alike: server error 500" in done.output
    assert done.code == 1, done.output
    # Outcomes are recorded in batches, at least one per second.
    assert 20 <= len(done.attempts) <= 60
    assert requests.count("POST") == len(done.attempts) + 1
    summary = json.loads(done.run.summary_json.read_bytes())
    assert (summary["ended"], summary["verdict"]) == ("first calls failed", "nothing succeeded")


def test_refusals_do_not_end_the_run_early(tmp_path: Path) -> None:
    with serving(429) as (base_url, _):
        write_scenarios(tmp_path, base_url, SHORT)
        done = run_locust(LOCUSTFILES / "mixed.py", "--no-preflight", cwd=tmp_path, **KEY)
    assert "Preflight" not in done.output
    assert len(done.attempts) > 24
    assert done.code == 1, done.output


def test_each_key_and_model_of_a_list_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_sandbox() as sandbox:
        monkeypatch.setenv("A_KEY", SANDBOX_KEY)
        monkeypatch.setenv("B_KEY", "sk-another-0123")
        target = Target.model_validate({"base_url": sandbox.base_url, "keys": ["A_KEY", "B_KEY"]})
        subject = Subject(
            name="pool", target=target, models=["deepseek-chat"], can_request=True, can_answer=True
        )
        with pytest.raises(UserError, match=r"the API refuses the key in B_KEY \(401") as caught:
            preflight(subject)
        assert "sk-another" not in str(caught.value)
        monkeypatch.setenv("B_KEY", SANDBOX_SECOND_KEY)
        assert preflight(subject) == "the API accepts the key and lists the model"
        with pytest.raises(UserError, match="the API has no model 'deepseek-cat'"):
            preflight(replace(subject, models=["deepseek-chat", "deepseek-cat"]))
