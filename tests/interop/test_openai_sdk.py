"""The unmodified openai SDK against the sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from support_locust import run_locust, truth_of, write_scenarios
from support_sandbox import NO_LIMITS, read_truth, running_sandbox

from bltybench.load.retry import EndedAttempt, wait_before_retry_s
from bltybench.policies.retries import Retries
from bltybench.runs.attempt import Outcome
from bltybench.sandbox.process import SandboxProcess
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.prompts import tokens
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import SANDBOX_KEY, SANDBOX_RESTRICTED_KEY, RateLimit
from bltybench.wire.exchange import Exchange
from bltybench.wire.ratelimit_headers import parse_quota
from bltybench.wire.result import ExchangeResult

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Write a poem about the ocean."},
]
PROMPT_TOKENS = tokens.count_messages([dict(message) for message in MESSAGES])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with running_sandbox() as running:
        yield running


def client_of(sandbox: SandboxProcess, key: str = SANDBOX_KEY, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=sandbox.base_url, api_key=key, max_retries=retries)


@pytest.fixture
def client(sandbox: SandboxProcess) -> Iterator[openai.OpenAI]:
    with client_of(sandbox) as made:
        yield made


@asynccontextmanager
async def async_client_of(sandbox: SandboxProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=sandbox.base_url, api_key=SANDBOX_KEY, max_retries=0) as made:
        yield made


def test_plain_example_of_the_reference_works(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model="gpt-4o-mini", messages=MESSAGES, temperature=0.7, max_tokens=32
    )
    text = response.choices[0].message.content
    assert text is not None
    assert tokens.count(text) == 32
    assert response.usage is not None
    assert response.usage.prompt_tokens == PROMPT_TOKENS
    assert response.usage.completion_tokens == 32
    assert response.usage.total_tokens == PROMPT_TOKENS + 32
    assert response.choices[0].finish_reason == "length"
    assert response._request_id is not None


def test_streaming_example_of_the_reference_works(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=MESSAGES, max_tokens=32, stream=True
    )
    text = ""
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
    assert tokens.count(text) == 32


def test_stream_with_usage_is_parsed(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="deepseek-chat",
            messages=MESSAGES,
            max_completion_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (PROMPT_TOKENS, 9)


def test_streaming_helper_assembles_the_completion(client: openai.OpenAI) -> None:
    # Without max_tokens: the helper treats finish_reason length as a failure.
    with client.chat.completions.stream(
        model="deepseek-chat", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        completion = stream.get_final_completion()
    assert completion.usage is not None
    assert completion.usage.completion_tokens == tokens.count(completion.choices[0].message.content or "")


def test_n_choices_are_returned(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(model="deepseek-chat", messages=MESSAGES, max_tokens=6, n=3)
    assert [choice.index for choice in response.choices] == [0, 1, 2]
    texts = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(
        model="deepseek-chat", messages=MESSAGES, max_tokens=6, n=3, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert [tokens.count(text) for text in texts.values()] == [6, 6, 6]


def test_stop_string_ends_the_text(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model="deepseek-chat", messages=MESSAGES, max_tokens=400, stop=["e", "o"]
    )
    assert response.choices[0].finish_reason == "stop"
    assert not set("eo") & set(response.choices[0].message.content or "")


def test_reasoning_tokens_are_reported(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(model="deepseek-reasoner", messages=MESSAGES, max_tokens=10)
    assert tokens.count(getattr(response.choices[0].message, "reasoning_content", "")) == 5
    assert response.usage is not None
    assert response.usage.completion_tokens_details is not None
    assert response.usage.completion_tokens_details.reasoning_tokens == 5


def test_models_are_listed_by_the_sdk(client: openai.OpenAI) -> None:
    models = list(client.models.list())
    assert [model.id for model in models] == ["deepseek-chat", "deepseek-reasoner", "gpt-4o-mini"]
    assert client.models.retrieve("gpt-4o-mini") == models[2]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-99")


def test_concurrent_async_plain_and_streaming_calls_succeed(sandbox: SandboxProcess) -> None:
    async def talk() -> list[int]:
        async with async_client_of(sandbox) as client:

            async def plain() -> int:
                response = await client.chat.completions.create(
                    model="deepseek-chat", messages=MESSAGES, max_tokens=20
                )
                return tokens.count(response.choices[0].message.content or "")

            async def streamed() -> int:
                text = ""
                async for chunk in await client.chat.completions.create(
                    model="deepseek-chat", messages=MESSAGES, max_tokens=30, stream=True
                ):
                    text += chunk.choices[0].delta.content or ""
                return tokens.count(text)

            return await asyncio.gather(*(call() for call in (plain, streamed) for _ in range(10)))

    assert asyncio.run(talk()) == [20] * 10 + [30] * 10


def test_async_client_raises_the_same_error_types(sandbox: SandboxProcess) -> None:
    async def talk() -> None:
        async with async_client_of(sandbox) as client:
            with pytest.raises(openai.NotFoundError) as caught:
                await client.chat.completions.create(model="gpt-99", messages=MESSAGES)
            assert caught.value.code == "model_not_found"

    asyncio.run(talk())


def refusal(error: openai.APIStatusError) -> tuple[int, str | None, str | None, str | None]:
    return error.status_code, error.type, error.param, error.code


@pytest.mark.parametrize("stream", [False, True])
def test_invalid_value_raises_bad_request_error(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="deepseek-chat", messages=MESSAGES, temperature=5, stream=stream)
    assert refusal(caught.value) == (
        400,
        "invalid_request_error",
        "temperature",
        "decimal_above_max_value",
    )


def test_wrong_key_raises_authentication_error(sandbox: SandboxProcess) -> None:
    with (
        client_of(sandbox, key="sk-some-secret") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert refusal(caught.value) == (401, "authentication_error", None, "invalid_api_key")
    assert "some-secret" not in str(caught.value)


def test_forbidden_model_raises_permission_error(sandbox: SandboxProcess) -> None:
    with (
        client_of(sandbox, key=SANDBOX_RESTRICTED_KEY) as client,
        pytest.raises(openai.PermissionDeniedError) as caught,
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert refusal(caught.value)[:2] == (403, "permission_error")


def test_unknown_model_raises_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-99", messages=MESSAGES, stream=True)
    assert refusal(caught.value) == (404, "not_found_error", "model", "model_not_found")


def test_500_raises_internal_server_error_after_retries(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with (
        running_sandbox(log, error_rate=1.0) as failing,
        client_of(failing, retries=1) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model="deepseek-chat", messages=MESSAGES)
    assert refusal(caught.value) == (500, "server_error", None, None)
    first, second = chat_rows(log)
    assert (first.status, second.status) == (500, 500)
    shortest_s, longest_s = (policy_wait(500, {}, draw) or 0.0 for draw in (1.0, 0.0))
    assert shortest_s <= (second.received_ns - first.received_ns) / 1e9 < longest_s + 1.5


def chat_rows(log: Path) -> list[TruthRow]:
    return [row for row in read_truth(log) if row.path == "/v1/chat/completions"]


def limited(limit: int, period_s: float) -> dict[str, Any]:
    rule = RateLimit(limit=limit, period_s=period_s, algorithm="sliding_log")
    return {"limits": NO_LIMITS.model_copy(update={"requests": rule})}


def test_refusal_raises_rate_limit_error_with_headers() -> None:
    with running_sandbox(**limited(1, 3600)) as running, client_of(running) as client:
        client.chat.completions.create(model="deepseek-chat", messages=MESSAGES, max_tokens=1)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="deepseek-chat", messages=MESSAGES, max_tokens=1)
    assert refusal(caught.value) == (429, "rate_limit_error", None, "rate_limit_exceeded")
    headers = caught.value.response.headers
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("1", "0")
    assert 3590 < int(headers["Retry-After"]) <= 3600
    assert int(headers["X-RateLimit-Reset"]) > time.time()


def test_sdk_retries_wait_for_retry_after(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, **limited(2, 2.5)) as running, client_of(running, retries=2) as client:
        for _ in range(3):
            client.chat.completions.create(model="deepseek-chat", messages=MESSAGES, max_tokens=1)
    rows = chat_rows(log)
    assert [row.status for row in rows] == [200, 200, 429, 200]
    # Retry-After was 3 s (2.5 rounded up), and the SDK retried after 3 s, not earlier, as our policy does.
    expected_s = policy_wait(429, {"Retry-After": "3"}, 0.0)
    assert expected_s == 3
    assert expected_s <= (rows[3].received_ns - rows[2].received_ns) / 1e9 < expected_s + 1.5
    assert rows[3].received_ns - rows[0].received_ns >= 2.5e9


def sdk_waits(status: int, headers: dict[str, str]) -> list[float]:
    """Return the waits between the attempts of a call that always fails, in seconds."""
    sent_s: list[float] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        sent_s.append(time.monotonic())
        return httpx.Response(status, headers=headers, json={"error": {"message": "no"}}, request=request)

    # Any: older versions of the package take another httpx.
    transport: Any = httpx.Client(transport=httpx.MockTransport(refuse))
    with (
        openai.OpenAI(
            base_url="http://sdk.test/v1", api_key="k", max_retries=1, http_client=transport
        ) as sdk,
        pytest.raises(openai.APIStatusError),
    ):
        sdk.chat.completions.create(model="m", messages=MESSAGES)
    return [later - earlier for earlier, later in pairwise(sent_s)]


def policy_wait(status: int, headers: dict[str, str], draw: float) -> float | None:
    """Return the wait of our policy after such an attempt; ``draw`` is the random number in [0, 1)."""
    exchange = Exchange(status=status, headers=[(name.lower(), value) for name, value in headers.items()])
    quota = parse_quota(exchange.headers, time.time())
    outcome = Outcome.RATE_LIMITED if status == 429 else Outcome.SERVER_ERROR
    result = ExchangeResult(outcome=outcome, status=status, quota=quota)
    rng = Random()
    rng.random = lambda: draw  # type: ignore[method-assign]
    ended = EndedAttempt(exchange, result, 0, None)
    return wait_before_retry_s(Retries(Retry(policy="openai", max_attempts=2)), ended, 0.0, rng)


DAY_AGO, IN_A_DAY = (formatdate(time.time() + change_s, usegmt=True) for change_s in (-86_400, 86_400))


def test_openai_policy_waits_as_long_as_the_openai_package() -> None:
    cases = [
        (429, {}),
        (503, {}),
        (429, {"retry-after-ms": "300", "retry-after": "9"}),
        (429, {"Retry-After": "0.2"}),
        (429, {"Retry-After": "1"}),
        (429, {"Retry-After": "0"}),
        (429, {"Retry-After": "-3"}),
        (429, {"Retry-After": "soon"}),
        (429, {"Retry-After": "121"}),
        (429, {"Retry-After": "86400"}),
        (429, {"Retry-After": "99999999999"}),
        (429, {"Retry-After": DAY_AGO}),
        (429, {"Retry-After": IN_A_DAY}),
        (429, {"x-ratelimit-retry-after": "3"}),
        (429, {"x-should-retry": "false"}),
        (400, {"x-should-retry": "true"}),
        (400, {}),
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        waits = list(pool.map(lambda case: sdk_waits(*case), cases))
    for case, waited in zip(cases, waits, strict=True):
        longest, shortest = (policy_wait(*case, draw) for draw in (0.0, 1.0))
        if longest is None or shortest is None:
            assert waited == [], case
        else:
            # A busy machine can make the SDK late, but never early.
            assert len(waited) == 1, case
            assert shortest - 0.01 <= waited[0] <= longest + 1.5, case


OWN = """
import openai
from locust import constant, task
from locust.exception import StopUser
from bltybench.load import ChatUser

