"""The settings that ``bltybench advise`` prints, executed against the limit that they are for."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from support_cli import free_port
from support_limiters import envoy, nginx, server_program
from support_sandbox import NO_LIMITS, read_truth, running_sandbox

from bltybench.policies.advice.prescription import prescribe
from bltybench.policies.advice.settings import settings
from bltybench.sandbox.process import SandboxProcess
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import SANDBOX_KEY, RateLimit, SandboxLimits

CONCURRENT = 3
LIMITS = NO_LIMITS.model_copy(
    update={"requests": RateLimit(limit=10, period_s=1.0, algorithm="sliding_log"), "concurrency": CONCURRENT}
)
CALLS = 25
"""Calls that are all due immediately: without a pace, at least 15 of them are refused."""
MAX_REFUSED = 8
MESSAGES = [{"role": "user", "content": "Hi"}]
REQUEST: dict[str, Any] = {"model": "deepseek-chat", "max_tokens": 1, "messages": MESSAGES}


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxProcess]:
    monkeypatch.setenv("OPENAI_API_KEY", SANDBOX_KEY)
    with running_sandbox(log_path=tmp_path / "log", limits=LIMITS) as running:
        yield running


def advised(name: str, base_url: str, limits: SandboxLimits = LIMITS) -> str:
    """Return the text of one of the settings for the limits of an API."""
    made = settings(
        prescribe(limits, [CallSize(10, 1)]), model="deepseek-chat", base_url=base_url, timeout_s=30
    )
    (text,) = [setting.text for setting in made if setting.name == name]
    return text


def executed(name: str, sandbox: SandboxProcess) -> dict[str, Any]:
    """Return what the text of one of the settings defines."""
    found: dict[str, Any] = {}
    exec(advised(name, sandbox.base_url), found)  # noqa: S102 - that is the test
    return found


def statuses(tmp_path: Path, sandbox: SandboxProcess) -> list[int | None]:
    """Stop the sandbox and return the status of each chat request that it received."""
    sandbox.stop()
    return [row.status for row in read_truth(tmp_path / "log") if row.model is not None]


def paced(received: list[int | None]) -> bool:
    """Return whether all calls succeeded, hardly any of them after a refusal by a busy machine's jitter."""
    return received.count(200) == CALLS and len(received) <= CALLS + MAX_REFUSED


def all_at_once(call: Callable[[], object]) -> None:
    """Make all calls concurrently."""
    with ThreadPoolExecutor(CALLS) as pool:
        for future in [pool.submit(call) for _ in range(CALLS)]:
            future.result()


@pytest.mark.parametrize("name", ["openai", "aiolimiter"])
def test_openai_is_hardly_refused(sandbox: SandboxProcess, tmp_path: Path, name: str) -> None:
    found = executed(name, sandbox)

    async def spaced(client: openai.AsyncOpenAI) -> None:
        async with found["pace"]:
            await client.chat.completions.create(**REQUEST)

    async def batch() -> None:
        async with found.get("client") or openai.AsyncOpenAI(base_url=sandbox.base_url) as client:
            await client.models.list()  # the first request of a process takes longer, and this one is free
            calls = (found["chat"](**REQUEST) if name == "openai" else spaced(client) for _ in range(CALLS))
            await asyncio.gather(*calls)

    asyncio.run(batch())
    assert paced(statuses(tmp_path, sandbox))


def test_langchain_is_hardly_refused(sandbox: SandboxProcess, tmp_path: Path) -> None:
    model = executed("LangChain", sandbox)["model"]
    for _ in range(CALLS):
        model.invoke("Hi", max_tokens=1)
    assert paced(statuses(tmp_path, sandbox))


def test_tenacity_retries_until_every_call_succeeds(sandbox: SandboxProcess, tmp_path: Path) -> None:
    chat = executed("tenacity", sandbox)["chat"]
    all_at_once(lambda: chat(**REQUEST))
    received = statuses(tmp_path, sandbox)
    assert received.count(200) == CALLS
    assert 429 in received


def test_nginx_paces_clients_that_do_not(sandbox: SandboxProcess, tmp_path: Path) -> None:
    port = free_port()
    egress = advised("nginx as egress", sandbox.base_url).replace(":8080", f":{port}")
    with (
        nginx(tmp_path, egress, ""),
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1") as client,
    ):
        all_at_once(lambda: client.chat.completions.create(**REQUEST))
    assert paced(statuses(tmp_path, sandbox))


def test_envoy_refuses_requests_that_the_api_would_refuse(sandbox: SandboxProcess, tmp_path: Path) -> None:
    port = free_port()
    egress = advised("Envoy as egress", sandbox.base_url).replace("port_value: 8080", f"port_value: {port}")
    refused = 0

    def insist() -> None:
        nonlocal refused
        while True:
            try:
                client.chat.completions.create(**REQUEST)
            except openai.RateLimitError:
                refused += 1
                time.sleep(0.05)
            else:
                return

    with (
        envoy(tmp_path, egress),
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client,
    ):
        all_at_once(insist)
    received = statuses(tmp_path, sandbox)
    assert paced(received)
    assert refused > len(received) - CALLS


@pytest.mark.parametrize(
    "base_url", ["https://api.example.com/v1", "http://localhost:8910/v1", "https://[::1]:8443/v1"]
)
@pytest.mark.parametrize("limit", [1, 60, 100_000])
def test_envoy_accepts_its_settings(tmp_path: Path, base_url: str, limit: int) -> None:
    limits = NO_LIMITS.model_copy(update={"requests": RateLimit(limit=limit)})
    path = tmp_path / "envoy.yaml"
    path.write_text(advised("Envoy as egress", base_url, limits))
    validated = server_program("envoy", "--mode", "validate", "-c", str(path))
    assert validated.returncode == 0, validated.stderr


LITELLM_CALLS = f"""
import asyncio, time, litellm

async def attempt():
    try:
        await router.acompletion(model="deepseek-chat", messages={MESSAGES}, max_tokens=1, num_retries=0)
    except litellm.RateLimitError:
        pass

async def attempts():
    await asyncio.gather(*(attempt() for _ in range({CALLS})))
    for _ in range({CALLS}):
        await attempt()

if time.time() % 60 > 50:  # it counts by minutes
    time.sleep(60 - time.time() % 60)
asyncio.run(attempts())
"""


def test_litellm_router_sends_what_the_limits_accept(tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"requests": RateLimit(limit=10, algorithm="sliding_log")})
    with running_sandbox(log_path=tmp_path / "log", limits=limits) as sandbox:
        text = advised("LiteLLM router", sandbox.base_url, limits)
        calls = server_program(
            "python",
            "-c",
            text + LITELLM_CALLS,
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            OPENAI_API_KEY=SANDBOX_KEY,
        )
    assert calls.returncode == 0, calls.stderr
    (rpm,) = re.findall(r'"rpm": (\d+)', text)
    received = statuses(tmp_path, sandbox)
    assert received == [200] * len(received)
    assert CONCURRENT < len(received) <= int(rpm)
