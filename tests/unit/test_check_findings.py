from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from support_fakeapi import KEY, LIMIT, MODEL, FakeApi, chunk, error, sse

from bltybench.check.capabilities import capabilities
from bltybench.check.client import Client
from bltybench.check.drain import drain
from bltybench.check.evidence import FIXED_REQUESTS, MODELS, WRONG_KEY, Evidence
from bltybench.check.finding import CheckFinding, Checkup, Status
from bltybench.check.gather import gather
from bltybench.check.request_keys import MAX_REPEATS
from bltybench.check.run import judge
from bltybench.scenario.api.access import read_access
from bltybench.scenario.target import Target

TARGET = Target(base_url="http://127.0.0.1:9/v1", api_key_env="UNIT_KEY")
ACCESS = read_access(
    "t", {"UNIT_KEY": SecretStr(KEY)}, key_header=TARGET.api_key_header, headers={}, query={}
)
BARRED = "sk-unit-a-barred-key"


def gathered(api: FakeApi, *, model: str = MODEL, spend: bool = True) -> tuple[Evidence, Client]:
    api.keys_barred = {BARRED}
    client = Client(TARGET, ACCESS, transport=api.transport())
    found = gather(client, model, client.get(MODELS), keyed=True, restricted=(BARRED, model))
    found.limit_requests = LIMIT
    if spend:
        drain(client, found, limit=LIMIT, at_once=4, tell=lambda _line: None)
    client.close()
    return found, client


def findings(api: FakeApi, **more: Any) -> dict[str, CheckFinding]:
    made = judge(gathered(api, **more)[0])
    by_name = {f"{finding.group}: {finding.name}": finding for finding in made}
    assert len(by_name) == len(made), "two findings have one name"
    return by_name


def broken(found: dict[str, CheckFinding]) -> list[str]:
    return [name for name, finding in found.items() if finding.status is Status.BROKEN]


def test_correct_api_has_no_broken_finding() -> None:
    api = FakeApi()
    found = findings(api)
    assert {
        name: finding.observed for name, finding in found.items() if finding.status is not Status.HOLDS
    } == {}


def test_number_of_fixed_requests_matches_the_announcement() -> None:
    _, client = gathered(FakeApi(), spend=False)
    assert client.sent == FIXED_REQUESTS


def test_no_429_is_provoked_by_default() -> None:
    api = FakeApi()
    found = findings(api, spend=False)
    assert api.remaining == LIMIT - 3
    assert found["errors: over the limit"].status is Status.SKIPPED
    assert found["rate limits: a 429 is met"].status is Status.SKIPPED
    assert broken(found) == []


def _set(kind: str, *path: str | int, to: Any) -> Callable[[FakeApi], None]:
    """Make an API whose response of ``kind`` has another value at ``path``."""

    def spoil(api: FakeApi) -> None:
        def edit(of: str, body: dict[str, Any]) -> dict[str, Any]:
            if of == kind:
                body = json.loads(json.dumps(body))
                place: Any = body
                for step in path[:-1]:
                    place = place[step]
                place[path[-1]] = to
            return body

        api.edit = edit

    return spoil


def _header(name: str, value: str | None) -> Callable[[FakeApi], None]:
    def spoil(api: FakeApi) -> None:
        def headers(good: dict[str, str]) -> dict[str, str]:
            others = {key: finding for key, finding in good.items() if key != name}
            return others if value is None else {**others, name: value}

        api.headers = headers

    return spoil


def _stream(*events: Any, done: bool = True) -> Callable[[FakeApi], None]:
    def spoil(api: FakeApi) -> None:
        api.stream_body = lambda: sse(list(events), done=done)

    return spoil


def _error(kind: str, status: int, error_type: str, **more: Any) -> Callable[[FakeApi], None]:
    def spoil(api: FakeApi) -> None:
        api.errors[kind] = error(status, error_type, "Something.", **more)

    return spoil