HI = [{"role": "user", "content": "Tell me about the sea."}]


class Sdk(ChatUser):
    wait_time = constant(0.1)

    def on_start(self):
        self.openai = self.client.as_openai()
        self.named = self.client.as_openai("named", max_retries=0)

    @task
    def use_the_sdk(self):
        create = self.openai.chat.completions.create
        assert create(model="deepseek-chat", messages=HI, max_tokens=4).usage.completion_tokens == 4
        chunks = create(model="deepseek-chat", messages=HI, max_tokens=6, stream=True)
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
        with create(model="deepseek-chat", messages=HI, max_tokens=300, stream=True) as cut:
            next(iter(cut))
        first = create(model="deepseek-chat", messages=HI, max_tokens=5, stream=True)
        second = create(model="deepseek-chat", messages=HI, max_tokens=7, stream=True)
        assert len(list(second)) == 9 and len(list(first)) == 7
        try:
            self.named.chat.completions.create(model="deepseek-chat", messages=HI, max_tokens=1)
        except openai.RateLimitError:
            print("refused")
        # The limit is reached, so the package waits for Retry-After and tries again.
        assert create(model="deepseek-chat", messages=HI, max_tokens=2).usage.completion_tokens == 2
        assert len(self.openai.models.list().data) == 3
        print("all done")
        raise StopUser