ROLE = chunk({"role": "assistant", "content": ""})
TEXT = chunk({"content": "ready."})
STOP = chunk({}, "stop")
USAGE = chunk(None, usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11})
LIMITS = "rate limits: "


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_set("models", "object", to="lists"), {"models: list has its shape"}),
        (_set("models", "data", 0, "owned_by", to=None), {"models: list has its shape"}),
        (_set("models", "data", to=[]), {"models: list has its shape"}),
        (_set("plain", "id", to="cmpl-1"), {"completion: id"}),
        (_set("plain", "object", to="completion"), {"completion: object"}),
        (_set("plain", "created", to=1_000), {"completion: created"}),
        (_set("plain", "created", to="now"), {"completion: created"}),
        (_set("plain", "model", to=None), {"completion: model"}),
        (_set("plain", "choices", 0, "message", "role", to="user"), {"completion: choices"}),
        (_set("plain", "choices", 0, "message", "content", to=""), {"completion: choices"}),
        (_set("plain", "usage", to=None), {"completion: usage"}),
        (_set("plain", "usage", "total_tokens", to=99), {"completion: usage"}),
        (_set("plain", "usage", "prompt_tokens", to="9"), {"completion: usage", "streaming: same usage"}),
        (_set("plain", "usage", "prompt_tokens", to=True), {"completion: usage", "streaming: same usage"}),
        (_stream(ROLE, TEXT, STOP, USAGE, done=False), {"streaming: [DONE]"}),
        (_stream(ROLE, TEXT, STOP, USAGE, "[DONE]", TEXT, done=False), {
            "streaming: [DONE]",
            "streaming: finish_reason",
            "streaming: include_usage",
        }),
        (_stream(TEXT, STOP, USAGE), {"streaming: role first"}),
        (_stream(ROLE, STOP, USAGE), {"streaming: text in deltas"}),
        (_stream(ROLE, TEXT, USAGE), {"streaming: finish_reason"}),
        (_stream(ROLE, TEXT, STOP), {"streaming: include_usage"}),
        (_stream(ROLE, TEXT, STOP, USAGE | {"choices": [{}]}), {
            "streaming: include_usage",
            "streaming: finish_reason",
        }),
        (_stream(ROLE, TEXT, STOP, USAGE | {"id": "chatcmpl-2"}), {"streaming: chunks"}),
        (_stream(ROLE, "{not json", TEXT, STOP, USAGE), {"streaming: chunks"}),
        (_stream(ROLE, TEXT, STOP, {"error": {"message": "overloaded"}}), {
            "streaming: chunks",
            "streaming: include_usage",
        }),
        (_error("bad JSON", 500, "server_error"), {"errors: broken JSON"}),
        (_error("no messages", 422, "invalid_request_error"), {"errors: messages missing"}),
        (_error("wrong type", 400, "bad_request"), {"errors: messages of a wrong type"}),
        (_error("no key", 403, "authentication_error"), {"errors: no key"}),
        (_error("wrong key", 401, "authentication_error", code="bad_key"), {"errors: wrong key"}),
        (_error("forbidden", 401, "authentication_error"), {"errors: key without permission"}),
        (_error("no model", 400, "invalid_request_error"), {"errors: unknown model"}),
        (_error("no route", 404, "invalid_request_error"), {"errors: unknown endpoint"}),
        (_header("X-RateLimit-Limit", "61"), {LIMITS + "limit as documented"}),
        (_header("X-RateLimit-Limit", "sixty"), {LIMITS + "X-RateLimit-Limit"}),
        (_header("X-RateLimit-Remaining", "-1"), {
            LIMITS + "X-RateLimit-Remaining",
            LIMITS + "nothing remains",
        }),
        (_header("X-RateLimit-Remaining", "7"), {LIMITS + "counts down by one", LIMITS + "nothing remains"}),
        (_header("X-RateLimit-Reset", "30"), {LIMITS + "X-RateLimit-Reset"}),
        (_header("X-RateLimit-Reset", "1795000000000"), {LIMITS + "X-RateLimit-Reset"}),
        (_header("X-RateLimit-Reset", "4000000000"), {LIMITS + "X-RateLimit-Reset"}),
        (_header("X-RateLimit-Reset", None), {LIMITS + "X-RateLimit-Reset", LIMITS + "on streams too"}),
    ],
)  # fmt: skip
def test_single_fault_breaks_only_its_findings(spoil: Callable[[FakeApi], None], expected: set[str]) -> None:
    api = FakeApi()
    spoil(api)
    assert set(broken(findings(api))) == expected


def _refusal(**headers: str) -> Callable[[FakeApi], None]:
    def spoil(api: FakeApi) -> None:
        def refuse() -> httpx.Response:
            answer = api.good_refusal()
            answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
            return answer

        api.refuse = refuse

    return spoil


@pytest.mark.parametrize("value", ["soon", "1.5", "-1", "1795000000"])
def test_unusable_retry_after_is_broken(value: str) -> None:
    api = FakeApi()
    _refusal(Retry_After=value)(api)
    found = findings(api)
    assert broken(found) == [LIMITS + "Retry-After"]
    assert found[LIMITS + "waiting helps"].status is Status.SKIPPED


def test_too_short_retry_after_is_broken() -> None:
    api = FakeApi()

    def refuse() -> httpx.Response:
        answer = api.good_refusal()
        api.remaining = 0
        return answer

    api.refuse = refuse
    assert broken(findings(api)) == [LIMITS + "waiting helps"]


@pytest.mark.parametrize(
    ("lefts", "ahead_s", "moved_s", "status"),
    [
        ((3, LIMIT - 1, LIMIT - 2), 20, 4, Status.HOLDS),
        ((3, LIMIT - 1, 1), 20, 4, Status.UNCLEAR),
        ((3, LIMIT - 1, LIMIT - 2), 20, 0, Status.BROKEN),
        ((LIMIT - 1, LIMIT - 1, LIMIT - 2), 2, 4, Status.HOLDS),
        ((LIMIT - 1, LIMIT - 1, LIMIT - 2), 2, 0, Status.BROKEN),
        # Far from its reset, a limit that moves its reset with each request should still count down.
        ((LIMIT - 1, LIMIT - 1, LIMIT - 2), 20, 4, Status.BROKEN),
    ],
)
def test_window_reset_within_a_second_is_not_a_fault(
    lefts: tuple[int, int, int], ahead_s: int, moved_s: int, status: Status
) -> None:
    api, answered = FakeApi(), iter(range(100))
    now = int(time.time())

    def quota() -> dict[str, str]:
        number = next(answered)
        reset = now + ahead_s + (moved_s if number else 0)
        headers = {"Limit": str(LIMIT), "Remaining": str(lefts[min(number, 2)]), "Reset": str(reset)}
        return {f"X-RateLimit-{name}": value for name, value in headers.items()}

    _replace(api, "quota", quota)
    found = findings(api, spend=False)
    assert found[LIMITS + "counts down by one"].status is status, found[LIMITS + "counts down by one"]


def _replace(api: FakeApi, method: str, by: Callable[..., Any]) -> None:
    setattr(api, method, by)


def test_limit_that_never_refuses_is_broken_after_bounded_requests() -> None:
    api = FakeApi()
    api.remaining = 10_000
    _replace(api, "quota", dict)
    evidence, client = gathered(api)
    assert evidence.drained == 2 * LIMIT
    assert client.sent == FIXED_REQUESTS + 2 * LIMIT
    by_name = {finding.name: finding for finding in judge(evidence)}
    assert by_name["a 429 is met"].status is Status.BROKEN
    assert by_name["over the limit"].status is Status.SKIPPED
    assert by_name["error bodies"].status is Status.HOLDS
    evidence.drained_s = evidence.window_s
    by_name = {finding.name: finding for finding in judge(evidence)}
    assert by_name["a 429 is met"].status is Status.UNCLEAR