"""


def test_requests_of_the_sdk_in_a_locustfile_are_recorded_as_attempts(tmp_path: Path) -> None:
    own, log = tmp_path / "own.py", tmp_path / "truth.jsonl"
    own.write_text(OWN)
    with running_sandbox(log, **limited(5, 3.5)) as running:
        write_scenarios(tmp_path, running.base_url)
        done = run_locust(own, "-t", "9s", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    assert (done.output.count("refused\n"), done.output.count("all done")) == (1, 1), done.output
    rows = sorted(done.attempts, key=lambda row: row["sent_ns"])
    first_attempts = [row for row in rows if row["attempt"] == 0]
    cut = [row for row in first_attempts if row["outcome"] == "cancelled"]
    assert [
        # The last events of a stream can arrive before the SDK closes it.
        (row["name"], row["outcome"], None if row in cut else row["completion_tokens"])
        for row in first_attempts
    ] == [
        ("chat", "ok", 4),
        ("stream", "ok", 6),
        ("stream", "cancelled", None),
        ("stream", "ok", 5),
        ("stream", "ok", 7),
        ("named", "rate_limited", None),
        ("chat", "rate_limited", None),
        ("models", "ok", None),
    ]
    *_, retried, last, _ = rows
    assert last["outcome"] == "ok"
    assert (retried["call_id"], last["attempt"]) == (last["call_id"], retried["attempt"] + 1)
    assert all(row["first_token_ns"] for row in rows if row["stream"] and row["outcome"] == "ok")
    chat_ids = {row["request_id"] for row in rows if row["endpoint"] == "/chat/completions"}
    assert chat_ids == set(truth_of(log))