def test_ignored_max_tokens_is_broken() -> None:
    api = FakeApi()
    good = api.good_plain

    def too_long(max_tokens: int) -> dict[str, Any]:
        body = good(max_tokens)
        if max_tokens == 5:
            body["usage"] = {"prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209}
        return body

    _replace(api, "good_plain", too_long)
    assert broken(findings(api)) == ["completion: max_tokens"]


def test_error_that_repeats_the_key_is_broken() -> None:
    api = FakeApi()
    api.errors["wrong key"] = error(
        401, "authentication_error", f"Incorrect API key provided: {WRONG_KEY}", code="invalid_api_key"
    )
    assert broken(findings(api)) == ["errors: keys stay secret"]


@pytest.mark.parametrize(
    "body", [b"<html>no</html>", b"{}", b'{"error": "no"}', b'{"error": {"message": "no", "type": 7}}', b"[]"]
)
def test_error_with_another_shape_is_broken(body: bytes) -> None:
    api = FakeApi()
    api.errors["no model"] = httpx.Response(404, content=body)
    assert broken(findings(api)) == ["errors: unknown model", "errors: error bodies"]


def test_unlisted_model_suggests_similar_ones() -> None:
    found = findings(FakeApi(), model="deepseek-chatt", spend=False)
    assert "deepseek-chat" in found["models: the model is there"].observed
    assert found["completion: a completion is made"].status is Status.BROKEN
    assert found["completion: usage"].status is Status.SKIPPED


def test_other_header_names_are_listed() -> None:
    api = FakeApi()
    _replace(api, "quota", lambda: {"x-ratelimit-limit-requests": "60"})
    assert "x-ratelimit-limit-requests" in findings(api)[LIMITS + "X-RateLimit-Limit"].observed


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"null",
        b"[[]]",
        b'{"choices": {}}',
        b'{"choices": [null], "usage": []}',
        b'{"id": 1, "choices": [{"message": 3}], "usage": {"total_tokens": 1e999}}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"data: {}\n\ndata: []\n\ndata:\n\n",
        b'{"error": {"message": {"deep": []}, "type": null}}',
    ],
)
@pytest.mark.parametrize("status", [200, 204, 302, 400, 418, 503])
def test_nonsense_responses_give_findings_not_exceptions(nonsense: bytes, status: int) -> None:
    client = Client(
        TARGET, ACCESS, transport=httpx.MockTransport(lambda _: httpx.Response(status, content=nonsense))
    )
    evidence = gather(client, MODEL, client.get(MODELS), keyed=True, restricted=None)
    assert broken({finding.name: finding for finding in judge(evidence)})


def test_dropped_connections_give_findings() -> None:
    def hang_up(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("Server disconnected", request=request)

    client = Client(TARGET, ACCESS, transport=httpx.MockTransport(hang_up))
    evidence = gather(client, MODEL, client.get(MODELS), keyed=True, restricted=None)
    found = {finding.name: finding for finding in judge(evidence)}
    assert "disconnected" in found["a completion is made"].observed


def test_findings_contain_no_keys_or_control_characters() -> None:
    api = FakeApi()
    evil = f"\x1b[31mred\x07 {KEY} \u202egnp.exe\r\n\tend " + "x" * 10_000
    for kind in ("no model", "bad JSON", "forbidden"):
        api.errors[kind] = error(400, evil, BARRED + evil if kind == "forbidden" else evil, code=evil)
    api.edit = lambda kind, body: body | {"id": evil, "object": evil, "model": evil}
    api.stream_body = lambda: sse([chunk({"role": evil, "content": evil}) | {"id": evil, "object": evil}])
    api.headers = lambda good: dict.fromkeys(good, KEY)
    evidence, _ = gathered(api, spend=False)
    made = Checkup(
        findings=judge(evidence),
        target="unit",
        base_url=TARGET.base_url,
        model=MODEL,
        started="",
        requests_sent=1,
    )
    written = json.loads(made.to_json())
    text = json.dumps(written, ensure_ascii=False)
    assert "[redacted]" in text
    for secret in (KEY, BARRED, WRONG_KEY):
        assert secret not in text
    for finding in written["findings"]:
        assert finding["observed"].isprintable() or "\n" in finding["observed"]
        assert len(finding["observed"]) < 500
        assert "\x1b" not in finding["observed"]
        assert "\u202e" not in finding["observed"]


def test_check_passes_only_without_broken_findings() -> None:
    def finding(status: Status) -> CheckFinding:
        return CheckFinding(group="g", name="n", status=status, expected="e", observed="o")

    def made(*statuses: Status) -> Checkup:
        found = [finding(status) for status in statuses]
        return Checkup(findings=found, target="t", base_url="u", model="m", started="s", requests_sent=1)

    assert made(Status.HOLDS, Status.UNCLEAR, Status.SKIPPED).passed
    assert not made(Status.HOLDS, Status.BROKEN).passed
    assert made(Status.HOLDS, Status.HOLDS, Status.BROKEN).counts == {
        "holds": 2,
        "broken": 1,
        "unclear": 0,
        "skipped": 0,
    }


def strict(api: FakeApi, *, helps: bool = True) -> httpx.MockTransport:
    """Return a transport to an API that rejects max_tokens, a temperature, and stream_options."""

    def handle(request: httpx.Request) -> httpx.Response:
        try:
            body = json.loads(request.content)
        except ValueError:
            return api(request)
        for key in ("max_tokens", "temperature", "stream_options"):
            if key in body:
                return error(400, "invalid_request_error", f"Unsupported parameter: '{key}'.")
        if not helps:
            return error(400, "invalid_request_error", "This account can't use the model.")
        body["max_tokens"] = body.pop("max_completion_tokens", 1)
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        return api(httpx.Request("POST", request.url, headers=headers, content=json.dumps(body)))

    return httpx.MockTransport(handle)


def test_rejected_keys_are_changed_and_become_keys_of_the_target() -> None:
    client = Client(TARGET, ACCESS, transport=strict(FakeApi()))
    evidence = gather(client, MODEL, client.get(MODELS), keyed=True, restricted=None)
    found = {finding.name: finding for finding in judge(evidence)}
    assert evidence.keys == {"max_tokens_key": "max_completion_tokens", "stream_options": False}
    assert client.sent <= FIXED_REQUESTS + MAX_REPEATS
    assert found["a completion is made"].status is Status.HOLDS
    assert "Unsupported parameter: 'temperature'" in found["temperature"].observed
    assert "max_tokens_key" in str(found["bound of completions"].remedy)
    works, fails = capabilities(list(found.values()))
    assert works[:2] == ["completions", "streams"]
    assert "usage in streams" in works
    assert all(line.endswith(")") for line in fails)


def test_usage_that_was_not_requested_and_is_missing_does_not_work() -> None:
    api = FakeApi()
    transport = httpx.MockTransport(lambda request: _without_stream_usage(api(request)))
    client = Client(TARGET.model_copy(update={"stream_options": False}), ACCESS, transport=transport)
    evidence = gather(client, MODEL, client.get(MODELS), keyed=True, restricted=None)
    _, fails = capabilities(judge(evidence))
    assert fails == ["usage in streams (their tokens are estimated)"]


def _without_stream_usage(response: httpx.Response) -> httpx.Response:
    if "event-stream" not in response.headers.get("content-type", ""):
        return response
    kept = [event for event in response.content.split(b"\n\n") if b'"usage": {' not in event]
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"\n\n".join(kept))


def test_keys_are_not_blamed_if_changing_them_does_not_help() -> None:
    client = Client(TARGET, ACCESS, transport=strict(FakeApi(), helps=False))
    evidence = gather(client, MODEL, client.get(MODELS), keyed=True, restricted=None)
    assert evidence.keys == {}
    assert evidence.rejected == {}
    assert client.target == TARGET
